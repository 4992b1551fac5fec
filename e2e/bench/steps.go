//go:build bench

package bench

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"time"

	"go.mongodb.org/mongo-driver/bson"
	"go.mongodb.org/mongo-driver/bson/primitive"
	"go.mongodb.org/mongo-driver/mongo"

	"github.com/afterimagedb/afterimage"
	"github.com/afterimagedb/afterimage/bucket"
	"github.com/afterimagedb/afterimage/e2e/bench/workload"
	"github.com/afterimagedb/afterimage/e2e/harness"
	"github.com/afterimagedb/afterimage/e2e/product"
	"github.com/afterimagedb/afterimage/manifest"
	"github.com/afterimagedb/afterimage/segment"
)

const (
	seed       = 1
	settleTime = 6 * time.Second // without a change of segments: the compactor commits every 2 s
	pollTime   = 20 * time.Millisecond
)

// sizes of the work.
type sizes struct {
	scale     float64
	docs, ops int
}

// protected is a replica set with an installation of the product.
type protected struct {
	set     *harness.ReplicaSet
	client  *mongo.Client
	install *product.Installation
	dir     string
	store   *manifest.Store
	service *harness.Process
}

func protect(ctx context.Context, binary, dir string, o harness.Options) (*protected, error) {
	set, err := harness.StartReplicaSet(ctx, o)
	if err != nil {
		return nil, err
	}
	p := &protected{set: set, dir: dir}
	if p.client, err = set.Client(); err == nil {
		p.install, err = product.New(product.Options{Binary: binary, Dir: dir, URI: set.URI()})
	}
	if err != nil {
		return nil, errors.Join(err, set.Stop())
	}
	return p, nil
}

func (p *protected) stop() error {
	if p.service != nil {
		return errors.Join(p.service.Stop(), p.set.Stop())
	}
	return p.set.Stop()
}

// bucketDir is the source's part of the bucket.
func (p *protected) bucketDir() string { return filepath.Join(p.install.BucketDir(), product.Source) }

// streamDir is the embedded stream.
func (p *protected) streamDir() string { return filepath.Join(p.dir, "data", "stream", product.Source) }

// load reads the newest manifest.
func (p *protected) load(ctx context.Context) (*manifest.State, error) {
	if p.store == nil {
		b, err := bucket.NewFolder(p.bucketDir())
		if err != nil {
			return nil, err
		}
		if p.store, err = manifest.Open(ctx, b, product.Source, ""); err != nil {
			p.store = nil
			return nil, err
		}
	}
	return p.store.Load(ctx)
}

// await polls the manifest.
func (p *protected) await(ctx context.Context, what string, ok func(*manifest.State) bool) (*manifest.State, error) {
	t := time.NewTicker(pollTime)
	defer t.Stop()
	for {
		s, err := p.load(ctx)
		switch {
		case err == nil && ok(s):
			return s, nil
		case err != nil && !errors.Is(err, manifest.ErrNoRepository):
			return nil, err
		}
		select {
		case <-ctx.Done():
			return nil, fmt.Errorf("waiting for %s: %w\n%s", what, ctx.Err(), p.install.LogTail())
		case <-p.service.Exited():
			return nil, fmt.Errorf("waiting for %s: the service ended:\n%s", what, p.install.LogTail())
		case <-t.C:
		}
	}
}

func complete(s *manifest.State) bool {
	return len(s.Lanes) > 0 && len(s.Images) > 0 && len(s.Scans) == 0
}

func covers(at primitive.Timestamp) func(*manifest.State) bool {
	return func(s *manifest.State) bool { return complete(s) && s.Horizon() >= timeOf(at) }
}

// settle waits until the background has nothing left to do.
func (p *protected) settle(ctx context.Context) (*manifest.State, error) {
	var last []string
	since := time.Now()
	return p.await(ctx, "the compactor to rest", func(s *manifest.State) bool {
		now := slices.Sorted(maps.Keys(s.Segments))
		if !slices.Equal(now, last) {
			last, since = now, time.Now()
		}
		return time.Since(since) > settleTime
	})
}

func timeOf(t primitive.Timestamp) afterimage.Time { return afterimage.MongoTime(t.T, t.I) }

func bytesOf(s *manifest.State, kinds ...segment.Kind) int64 {
	var sum int64
	for _, m := range s.Segments {
		if slices.Contains(kinds, m.Kind) {
			sum += m.Bytes
		}
	}
	return sum
}

// image is what the first image took.
type image struct {
	cpu, wall    time.Duration
	peak, stored int64
	writes       int
	dump         usage
	dumpBytes    int64
	start        primitive.Timestamp // the first time that can be restored, or later
}

