package compactor

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/afterimagedb/afterimage"
	"github.com/afterimagedb/afterimage/manifest"
	"github.com/afterimagedb/afterimage/segment"
)

// sweepEvery is how often doomed objects are looked at.
const sweepEvery = 10 * time.Minute

// background merges, cuts parts and builds images whenever a commit gave it work, and sweeps now and then.
func (c *Compactor) background(ctx context.Context) error {
	sweep := time.NewTicker(min(sweepEvery, c.o.Grace))
	defer sweep.Stop()
	c.poke() // what a process before left undone
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-sweep.C:
			if err := c.sweep(ctx); err != nil {
				c.log.Warn("sweep failed, trying again later", "error", err)
			}
		case <-c.wake:
		}
		if err := c.work(ctx); err != nil && ctx.Err() == nil {
			c.log.Warn("background work failed, trying again", "error", err)
			if err := pause(ctx, c.o.RetryAfter); err != nil {
				return err
			}
			c.poke()
		}
	}
}

// work does one job after the other until the plan has none.
func (c *Compactor) work(ctx context.Context) error {
	for ctx.Err() == nil {
		s := c.committer.State()
		if cuts := c.o.Policy.planBoundaries(s); cuts != nil {
			if err := c.cut(ctx, cuts); err != nil {
				return err
			}
			continue
		}
		if j := c.o.Policy.planMerge(s); j != nil {
			if err := c.merge(ctx, j); err != nil {
				return fmt.Errorf("merge of %d segments: %w", len(j.inputs), err)
			}
			continue
		}
		if j := c.o.Policy.planImage(s); j != nil {
			if err := c.image(ctx, s, j); err != nil {
				return fmt.Errorf("image at %s: %w", j.at, err)
			}
			continue
		}
		return nil
	}
	return ctx.Err()
}

// cut commits new boundaries.
func (c *Compactor) cut(ctx context.Context, cuts []afterimage.Bound) error {
	_, err := c.committer.Commit(ctx, func(s *manifest.State) (manifest.Edit, error) {
		if len(s.Boundaries) >= len(cuts) {
			return manifest.Edit{}, nil
		}
		return manifest.Edit{SetBoundaries: cuts}, nil
	})
	return err
}

// merge makes one run of the inputs and commits the exchange.
func (c *Compactor) merge(ctx context.Context, j *mergeJob) error {
	began := time.Now()
	var its []segment.Iterator
	var parents []string
	for _, m := range j.inputs {
		it, err := segment.Open(ctx, c.o.Bucket, m, segment.ReadOptions{FetchBytes: manifest.FetchBytes(len(j.inputs))})
		if err != nil {
			closeAll(its)
			return err
		}
		its = append(its, it)
		parents = append(parents, m.ID)
	}
	in := segment.Merge(its...)
	defer in.Close()
	out := c.newOutput(segment.WriterOptions{Kind: segment.Changes, Level: j.level, Parents: parents}, j.cuts)
	for in.Next() {
		if err := out.append(ctx, in.Change()); err != nil {
			return err
		}
	}
	if err := in.Err(); err != nil {
		return err
	}
	metas, err := out.close(ctx)
	if err != nil {
		return err
	}
	lanes := lanesOf(j.inputs)
	for i := range metas {
		metas[i].Lanes = lanes
	}
	_, err = c.committer.Commit(ctx, func(s *manifest.State) (manifest.Edit, error) {
		if done, err := exchanged(s, parents, metas); done || err != nil {
			return manifest.Edit{}, err
		}
		return manifest.Edit{AddSegments: metas, RemoveSegments: parents}, nil
	})
	if errors.Is(err, errOvertaken) {
		c.discard(ctx, metas)
		return nil
	}
	if err == nil {
		c.metrics.merges.Inc()
		c.log.Debug("merged", "inputs", len(parents), "outputs", len(metas), "level", j.level, "seconds", time.Since(began).Seconds())
	}
	return err
}

