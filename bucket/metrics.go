package bucket

import (
	"context"
	"errors"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// metrics are those of one instrumented bucket.
type metrics struct {
	operations *prometheus.CounterVec
	bytes      *prometheus.CounterVec
	seconds    *prometheus.HistogramVec
}

func newMetrics(reg prometheus.Registerer) *metrics {
	m := &metrics{
		operations: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "afterimage_bucket_operations_total",
			Help: "Operations on the bucket, by operation and result: ok, not_found, exists, cancelled or error.",
		}, []string{"operation", "result"}),
		bytes: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "afterimage_bucket_bytes_total",
			Help: "Bytes of object content read from and written to the bucket, by operation.",
		}, []string{"operation"}),
		seconds: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name:    "afterimage_bucket_operation_seconds",
			Help:    "Time that operations on the bucket took, retries included.",
			Buckets: prometheus.ExponentialBuckets(0.0005, 4, 10), // 0.5 ms to 131 s
		}, []string{"operation"}),
	}
	reg.MustRegister(m.operations, m.bytes, m.seconds)
	return m
}

// instrumented counts and times what goes through it.
type instrumented struct {
	Bucket // String
	m      *metrics
}

// Instrument returns b with its operations counted and timed. It is called once per registerer.
func Instrument(b Bucket, reg prometheus.Registerer) Bucket { return instrumented{b, newMetrics(reg)} }

// done records an operation that began at start.
func (i instrumented) done(operation string, start time.Time, bytes int, err error) {
	result := "error"
	switch {
	case err == nil:
		result = "ok"
	case errors.Is(err, ErrNotFound):
		result = "not_found"
	case errors.Is(err, ErrExists):
		result = "exists"
	case errors.Is(err, context.Canceled):
		result = "cancelled"
	}
	i.m.operations.WithLabelValues(operation, result).Inc()
	i.m.seconds.WithLabelValues(operation).Observe(time.Since(start).Seconds())
	if err == nil && bytes > 0 {
		i.m.bytes.WithLabelValues(operation).Add(float64(bytes))
	}
}

// Put implements [Bucket].
func (i instrumented) Put(ctx context.Context, name string, data []byte) error {
	start := time.Now()
	err := i.Bucket.Put(ctx, name, data)
	i.done("put", start, len(data), err)
	return err
}

// Create implements [Bucket].
func (i instrumented) Create(ctx context.Context, name string, data []byte) error {
	start := time.Now()
	err := i.Bucket.Create(ctx, name, data)
	i.done("create", start, len(data), err)
	return err
}

// Get implements [Bucket].
func (i instrumented) Get(ctx context.Context, name string) ([]byte, error) {
	start := time.Now()
	data, err := i.Bucket.Get(ctx, name)
	i.done("get", start, len(data), err)
	return data, err
}

// GetRange implements [Bucket].
func (i instrumented) GetRange(ctx context.Context, name string, offset, length int64) ([]byte, error) {
	start := time.Now()
	data, err := i.Bucket.GetRange(ctx, name, offset, length)
	i.done("get_range", start, len(data), err)
	return data, err
}

// Size implements [Bucket].
func (i instrumented) Size(ctx context.Context, name string) (int64, error) {
	start := time.Now()
	size, err := i.Bucket.Size(ctx, name)
	i.done("size", start, 0, err)
	return size, err
}

// List implements [Bucket]. The time that fn takes, and its errors, do not count.
func (i instrumented) List(ctx context.Context, prefix, after string, fn func(Info) error) error {
	start, own := time.Now(), false
	err := i.Bucket.List(ctx, prefix, after, func(info Info) error {
		begin := time.Now()
		err := fn(info)
		start = start.Add(time.Since(begin))
		own = err != nil
		return err
	})
	counted := err
	if own {
		counted = nil
	}
	i.done("list", start, 0, counted)
	return err
}

// Delete implements [Bucket].
func (i instrumented) Delete(ctx context.Context, name string) error {
	start := time.Now()
	err := i.Bucket.Delete(ctx, name)
	i.done("delete", start, 0, err)
	return err
}
