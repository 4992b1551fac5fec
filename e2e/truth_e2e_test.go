//go:build e2e

package e2e

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/afterimagedb/afterimage/e2e/chaos"
	"github.com/afterimagedb/afterimage/e2e/harness"
	"github.com/afterimagedb/afterimage/e2e/harness/harnesstest"
	"github.com/afterimagedb/afterimage/e2e/judge"
	"github.com/afterimagedb/afterimage/e2e/product"
	"github.com/afterimagedb/afterimage/e2e/wire"
)

// truth is what a server had at a time.
type truth struct {
	at       wire.TS
	quiesced bool
	v44      bool
	state    *judge.State
}

// recorder records truths of a set under chaos.
type recorder struct {
	c      *chaos.Chaos
	cl     *wire.Client
	v44    bool // no snapshot reads outside transactions: only quiesced times
	r      *rand.Rand
	bodies *judge.Bodies
	truths []truth
}

func newRecorder(t *testing.T, c *chaos.Chaos, rs *harness.ReplicaSet, version string) *recorder {
	t.Helper()
	cl := wire.FromURI(rs.URI())
	t.Cleanup(cl.Close)
	return &recorder{c: c, cl: cl, v44: version == harness.Mongo44, r: rand.New(rand.NewPCG(7, 7)), bodies: judge.NewBodies()}
}

// now is the server's present operation time.
func (r *recorder) now(ctx context.Context) (wire.TS, error) {
	reply, err := r.cl.Run(ctx, "admin", wire.D("ping", 1))
	return wire.OperationTime(reply), err
}

// moving records n times while documents change and DDL is still.
func (r *recorder) moving(ctx context.Context, n int) error {
	if err := r.c.PauseDDL(ctx); err != nil {
		return err
	}
	defer r.c.ResumeDDL()
	cat, err := judge.ReadCatalog(ctx, r.cl)
	if err != nil {
		return err
	}
	for range n {
		pause(ctx, time.Duration(r.r.IntN(120))*time.Millisecond)
		at, err := r.now(ctx)
		if err != nil {
			return err
		}
		if err := r.read(ctx, cat, judge.When{At: at}, at); err != nil {
			return err
		}
	}
	return nil
}

// quiet records the present with everything still: capped order, too.
func (r *recorder) quiet(ctx context.Context) error {
	r.c.Pause()
	defer r.c.Resume()
	cat, err := judge.ReadCatalog(ctx, r.cl)
	if err != nil {
		return err
	}
	at, err := r.now(ctx)
	if err != nil {
		return err
	}
	when := judge.When{At: at, Quiesced: true}
	if r.v44 {
		when = judge.When{}
	}
	return r.read(ctx, cat, when, at)
}

func (r *recorder) read(ctx context.Context, cat *judge.Catalog, when judge.When, at wire.TS) error {
	s, err := cat.Read(ctx, r.cl, when, r.bodies)
	if err == nil {
		r.truths = append(r.truths, truth{at, when.Quiesced || when.At == (wire.TS{}), r.v44, s})
	}
	return err
}

// record goes on until the context ends or something fails.
func (r *recorder) record(ctx context.Context) error {
	for i := 0; ctx.Err() == nil; i++ {
		var err error
		if r.v44 || i%4 == 3 {
			err = r.quiet(ctx)
		} else {
			err = r.moving(ctx, 4)
		}
		if err != nil && ctx.Err() == nil {
			return err
		}
		pause(ctx, time.Duration(100+r.r.IntN(500))*time.Millisecond)
	}
	return nil
}

// checkFolder writes a snapshot of a time and compares.
func checkFolder(ctx context.Context, p *product.Installation, tr truth, dir string, bodies *judge.Bodies) ([]string, error) {
	out := filepath.Join(dir, tr.at.String())
	defer os.RemoveAll(out)
	r, err := p.Snapshot(ctx, tr.at.String(), out)
	if err != nil {
		return nil, err
	}
	if r.Err() != nil {
		return nil, fmt.Errorf("snapshot --at %s: %w", tr.at, r.Err())
	}
	got, err := judge.ReadFolder(out, bodies)
	if err != nil {
		return nil, err
	}
	return tr.compare(got), nil
}

// compare lists how a state differs from the truth. MongoDB 4.4 does not log what falls out of a capped collection
// (docs/operating.md says so): those are left out there.
func (tr truth) compare(got *judge.State) []string {
	o := judge.Options{Auth: true}
	if tr.v44 {
		o.Ignore = func(ns string) bool { n := tr.state.Namespaces[ns]; return n != nil && n.Capped }
	}
	return judge.Compare(tr.state, got, o)
}

// checkServer restores a time into a new server and compares.
func checkServer(t *testing.T, ctx context.Context, p *product.Installation, tr truth, version string, bodies *judge.Bodies) []string { //nolint:revive // t comes first
	t.Helper()
	target := harnesstest.Target(t, version)
	defer func() {
		if err := target.Stop(); err != nil {
			t.Error(err)
		}
	}()
	r, err := p.Restore(ctx, tr.at.String(), target.URI())
	if err != nil {
		t.Fatal(err)
	}
	if r.Err() != nil {
		t.Errorf("restore --at %s: %v", tr.at, r.Err())
		return nil
	}
	cl := wire.FromURI(target.URI())
	defer cl.Close()
	got, err := judge.ReadServer(ctx, cl, bodies)
	if err != nil {
		t.Fatal(err)
	}
	return tr.compare(got)
}
