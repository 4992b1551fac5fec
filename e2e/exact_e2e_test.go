//go:build e2e

package e2e

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"testing"
	"time"

	"github.com/afterimagedb/afterimage/e2e/chaos"
	"github.com/afterimagedb/afterimage/e2e/harness"
	"github.com/afterimagedb/afterimage/e2e/harness/harnesstest"
	"github.com/afterimagedb/afterimage/e2e/judge"
	"github.com/afterimagedb/afterimage/e2e/product"
	"github.com/afterimagedb/afterimage/e2e/wire"
)

// Every time recorded under chaos comes back byte for byte, as a folder and, some of them, as a server.
func TestExact(t *testing.T) {
	t.Run("6.0", func(t *testing.T) {
		testExact(t, exact{version: harness.Mongo60, members: 3, lasts: 50 * time.Second, rate: 150, timesMin: 50, restores: 5})
	})
	t.Run("5.0", func(t *testing.T) {
		testExact(t, exact{version: harness.Mongo50, members: 1, lasts: 20 * time.Second, rate: 150, timesMin: 15, restores: 2})
	})
	t.Run("4.4", func(t *testing.T) {
		testExact(t, exact{version: harness.Mongo44, members: 1, lasts: 20 * time.Second, rate: 150, timesMin: 8, restores: 2})
	})
}

type exact struct {
	version  string
	members  int
	lasts    time.Duration
	rate     int
	timesMin int // fewer times recorded in the window are a failure of the test
	restores int
}

// testExact runs the chaos once more when the server itself came to a stop: some mixes of DDL, applyOps and prepared
// transactions deadlock mongod, which shows nothing about us.
func testExact(t *testing.T, e exact) {
	for seed := uint64(42); ; seed++ {
		err := exactOnce(t, e, seed)
		switch {
		case err == nil:
			return
		case seed > 42 || !errors.Is(err, errServerStopped):
			t.Fatal(err)
		}
		t.Logf("seed %d: %v; once more with another seed", seed, err)
	}
}

// errServerStopped says that the set no longer takes majority writes though nobody stopped a member.
var errServerStopped = errors.New("the server came to a stop")

// stopped tells a stop of the server from one of ours.
func stopped(ctx context.Context, rs *harness.ReplicaSet, err error) error {
	probe, cancel := context.WithTimeout(context.WithoutCancel(ctx), 15*time.Second)
	defer cancel()
	cl := wire.FromURI(rs.URI())
	defer cl.Close()
	_, werr := cl.Run(probe, "probe", wire.D("insert", "probe", "documents", wire.A(wire.D("x", 1)),
		"writeConcern", wire.D("w", "majority", "wtimeout", 10000), "maxTimeMS", 10000))
	if werr != nil {
		return fmt.Errorf("%w: %w (a write: %w)", errServerStopped, err, werr)
	}
	return err
}

func exactOnce(t *testing.T, e exact, seed uint64) error {
	ctx := limit(t, 8*time.Minute)
	o := harness.Options{Version: e.version, Members: e.members, CacheGB: 1, TTLMonitorOff: e.version == harness.Mongo44}
	if !o.TTLMonitorOff {
		o.Args = []string{"--setParameter", "ttlMonitorSleepSecs=1"}
	}
	if os.Getenv("AFTERIMAGE_KEEP") != "" {
		o.Dir = folder(t)
	}
	rs := harnesstest.ReplicaSet(t, o)
	c, err := chaos.New(ctx, chaos.Options{URI: rs.URI(), Version: e.version, Seed: seed, Rate: e.rate})
	if err != nil {
		t.Fatal(err)
	}
	p := install(t, rs, product.Options{})
	rec := newRecorder(t, c, rs, e.version)
	run, cancel := context.WithTimeout(ctx, e.lasts)
	defer cancel()
	ended := make(chan error, 1)
	go func() { ended <- c.Run(run) }()
	pause(run, time.Second)
	service := serve(t, p)
	if err := rec.record(run); err != nil {
		return stopped(ctx, rs, err)
	}
	if err := <-ended; err != nil {
		return stopped(ctx, rs, err)
	}
	t.Log(c.Report())
	for _, n := range c.NeverDone() {
		t.Log("never done:", n)
	}
	last, err := rec.now(ctx)
	if err != nil {
		t.Fatal(err)
	}
	status, err := awaitCovers(ctx, p, service, last)
	if err != nil {
		return stopped(ctx, rs, err)
	}
	if len(status.Gaps) > 0 || len(status.Uncertified) > 0 {
		t.Errorf("gaps %v, not certified %v", status.Gaps, status.Uncertified)
	}
	checkTruths(t, ctx, p, rec, status, e)
	return nil
}

// waitCovers waits until everything up to a time is restorable, or ends the test.
func waitCovers(t *testing.T, ctx context.Context, p *product.Installation, service *harness.Process, at wire.TS) product.Status { //nolint:revive // t comes first
	t.Helper()
	status, err := awaitCovers(ctx, p, service, at)
	if err != nil {
		t.Fatal(err)
	}
	return status
}

// awaitCovers waits until everything up to a time is restorable.
func awaitCovers(ctx context.Context, p *product.Installation, service *harness.Process, at wire.TS) (product.Status, error) {
	wait, cancel := context.WithTimeout(ctx, 90*time.Second)
	defer cancel()
	return p.WaitStatus(wait, service, product.Covers(at))
}

// checkTruths compares every recorded time in the window with a snapshot folder, and a few with a restored server.
func checkTruths(t *testing.T, ctx context.Context, p *product.Installation, rec *recorder, status product.Status, e exact) { //nolint:revive // t comes first
	t.Helper()
	in := slices.DeleteFunc(slices.Clone(rec.truths), func(tr truth) bool {
		return !slices.ContainsFunc(status.Windows, func(w product.Interval) bool { return !tr.at.Less(product.Time(w.From)) })
	})
	t.Logf("%d times recorded, %d in the window from %v, %d documents at the last", len(rec.truths), len(in), status.Windows, rec.truths[len(rec.truths)-1].state.Documents())
	if len(in) < e.timesMin {
		t.Errorf("%d times in the window, want %d", len(in), e.timesMin)
	}
	dir := t.TempDir()
	bad := 0
	for _, tr := range in {
		diffs, err := checkFolder(ctx, p, tr, dir, rec.bodies)
		if err != nil {
			t.Error(err)
		}
		if len(diffs) > 0 {
			t.Errorf("folder at %s (quiesced %v): %d differences:\n%s", tr.at, tr.quiesced, len(diffs), judge.Summary(diffs, 8))
		}
		if err != nil || len(diffs) > 0 {
			if bad++; bad == 4 {
				t.Fatal("and so on")
			}
		}
	}
	for i := range min(e.restores, len(in)) {
		tr := in[len(in)-1-i*len(in)/e.restores]
		if diffs := checkServer(t, ctx, p, tr, e.version, rec.bodies); len(diffs) > 0 {
			t.Errorf("server at %s (quiesced %v): %d differences:\n%s", tr.at, tr.quiesced, len(diffs), judge.Summary(diffs, 8))
		}
	}
}
