//go:build e2e

package mongodb

import (
	"context"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"go.mongodb.org/mongo-driver/bson"

	"github.com/afterimagedb/afterimage/bucket"
	"github.com/afterimagedb/afterimage/e2e/harness"
)

// slowBucket takes a moment to store an object, as a real one does.
type slowBucket struct{ bucket.Bucket }

func (b slowBucket) Put(ctx context.Context, name string, data []byte) error {
	if err := sleep(ctx, 50*time.Millisecond); err != nil {
		return err
	}
	return b.Bucket.Put(ctx, name, data)
}

// TestNaturalOrderMeetsTheLog updates rows of a capped collection while it is scanned: rows that came with a reply of the
// server before a segment was stored must not be taken for younger than the updates made meanwhile.
func TestNaturalOrderMeetsTheLog(t *testing.T) {
	r := newRig(t, harness.Options{})
	r.opts.Bucket = slowBucket{r.bucket}
	const rows = 2000
	db := r.client.Database("shop")
	if err := db.RunCommand(t.Context(), bson.D{{Key: "create", Value: "c"}, {Key: "capped", Value: true}, {Key: "size", Value: int32(8 << 20)}}).Err(); err != nil {
		t.Fatal(err)
	}
	var docs []any
	for i := range rows {
		docs = append(docs, bson.D{{Key: "_id", Value: int32(i)}, {Key: "n", Value: int32(0)}, {Key: "text", Value: strings.Repeat("x", 100)}})
	}
	if _, err := db.Collection("c").InsertMany(t.Context(), docs); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() {
		for n := int32(1); ctx.Err() == nil; n++ {
			_, err := db.Collection("c").UpdateByID(context.WithoutCancel(ctx), rand.Int32N(rows), bson.D{{Key: "$set", Value: bson.D{{Key: "n", Value: n}}}})
			if err != nil {
				done <- err
				return
			}
		}
		done <- nil
	}()
	stop := r.listen()
	r.eventually("the scan completes", 60*time.Second, func() bool {
		s, _ := r.lane.State(t.Context())
		return len(s.Images) > 1 && len(s.Scans) == 0
	})
	cancel()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	r.caughtUp()
	stop()
	j := newJudge(t.Context(), t, r.client, r.bucket, r.lane)
	if tables, n := j.now(t.Context()); n < rows {
		t.Errorf("%d tables and %d rows were compared", tables, n)
	}
}
