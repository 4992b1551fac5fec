package bucket_test

import (
	"errors"
	"maps"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/afterimagedb/afterimage/bucket"
	"github.com/afterimagedb/afterimage/bucket/buckettest"
)

func TestInstrumentPassesTheSuite(t *testing.T) {
	buckettest.Run(t, func(*testing.T) bucket.Bucket {
		return bucket.Instrument(bucket.NewMemory(), prometheus.NewRegistry())
	})
}

func TestInstrumentCounts(t *testing.T) {
	reg := prometheus.NewPedanticRegistry()
	faulty := buckettest.NewFaulty(bucket.NewMemory())
	b := bucket.Instrument(faulty, reg)
	ctx := t.Context()
	_ = b.Put(ctx, "a", []byte("12345"))
	_ = b.Create(ctx, "a", []byte("1"))
	_ = b.Create(ctx, "b", []byte("12"))
	_, _ = b.Get(ctx, "a")
	_, _ = b.Get(ctx, "none")
	_, _ = b.GetRange(ctx, "a", 1, 3)
	_ = b.List(ctx, "", "", func(bucket.Info) error { return errors.New("the caller's") })
	faulty.Set(buckettest.Always(buckettest.Fail))
	_ = b.Delete(ctx, "a")
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]float64{}
	for _, f := range families {
		for _, m := range f.GetMetric() {
			key := strings.TrimPrefix(f.GetName(), "afterimage_bucket_")
			for _, l := range m.GetLabel() {
				key += " " + l.GetValue()
			}
			got[key] = m.GetCounter().GetValue() + float64(m.GetHistogram().GetSampleCount())
		}
	}
	want := map[string]float64{
		"bytes_total create": 2, "bytes_total get": 5, "bytes_total get_range": 3, "bytes_total put": 5,
		"operations_total create exists": 1, "operations_total create ok": 1, "operations_total delete error": 1,
		"operations_total get not_found": 1, "operations_total get ok": 1, "operations_total get_range ok": 1,
		"operations_total list ok": 1, "operations_total put ok": 1,
		"operation_seconds create": 2, "operation_seconds delete": 1, "operation_seconds get": 2,
		"operation_seconds get_range": 1, "operation_seconds list": 1, "operation_seconds put": 1,
	}
	if !maps.Equal(got, want) {
		t.Errorf("counted\n%v, want\n%v", got, want)
	}
}
