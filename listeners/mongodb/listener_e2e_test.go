//go:build e2e

package mongodb

import (
	"context"
	"errors"
	"log/slog"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"go.mongodb.org/mongo-driver/mongo"

	"github.com/afterimagedb/afterimage"
	"github.com/afterimagedb/afterimage/bucket"
	"github.com/afterimagedb/afterimage/e2e/harness"
	"github.com/afterimagedb/afterimage/manifest"
)

// logTo writes a listener's log lines to the test's log.
type logTo struct{ t *testing.T }

func (w logTo) Write(b []byte) (int, error) {
	w.t.Logf("%s", b)
	return len(b), nil
}

// rig is a replica set, a lane and a bucket.
type rig struct {
	t      *testing.T
	rs     *harness.ReplicaSet
	client *mongo.Client
	bucket bucket.Bucket
	lane   *memoryLane
	opts   Options
}

func newRig(t *testing.T, o harness.Options) *rig {
	t.Helper()
	rs, err := harness.StartReplicaSet(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := rs.Stop(); err != nil {
			t.Error(err)
		}
	})
	client, err := rs.Client()
	if err != nil {
		t.Fatal(err)
	}
	r := &rig{t: t, rs: rs, client: client, bucket: bucket.NewMemory(), lane: newMemoryLane()}
	r.opts = Options{
		Source: "test", URI: rs.URI(), Bucket: r.bucket, State: r.lane.State, Scratch: t.TempDir(),
		Logger: slog.New(slog.NewTextHandler(logTo{t}, nil)), SegmentBytes: 300_000, rangeBytes: 50_000, wholeBytes: 20_000, rowsPerGet: 200,
	}
	return r
}

// listen runs a listener until stop is called.
func (r *rig) listen() (stop func()) {
	r.t.Helper()
	o := r.opts
	o.Registerer = nil
	l, err := New(o)
	if err != nil {
		r.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- l.Run(ctx, &memoryPublisher{lane: r.lane}) }()
	stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; !errors.Is(err, context.Canceled) {
			r.t.Errorf("the listener ended with %v", err)
		}
	})
	r.t.Cleanup(stop)
	return stop
}

// eventually polls until ok, or fails.
func (r *rig) eventually(what string, within time.Duration, ok func() bool) {
	r.t.Helper()
	for end := time.Now().Add(within); !ok(); {
		if time.Now().After(end) {
			r.t.Fatalf("not within %s: %s; lane at %+v", within, what, r.lane.last())
		}
		if err := sleep(r.t.Context(), 20*time.Millisecond); err != nil {
			r.t.Fatal(err)
		}
	}
}

// majority returns the set's majority time.
func (r *rig) majority() afterimage.Time {
	r.t.Helper()
	at, err := majorityAfterNow(r.t.Context(), &member{client: r.client})
	if err != nil {
		r.t.Fatal(err)
	}
	return at
}

// caughtUp waits until the lane is complete up to now and no scan is under way.
func (r *rig) caughtUp() afterimage.Time {
	r.t.Helper()
	at := r.majority()
	r.eventually("the lane catches up and its scans complete", 90*time.Second, func() bool {
		s, _ := r.lane.State(r.t.Context())
		return r.lane.last().Horizon >= at && len(s.Scans) == 0
	})
	return at
}

// TestScanAndTail compares with the server while a listener is stopped and started under chaos.
func TestScanAndTail(t *testing.T) {
	for _, version := range []string{harness.Mongo60, harness.Mongo50, harness.Mongo44} {
		t.Run(version, func(t *testing.T) { scanAndTail(t, version) })
	}
}

func scanAndTail(t *testing.T, version string) {
	r := newRig(t, harness.Options{Version: version, Args: []string{"--setParameter", "maxNumberOfTransactionOperationsInSingleOplogEntry=2", "--setParameter", "enableTestCommands=1"}})
	c := newChaos(r.client, 1)
	c.old = version != harness.Mongo60
	if err := c.prepare(t.Context(), 3000); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- c.run(ctx) }()
	var times []afterimage.Time
	for i := range 6 {
		stop := r.listen()
		if err := sleep(ctx, time.Duration(50+rand.IntN(300*(i+1)))*time.Millisecond); err != nil {
			t.Fatal(err)
		}
		times = append(times, r.majority())
		stop()
	}
	stop := r.listen()
	for range 4 {
		if err := sleep(ctx, 500*time.Millisecond); err != nil {
			t.Fatal(err)
		}
		times = append(times, r.majority())
	}
	cancel()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	r.caughtUp()
	stop()
	j := newJudge(t.Context(), t, r.client, r.bucket, r.lane)
	j.unique()
	if version == harness.Mongo44 {
		j.skipCapped(t.Context())
	}
	if n := r.lane.notes(manifest.NoteUncertified); len(n) > 0 {
		t.Errorf("not understood: %v", n)
	}
	tables, rows := j.now(t.Context())
	t.Logf("%d writes, %d batches, %d changes; at the end %d tables, %d rows", c.writes, len(r.lane.batches), len(r.lane.changes()), tables, rows)
	if version != harness.Mongo60 {
		return
	}
	for _, at := range times {
		tables, rows := j.snapshot(t.Context(), at)
		t.Logf("at %s: %d tables, %d rows", at, tables, rows)
	}
}

// TestStandalone checks that a server without an oplog is refused with advice.
func TestStandalone(t *testing.T) {
	rs, err := harness.StartReplicaSet(t.Context(), harness.Options{Standalone: true})
	if err != nil {
		t.Fatal(err)
	}
	defer rs.Stop() //nolint:errcheck // the test is over
	_, err = Identify(t.Context(), rs.URI())
	var usage *afterimage.UsageError
	if !errors.As(err, &usage) {
		t.Fatalf("got %v", err)
	}
	lane := newMemoryLane()
	l, err := New(Options{Source: "alone", URI: rs.URI(), Bucket: bucket.NewMemory(), State: lane.State})
	if err != nil {
		t.Fatal(err)
	}
	if err := l.Run(t.Context(), &memoryPublisher{lane: lane}); !errors.As(err, &usage) {
		t.Fatalf("Run returned %v", err)
	}
}