// errOvertaken says that another process committed the same work: ours is thrown away and the plan made anew.
var errOvertaken = errors.New("another process did this work first")

// discard deletes objects that were written for a commit that did not and will not happen.
func (c *Compactor) discard(ctx context.Context, metas []segment.Meta) {
	for _, m := range metas {
		if err := c.o.Bucket.Delete(ctx, segment.ObjectName(m.ID)); err != nil {
			c.log.Warn("an object without a commit stays behind", "object", segment.ObjectName(m.ID), "error", err)
		}
	}
}

// exchanged reports whether the exchange is in the state already: its commit happened though its answer was lost.
func exchanged(s *manifest.State, parents []string, metas []segment.Meta) (bool, error) {
	if len(metas) > 0 {
		if _, ok := s.Segments[metas[0].ID]; ok {
			return true, nil
		}
	}
	for _, id := range parents {
		if _, ok := s.Segments[id]; !ok {
			return false, errOvertaken
		}
	}
	return false, nil
}

func lanesOf(ms []segment.Meta) []afterimage.LaneID {
	var out []afterimage.LaneID
	seen := map[afterimage.LaneID]bool{}
	for _, m := range ms {
		for _, l := range m.Lanes {
			if !seen[l] {
				out = append(out, l)
			}
			seen[l] = true
		}
	}
	return out
}

func closeAll(its []segment.Iterator) {
	for _, it := range its {
		it.Close()
	}
}

// output writes a sorted run as segments, cut at boundaries and by size.
type output struct {
	c     *Compactor
	o     segment.WriterOptions
	cuts  []afterimage.Bound
	w     *segment.Writer
	raw   int64
	metas []segment.Meta
}

func (c *Compactor) newOutput(o segment.WriterOptions, cuts []afterimage.Bound) *output {
	return &output{c: c, o: o, cuts: cuts}
}

func (o *output) append(ctx context.Context, ch *afterimage.Change) error {
	at := afterimage.Bound{Table: ch.Table, Key: ch.Key}
	crossed := false
	for len(o.cuts) > 0 && o.cuts[0].Compare(at) <= 0 {
		o.cuts, crossed = o.cuts[1:], true
	}
	if o.w != nil && (crossed || o.raw >= o.c.o.Policy.SegmentBytes) {
		if err := o.finish(ctx); err != nil {
			return err
		}
	}
	if o.w == nil {
		wo := o.o
		wo.ID = segment.NewID()
		w, err := segment.NewWriter(wo)
		if err != nil {
			return err
		}
		o.w, o.raw = w, 0
	}
	o.raw += int64(len(ch.Key) + len(ch.Body))
	return o.w.Append(ch)
}

func (o *output) finish(ctx context.Context) error {
	m, err := o.c.store(ctx, o.w)
	o.w = nil
	if err == nil {
		o.metas = append(o.metas, m)
	}
	return err
}

func (o *output) close(ctx context.Context) ([]segment.Meta, error) {
	if o.w != nil {
		if err := o.finish(ctx); err != nil {
			return nil, err
		}
	}
	return o.metas, nil
}

// sweep deletes doomed objects whose grace time has passed, then commits that they are gone.
func (c *Compactor) sweep(ctx context.Context) error {
	s := c.committer.State()
	before := time.Now().Add(-c.o.Grace).UnixMilli()
	var swept []string
	for name, wall := range s.Doomed {
		if wall > before {
			continue
		}
		if err := c.o.Bucket.Delete(ctx, name); err != nil {
			return err
		}
		swept = append(swept, name)
	}
	if len(swept) == 0 {
		return nil
	}
	_, err := c.committer.Commit(ctx, func(s *manifest.State) (manifest.Edit, error) {
		var e manifest.Edit
		for _, name := range swept {
			if _, ok := s.Doomed[name]; ok {
				e.Swept = append(e.Swept, name)
			}
		}
		return e, nil
	})
	if err == nil {
		c.metrics.swept.Add(float64(len(swept)))
	}
	return err
}
