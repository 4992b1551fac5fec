//go:build e2e

package e2e

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.mongodb.org/mongo-driver/bson"
	"golang.org/x/sync/errgroup"

	"github.com/afterimagedb/afterimage"
	"github.com/afterimagedb/afterimage/bucket"
	"github.com/afterimagedb/afterimage/compactor"
	dialect "github.com/afterimagedb/afterimage/dialect/mongodb"
	"github.com/afterimagedb/afterimage/e2e/harness"
	"github.com/afterimagedb/afterimage/e2e/harness/harnesstest"
	"github.com/afterimagedb/afterimage/fold"
	listener "github.com/afterimagedb/afterimage/listeners/mongodb"
	"github.com/afterimagedb/afterimage/manifest"
	"github.com/afterimagedb/afterimage/stream"
)

type lane struct{ *stream.Lane }

func (l lane) Read(ctx context.Context, after uint64) (compactor.BatchReader, error) {
	return l.Lane.Read(ctx, after)
}

func TestSkeleton(t *testing.T) {
	rs := harnesstest.ReplicaSet(t, harness.Options{Members: 1})
	cl, err := rs.Client()
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 60*time.Second)
	defer cancel()
	coll := cl.Database("shop").Collection("orders")
	for i := range 1000 {
		if _, err := coll.InsertOne(ctx, bson.M{"_id": i, "v": "first"}); err != nil {
			t.Fatal(err)
		}
	}
	log := slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelDebug}))
	b := bucket.NewMemory()
	store, err := manifest.Open(ctx, b, "s", "mongodb")
	if err != nil {
		t.Fatal(err)
	}
	committer, err := manifest.NewCommitter(ctx, store)
	if err != nil {
		t.Fatal(err)
	}
	bus, err := stream.Open(ctx, stream.Options{URL: "embedded", Dir: t.TempDir(), Source: "s", Logger: log, Registerer: prometheus.NewRegistry()})
	if err != nil {
		t.Fatal(err)
	}
	defer bus.Close()
	id, err := listener.Identify(ctx, rs.URI())
	if err != nil {
		t.Fatal(err)
	}
	ln, err := bus.Lane(ctx, id.Lane)
	if err != nil {
		t.Fatal(err)
	}
	l, err := listener.New(listener.Options{Source: "s", URI: rs.URI(), Bucket: b, State: store.Load, Scratch: t.TempDir(), Logger: log, Registerer: prometheus.NewRegistry()})
	if err != nil {
		t.Fatal(err)
	}
	own, err := bus.Lane(ctx, id.Lane) // as in serve: on the listener's lane its Last would end the publisher's session
	if err != nil {
		t.Fatal(err)
	}
	c := compactor.New(compactor.Options{Source: "s", Bucket: b, Committer: committer, Dialect: dialect.New(), Lanes: map[string]compactor.Lane{id.Lane: lane{own}}, Logger: log, Registerer: prometheus.NewRegistry()})
	g, run := errgroup.WithContext(ctx)
	g.Go(func() error { return l.Run(run, ln) })
	g.Go(func() error { return c.Run(run) })
	for i := range 1000 {
		if _, err := coll.UpdateByID(ctx, i, bson.M{"$set": bson.M{"v": fmt.Sprint(i), "w": i}}); err != nil {
			t.Fatal(err)
		}
	}
	var hello struct {
		OperationTime struct{ T, I uint32 } `bson:"-"`
	}
	_ = hello
	r := cl.Database("admin").RunCommand(ctx, bson.D{{Key: "appendOplogNote", Value: 1}, {Key: "data", Value: bson.D{}}})
	raw, err := r.Raw()
	if err != nil {
		t.Fatal(err)
	}
	sec, ord := raw.Lookup("operationTime").Timestamp()
	at := afterimage.MongoTime(sec, ord)
	for committer.State().Horizon() < at || len(committer.State().Scans) > 0 {
		select {
		case <-run.Done():
			t.Fatal(context.Cause(run), g.Wait())
		case <-time.After(20 * time.Millisecond):
		}
	}
	n := 0
	s := committer.State()
	for _, p := range s.Cover(afterimage.Range{}, at) {
		it, err := p.Open(ctx, b, at)
		if err != nil {
			t.Fatal(err)
		}
		rows := fold.New(it, dialect.New(), nil)
		for rows.Next() {
			row := rows.Row()
			if row.Table == afterimage.CatalogTable {
				t.Log(bson.Raw(row.Body))
				continue
			}
			want, err := coll.FindOne(ctx, bson.M{"_id": bson.Raw(row.Body).Lookup("_id")}).Raw()
			if err != nil {
				t.Log("not in orders", bson.Raw(row.Body))
				continue
			}
			if !bytes.Equal(want, row.Body) {
				t.Fatalf("%v want %v", bson.Raw(row.Body), want)
			}
			n++
		}
		if rows.Err() != nil {
			t.Fatal(rows.Err())
		}
		rows.Close()
	}
	if n != 1000 {
		t.Fatal(n)
	}
	cancel()
	if err := g.Wait(); err != nil && !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}
