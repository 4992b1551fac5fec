//go:build e2e

package mongodb

import (
	"context"
	"fmt"
	"testing"
	"time"

	"go.mongodb.org/mongo-driver/bson"

	"github.com/afterimagedb/afterimage"
	"github.com/afterimagedb/afterimage/e2e/harness"
	"github.com/afterimagedb/afterimage/manifest"
)

// TestFailOver runs two listeners on a set of three whose primary steps down and whose members are killed; the lane must
// be one chain, with every acknowledged write once.
func TestFailOver(t *testing.T) {
	r := newRig(t, harness.Options{Members: 3})
	r.opts.TakeOverAfter = time.Second
	c := newChaos(r.client, 2)
	c.any = true
	if err := c.prepare(t.Context(), 500); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- c.run(ctx) }()
	stopA, stopB := r.listen(), r.listen()
	wait := func(d time.Duration) {
		if err := sleep(ctx, d); err != nil {
			t.Fatal(err)
		}
	}
	wait(time.Second)
	if _, err := r.rs.StepDown(ctx, 10*time.Second); err != nil {
		t.Fatal(err)
	}
	wait(time.Second)
	stopA()
	wait(2 * time.Second)
	stopA = r.listen()
	victim, err := r.rs.WaitPrimary(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if err := victim.Kill(); err != nil {
		t.Fatal(err)
	}
	wait(4 * time.Second)
	if err := victim.Start(ctx); err != nil {
		t.Fatal(err)
	}
	if err := r.rs.WaitReady(ctx); err != nil {
		t.Fatal(err)
	}
	if err := r.rs.Secondaries(ctx)[0].Kill(); err != nil {
		t.Fatal(err)
	}
	wait(2 * time.Second)
	cancel()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	r.caughtUp()
	stopA()
	stopB()
	r.chain()
	j := newJudge(t.Context(), t, r.client, r.bucket, r.lane)
	j.unique()
	if c.writes < 100 {
		t.Errorf("only %d writes", c.writes)
	}
	tables, rows := j.now(t.Context())
	t.Logf("%d writes, %d batches; at the end %d tables, %d rows", c.writes, len(r.lane.batches), tables, rows)
	if len(r.lane.notes(manifest.NoteGap)) > 0 {
		t.Error("a gap")
	}
}

// chain fails if the batches of an epoch are not one chain with a rising horizon.
func (r *rig) chain() {
	r.t.Helper()
	var before afterimage.BatchHeader
	for i, b := range r.lane.batches {
		if i > 0 && b.Epoch == before.Epoch && (b.From != before.To || b.To.Less(b.From) || b.Horizon < before.Horizon) {
			r.t.Fatalf("batch %d: %+v\nafter %+v", i, b.BatchHeader, before)
		}
		for _, c := range b.Changes {
			if !b.From.Less(c.Pos) || b.To.Less(c.Pos) || c.Time <= before.Horizon && b.Epoch == before.Epoch && i > 0 {
				r.t.Fatalf("batch %d has a change at %s, time %s: %+v", i, c.Pos, c.Time, b.BatchHeader)
			}
		}
		before = b.BatchHeader
	}
}

// TestGap lets the oplog roll over while no listener runs.
func TestGap(t *testing.T) {
	r := newRig(t, harness.Options{OplogMB: 1})
	c := newChaos(r.client, 3)
	if err := c.prepare(t.Context(), 100); err != nil {
		t.Fatal(err)
	}
	stop := r.listen()
	r.caughtUp()
	stop()
	before := r.lane.last()
	pad := fmt.Sprintf("%0100000d", 1)
	m := &member{client: r.client}
	r.eventually("the oplog rolls over", 2*time.Minute, func() bool {
		for range 50 {
			if _, err := c.db().Collection("t0").UpdateOne(t.Context(), bson.D{{Key: "_id", Value: 0}}, bson.D{{Key: "$set", Value: bson.D{{Key: "pad", Value: pad}, {Key: "n", Value: time.Now()}}}}); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := c.db().Collection("t0").DeleteOne(t.Context(), bson.D{{Key: "_id", Value: 4}}); err != nil {
			t.Fatal(err)
		}
		pad += "x"
		held, err := m.holds(t.Context(), needed(before))
		if err != nil {
			t.Fatal(err)
		}
		return !held
	})
	stop = r.listen()
	r.eventually("a gap is recorded", 30*time.Second, func() bool { return len(r.lane.notes(manifest.NoteGap)) == 1 })
	r.caughtUp()
	stop()
	r.chain()
	gap := r.lane.notes(manifest.NoteGap)[0]
	if gap.From != before.Horizon || gap.To <= gap.From || r.lane.last().Epoch != before.Epoch+1 {
		t.Errorf("gap %+v after %+v, now %+v", gap, before, r.lane.last())
	}
	state, _ := r.lane.State(t.Context())
	if len(state.Gaps) != 1 {
		t.Errorf("gaps in the manifest: %v", state.Gaps)
	}
	for id, windows := range state.Windows {
		if len(windows) != 2 || windows[0].To == 0 || windows[1].From <= gap.To-1 {
			t.Errorf("windows of %s: %v, gap %+v", id, windows, gap)
		}
	}
}
