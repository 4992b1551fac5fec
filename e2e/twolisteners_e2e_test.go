//go:build e2e

package e2e

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"go.mongodb.org/mongo-driver/bson"

	"github.com/afterimagedb/afterimage"
	"github.com/afterimagedb/afterimage/bucket"
	"github.com/afterimagedb/afterimage/e2e/chaos"
	"github.com/afterimagedb/afterimage/e2e/harness"
	"github.com/afterimagedb/afterimage/e2e/harness/harnesstest"
	"github.com/afterimagedb/afterimage/e2e/judge"
	"github.com/afterimagedb/afterimage/e2e/product"
	"github.com/afterimagedb/afterimage/manifest"
	"github.com/afterimagedb/afterimage/segment"
)

// Two listeners share a lane of an external stream. Each dies in turn; the other goes on, and nothing is lost or doubled.
func TestTwoListeners(t *testing.T) {
	ctx := limit(t, 4*time.Minute)
	rs := harnesstest.ReplicaSet(t, harness.Options{CacheGB: 1})
	c := documentsOnly(t, ctx, rs)
	p := install(t, rs, product.Options{Stream: jetStream(t)})
	rec := newRecorder(t, c, rs, harness.Mongo60)
	run, cancel := context.WithCancel(ctx)
	defer cancel()
	ended := make(chan error, 1)
	go func() { ended <- c.Run(run) }()

	service := serve(t, p, "--roles", "compact")
	listeners := []*harness.Process{listen(t, p), listen(t, p)}
	r := rand.New(rand.NewPCG(3, 3))
	for round := range 6 {
		pause(ctx, 200*time.Millisecond+time.Duration(r.Int64N(int64(time.Second))))
		mine, other := round%2, 1-round%2
		if err := listeners[mine].Kill(); err != nil {
			t.Fatal(err)
		}
		now, err := rec.now(ctx)
		if err != nil {
			t.Fatal(err)
		}
		waitCovers(t, ctx, p, service, now) // by the other one alone
		if !listeners[other].Alive() {
			t.Fatalf("round %d: the other listener ended with %d", round, listeners[other].ExitCode())
		}
		listeners[mine] = listen(t, p)
	}
	cancel()
	if err := <-ended; err != nil {
		t.Fatal(err)
	}
	checkWhole(t, ctx, p, service, rec)
}

// listen starts a listener with a data folder of its own, as on another machine.
func listen(t *testing.T, p *product.Installation) *harness.Process {
	t.Helper()
	l, err := p.ServeApart("listen", product.Source)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { stop(t, l) })
	return l
}

// jetStream runs a NATS server in this process and returns its URL.
func jetStream(t *testing.T) string {
	t.Helper()
	s, err := server.NewServer(&server.Options{JetStream: true, StoreDir: t.TempDir(), Host: "127.0.0.1", Port: server.RANDOM_PORT, NoSigs: true})
	if err != nil {
		t.Fatal(err)
	}
	s.Start()
	t.Cleanup(func() {
		s.Shutdown()
		s.WaitForShutdown()
	})
	if !s.ReadyForConnections(30 * time.Second) {
		t.Fatal("the NATS server is not ready")
	}
	return fmt.Sprintf("nats://%s", s.Addr())
}

// documentsOnly is chaos without DDL: collections stay what they are, so that times can be judged at any instant.
func documentsOnly(t *testing.T, ctx context.Context, rs *harness.ReplicaSet) *chaos.Chaos { //nolint:revive // t comes first
	t.Helper()
	c, err := chaos.New(ctx, chaos.Options{URI: rs.URI(), Version: harness.Mongo60, Seed: 42, NoDDL: true, NoHuge: true, Members: len(rs.Members)})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// checkWhole is for the end of a run, the chaos still: no gap, the last state exact with every acknowledged write once, every
// object sound, no change stored twice.
func checkWhole(t *testing.T, ctx context.Context, p *product.Installation, service *harness.Process, rec *recorder) product.Status { //nolint:revive // t comes first
	t.Helper()
	if err := rec.quiet(ctx); err != nil {
		t.Fatal(err)
	}
	last := rec.truths[len(rec.truths)-1]
	status := waitCovers(t, ctx, p, service, last.at)
	if len(status.Gaps) > 0 || len(status.Uncertified) > 0 {
		t.Errorf("gaps %v, not certified %v", status.Gaps, status.Uncertified)
	}
	checkLedger(t, last.state, rec.c.Acked())
	diffs, err := checkFolder(ctx, p, last, t.TempDir(), rec.bodies)
	if err != nil {
		t.Error(err)
	}
	if len(diffs) > 0 {
		t.Errorf("the end, %s: %d differences:\n%s", last.at, len(diffs), judge.Summary(diffs, 8))
	}
	if _, err := p.Do(ctx, "verify", product.Source, "--deep"); err != nil {
		t.Error(err)
	}
	checkStoredOnce(t, ctx, p)
	return status
}

// checkLedger wants every acknowledged write in a state. With a folder that equals the state, each is there exactly once.
func checkLedger(t *testing.T, s *judge.State, acked []chaos.Ack) {
	t.Helper()
	have := map[int64]int{}
	s.IDs("ledger.acks", func(d bson.Raw) { have[d.Lookup("_id").Int64()]++ })
	lost := slices.DeleteFunc(slices.Clone(acked), func(a chaos.Ack) bool { return have[a.ID] == 1 })
	if len(acked) < 50 || len(lost) > 0 {
		t.Errorf("%d writes acknowledged, want 50; not there exactly once: %v", len(acked), lost[:min(len(lost), 8)])
	}
	t.Logf("%d writes acknowledged, %d in the state, %d documents in all", len(acked), len(have), s.Documents())
}

// place is what no two stored changes have in common.
type place struct {
	table afterimage.TableID
	key   string
	time  afterimage.Time
	order uint32
}

// checkStoredOnce reads every live segment of changes and wants each change in one place only.
func checkStoredOnce(t *testing.T, ctx context.Context, p *product.Installation) { //nolint:revive // t comes first
	t.Helper()
	folder, err := bucket.NewFolder(p.BucketDir())
	if err != nil {
		t.Fatal(err)
	}
	b := bucket.Sub(folder, product.Source+"/")
	store, err := manifest.Open(ctx, b, product.Source, "mongodb")
	if err != nil {
		t.Fatal(err)
	}
	state, err := store.Load(ctx)
	if err != nil {
		t.Fatal(err)
	}
	seen := map[place]string{}
	segments, twice := 0, 0
	for id, m := range state.Segments {
		if m.Kind != segment.Changes {
			continue
		}
		segments++
		it, err := segment.Open(ctx, b, m, segment.ReadOptions{})
		if err != nil {
			t.Fatal(err)
		}
		for it.Next() {
			c := it.Change()
			at := place{c.Table, string(c.Key), c.Time, c.Order}
			if other, ok := seen[at]; ok {
				if twice++; twice < 8 {
					t.Errorf("a change of %s at %s, order %d, is in segments %s and %s", c.Table, c.Time, c.Order, other, id)
				}
			}
			seen[at] = id
		}
		if err := it.Err(); err != nil {
			t.Fatal(err)
		}
		it.Close()
	}
	t.Logf("%d changes in %d segments, %d of them twice", len(seen), segments, twice)
	if len(seen) == 0 {
		t.Error("no changes are stored")
	}
}
