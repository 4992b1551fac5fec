//go:build e2e

package chaos_test

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/afterimagedb/afterimage/e2e/chaos"
	"github.com/afterimagedb/afterimage/e2e/harness"
	"github.com/afterimagedb/afterimage/e2e/harness/harnesstest"
	"github.com/afterimagedb/afterimage/e2e/judge"
	"github.com/afterimagedb/afterimage/e2e/wire"
)

// The chaos does what it says, and the judge sees the same state twice and a snapshot's state while writes go on.
// TestExact runs it on the other versions.
func TestChaos(t *testing.T) { testChaos(t, harness.Mongo60) }

func testChaos(t *testing.T, version string) {
	rs := harnesstest.ReplicaSet(t, harness.Options{Version: version, CacheGB: 1})
	ctx, cancel := context.WithTimeout(t.Context(), 90*time.Second)
	defer cancel()
	c, err := chaos.New(ctx, chaos.Options{URI: rs.URI(), Version: version, Seed: 1, Rate: 400})
	if err != nil {
		t.Fatal(err)
	}
	run, stop := context.WithTimeout(ctx, 12*time.Second)
	defer stop()
	ended := make(chan error, 1)
	go func() { ended <- c.Run(run) }()
	cl := wire.FromURI(rs.URI())
	defer cl.Close()
	bodies := judge.NewBodies()
	if version != harness.Mongo44 {
		<-time.After(3 * time.Second)
		snapshot(t, ctx, c, cl, bodies)
	}
	if err := <-ended; err != nil {
		t.Fatal(err)
	}
	t.Log(c.Report())
	one, err := judge.ReadServer(ctx, cl, bodies)
	if err != nil {
		t.Fatal(err)
	}
	two, err := judge.ReadServer(ctx, cl, bodies)
	if err != nil {
		t.Fatal(err)
	}
	if diffs := judge.Compare(one, two, judge.Options{Auth: true}); len(diffs) > 0 {
		t.Fatalf("a server differs from itself:\n%s", judge.Summary(diffs, 5))
	}
	t.Logf("%d namespaces, %d documents", len(one.Namespaces), one.Documents())
	change := wire.D("update", "acks", "updates", wire.A(wire.D("q", wire.D("_id", 1), "u", wire.D("$set", wire.D("by", 1)))))
	if _, err := cl.Run(ctx, "ledger", change); err != nil {
		t.Fatal(err)
	}
	two, err = judge.ReadServer(ctx, cl, bodies)
	if err != nil {
		t.Fatal(err)
	}
	diffs := judge.Compare(one, two, judge.Options{Auth: true})
	if len(diffs) != 1 || !strings.HasPrefix(diffs[0], "ledger.acks: document differs at by: type 0x10") {
		t.Fatalf("one changed type: %v", diffs)
	}
	for _, refused := range c.NeverDone() {
		t.Errorf("never done: %s", refused)
	}
}

// snapshot reads one time twice, with writes in between.
func snapshot(t *testing.T, ctx context.Context, c *chaos.Chaos, cl *wire.Client, bodies *judge.Bodies) { //nolint:revive // t comes first
	t.Helper()
	if err := c.PauseDDL(ctx); err != nil {
		t.Fatal(err)
	}
	defer c.ResumeDDL()
	cat, err := judge.ReadCatalog(ctx, cl)
	if err != nil {
		t.Fatal(err)
	}
	reply, err := cl.Run(ctx, "admin", wire.D("appendOplogNote", 1, "data", wire.D("by", "judge")))
	if err != nil {
		t.Fatal(err)
	}
	at := wire.OperationTime(reply)
	var states [2]*judge.State
	for i := range states {
		if states[i], err = cat.Read(ctx, cl, judge.When{At: at}, bodies); err != nil {
			t.Fatal(err)
		}
	}
	if diffs := judge.Compare(states[0], states[1], judge.Options{}); len(diffs) > 0 {
		t.Fatalf("a time differs from itself:\n%s", judge.Summary(diffs, 5))
	}
}