// firstImage loads the documents and measures mongodump --gzip and the service's first image, each while writes go on.
func (p *protected) firstImage(ctx context.Context, n sizes) (image, error) {
	var m image
	if err := workload.Load(ctx, p.client, seed, n.docs); err != nil {
		return m, err
	}
	if err := p.client.Database(workload.Database).CreateCollection(ctx, endOfChanges); err != nil {
		return m, err
	}
	if profile := os.Getenv("AFTERIMAGE_BENCH_PROFILE"); profile != "" {
		dir := filepath.Join(p.dir, "profiled")
		defer discard(dir)
		_, err := listen(ctx, orders{
			Source: product.Source, URI: p.set.URI(), Stream: filepath.Join(dir, "stream"), Bucket: filepath.Join(dir, "bucket"),
			Scratch: filepath.Join(dir, "scratch"), Image: true, Compact: true, Profile: profile + "-image.pprof",
		})
		if err != nil {
			return m, err
		}
	}
	writing, stop := context.WithCancel(ctx)
	wrote := make(chan int, 1)
	go func() { wrote <- touch(writing, p.client, n.docs) }()
	defer stop()
	var err error
	if m.dump, m.dumpBytes, err = p.dump(ctx, "--gzip"); err != nil {
		return m, err
	}
	began := time.Now()
	if p.service, err = p.install.Serve(); err != nil {
		return m, err
	}
	if _, err = p.await(ctx, "the first image", complete); err != nil {
		return m, err
	}
	m.wall = time.Since(began)
	if m.cpu, err = cpuOf(p.service.PID()); err != nil {
		return m, err
	}
	m.peak = peakMemory(p.service.PID())
	stop()
	m.writes = <-wrote
	if m.start, err = workload.Mark(ctx, p.client); err != nil {
		return m, err
	}
	s, err := p.await(ctx, "the time after the first image", covers(m.start))
	if err == nil {
		m.stored = bytesOf(s, segment.Image)
	}
	return m, err
}

// dump runs mongodump and returns the size of what it wrote.
func (p *protected) dump(ctx context.Context, args ...string) (usage, int64, error) {
	path, err := harness.Mongodump.Path()
	if err != nil {
		return usage{}, 0, err
	}
	dir := filepath.Join(p.dir, "dump")
	defer discard(dir)
	primary, err := p.set.WaitPrimary(ctx)
	if err != nil {
		return usage{}, 0, err
	}
	u, err := run(ctx, path, append([]string{"--quiet", "--uri", primary.URI(), "--db", workload.Database, "--out", dir}, args...)...)
	if err != nil {
		return u, 0, err
	}
	n, err := sizeOf(dir)
	return u, n, err
}

// touch updates documents, about a hundred a second, until ctx ends, and returns how many.
func touch(ctx context.Context, client *mongo.Client, docs int) int {
	r := workload.NewRandom(seed + 2)
	orders, _ := workload.Sizes(docs)
	t := time.NewTicker(10 * time.Millisecond)
	defer t.Stop()
	coll := client.Database(workload.Database).Collection("orders")
	for n := 0; ; n++ {
		filter := bson.D{{Key: "_id", Value: workload.OrderID(r.Below(orders))}}
		if _, err := coll.UpdateOne(ctx, filter, bson.D{{Key: "$inc", Value: bson.D{{Key: "rev", Value: 1}}}}); err != nil {
			return n
		}
		select {
		case <-t.C:
		case <-ctx.Done():
			return n
		}
	}
}

// operations is when the operations took place.
type operations struct {
	begin, middle, end primitive.Timestamp
	wall               time.Duration
	hot                string
}

// operate stops the service and does the operations.
func (p *protected) operate(ctx context.Context, n sizes) (operations, error) {
	var o operations
	if err := p.service.Stop(); err != nil {
		return o, err
	}
	var err error
	if o.begin, err = workload.Mark(ctx, p.client); err != nil {
		return o, err
	}
	plan := workload.NewPlan(seed, n.docs, n.ops)
	o.hot = plan.HotOrder()
	began := time.Now()
	err = workload.Apply(ctx, p.client, plan, func(done int) (err error) {
		if o.middle.IsZero() && done >= n.ops/2 {
			o.middle, err = workload.Mark(ctx, p.client)
		}
		return err
	})
	if err != nil {
		return o, err
	}
	o.wall = time.Since(began)
	if _, err := p.client.Database(workload.Database).Collection(endOfChanges).InsertOne(ctx, bson.D{{Key: "_id", Value: "end"}}); err != nil {
		return o, err
	}
	o.end, err = workload.Mark(ctx, p.client)
	return o, err
}
