package snapshotter

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"slices"

	"github.com/afterimagedb/afterimage"
	"github.com/afterimagedb/afterimage/dialect"
	"github.com/afterimagedb/afterimage/manifest"
	"github.com/afterimagedb/afterimage/segment"
)

// A walk tells how the rows of a range of one table came to be: every change, with the row before and after it. Where the
// log alone does not tell (before the first image, behind a gap) the rows of images say what the state is.

// rowState is a row between two changes. Body is nil when the row does not exist or is not known.
type rowState struct {
	known, exists bool
	body          []byte
}

// set copies a state; the body's memory is reused.
func (r *rowState) set(st dialect.State, known bool) {
	r.known, r.exists = known, known && st.Exists
	r.body = r.body[:0]
	if r.exists {
		r.body = append(r.body, st.Body...)
	}
}

func (r *rowState) same(o *rowState) bool {
	return r.known && o.known && r.exists == o.exists && bytes.Equal(r.body, o.body)
}

// step is one stop of a walk. Its memory is the walk's, valid during the call.
type step struct {
	key    []byte
	lane   afterimage.LaneID
	time   afterimage.Time
	change *afterimage.Change // nil: not a logged change, but what an image or the start of the walk says
	before *rowState
	after  *rowState
}

// mark is a time at which what is known of a table changes.
type mark struct {
	at   afterimage.Time
	kind markKind
}

// The kinds, in the order in which they count at one time.
type markKind int

const (
	markOpens  markKind = iota // a window opens: what no image and no change named is absent
	markBegin                  // the walk begins to report
	markCloses                 // a window closes: nothing is known until the next opens
)

// walk is a walk of (from, to]. It also reports what is known at from.
type walk struct {
	s        *Snapshotter
	table    afterimage.TableID
	r        afterimage.Range
	from, to afterimage.Time
	fn       func(*step) error

	marks   []mark
	known   bool // whether rows are known before the first mark
	key     []byte
	lanes   []*laneWalk
	used    int
	base    afterimage.Time // reads begin with the state at this time, 0 for none
	windows spans
}

// walk calls fn for every stop of the rows of r, a range within the table, by key and lane and in order of time.
func (s *Snapshotter) walk(ctx context.Context, table afterimage.TableID, r afterimage.Range, from, to afterimage.Time, fn func(*step) error) error {
	w := &walk{s: s, table: table, r: r, from: from, to: min(to, afterimage.MaxTime-1), fn: fn}
	w.plan()
	in, err := w.open(ctx)
	if err != nil {
		return err
	}
	defer discard(in)
	for in.Next() {
		c := in.Change()
		if c.Op == afterimage.OpUnknown {
			continue
		}
		if w.used > 0 && !bytes.Equal(c.Key, w.key) {
			if err := w.end(); err != nil {
				return err
			}
		}
		if err := w.lane(c).take(c); err != nil {
			return err
		}
	}
	if err := in.Err(); err != nil {
		return err
	}
	return w.end()
}

// plan finds where to begin: at the walk's own start if the table is known then, else where it last was.
func (w *walk) plan() {
	w.windows = always()
	if iv, ok := w.s.state.Windows[w.table]; ok {
		w.windows = spansOf(iv)
	}
	w.known = len(w.windows) > 0 && w.windows[0].from <= 1
	for _, sp := range w.windows {
		if sp.from <= w.from {
			w.base, w.known = min(sp.to, w.from), true
		}
	}
	if w.from > 0 {
		w.marks = append(w.marks, mark{w.from, markBegin})
	}
	for _, sp := range w.windows {
		if sp.from > max(w.base, 1) {
			w.marks = append(w.marks, mark{sp.from, markOpens})
		}
		if sp.to >= w.base && sp.to != afterimage.MaxTime {
			w.marks = append(w.marks, mark{sp.to, markCloses})
		}
	}
	slices.SortFunc(w.marks, func(a, b mark) int { return cmp.Or(cmp.Compare(a.at, b.at), cmp.Compare(a.kind, b.kind)) })
}

// open merges what the walk needs: the images at its base and at the opening of later windows, and the changes since.
func (w *walk) open(ctx context.Context) (segment.Iterator, error) {
	var its []segment.Iterator
	add := func(m segment.Meta, r afterimage.Range, after afterimage.Time) error {
		it, err := segment.Open(ctx, w.s.bucket, m, segment.ReadOptions{Range: r, After: after, Until: w.to})
		if err == nil {
			its = append(its, it)
		}
		return err
	}
	if err := w.each(add); err != nil {
		closeAll(its)
		return nil, err
	}
	return segment.Merge(its...), nil
}

// each calls add for everything that the walk reads.
func (w *walk) each(add func(m segment.Meta, r afterimage.Range, after afterimage.Time) error) error {
	pieces := []manifest.Piece{{Range: w.r}}
	if w.base > 0 {
		pieces = w.s.cover(w.r, w.base)
	}
	for _, p := range pieces {
		for _, m := range p.Images {
			if err := add(m, p.Range, 0); err != nil {
				return err
			}
		}
		for _, m := range w.s.changes(p.Range, p.After, w.to) {
			if err := add(m, p.Range, p.After); err != nil {
				return err
			}
		}
	}
	for _, sp := range w.windows {
		if sp.from <= max(w.base, 1) || sp.from > w.to {
			continue
		}
		for _, p := range w.s.state.Cover(w.r, sp.from) {
			for _, m := range p.Images {
				if err := add(m, p.Range, 0); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

// changes lists the segments with logged changes of a range in (after, to].
func (s *Snapshotter) changes(r afterimage.Range, after, to afterimage.Time) []segment.Meta {
	var out []segment.Meta
	for _, m := range s.state.Segments {
		if m.Kind == segment.Changes && m.MaxTime > after && m.MinTime <= to && r.Overlaps(m.First, m.Last) {
			out = append(out, m)
		}
	}
	slices.SortFunc(out, func(a, b segment.Meta) int { return cmp.Compare(a.ID, b.ID) })
	return out
}

// lane returns the lane of a change, begun if the key is new on it.
func (w *walk) lane(c *afterimage.Change) *laneWalk {
	if w.used == 0 {
		w.key = append(w.key[:0], c.Key...)
	}
	for _, l := range w.lanes[:w.used] {
		if l.step.lane == c.Lane {
			return l
		}
	}
	if w.used == len(w.lanes) {
		w.lanes = append(w.lanes, &laneWalk{w: w, folder: w.s.dialect.NewFolder()})
	}
	l := w.lanes[w.used]
	w.used++
	l.begin(c.Lane)
	return l
}

// end ends the present key.
func (w *walk) end() error {
	for _, l := range w.lanes[:w.used] {
		if err := l.pass(afterimage.MaxTime); err != nil {
			return err
		}
	}
	w.used = 0
	return nil
}

// laneWalk is the walk of the present key on one lane.
type laneWalk struct {
	w      *walk
	folder dialect.Folder
	hold   arena // of bodies that the folder refers to
	marks  []mark
	cur    rowState // after what was taken so far
	past   rowState // what was last known, before a window closed
	prev   rowState // scratch for the state before a change
	change afterimage.Change
	step   step
}

// holdBytesMax is how much of a row's history is held for its folder before it begins anew from the present state.
const holdBytesMax = 4 << 20

func (l *laneWalk) begin(lane afterimage.LaneID) {
	l.folder.Reset(l.w.table, l.w.key)
	l.hold = arena{block: l.hold.block[:0]}
	l.marks = l.w.marks
	l.cur.set(dialect.State{}, l.w.known)
	l.past.set(dialect.State{}, true)
	l.step = step{key: l.w.key, lane: lane}
}

// pass goes over the marks before t: all changes up to them have been taken.
func (l *laneWalk) pass(t afterimage.Time) error {
	for len(l.marks) > 0 && l.marks[0].at < min(t, l.w.to+1) {
		m := l.marks[0]
		l.marks = l.marks[1:]
		switch m.kind {
		case markBegin:
			if !l.cur.known {
				l.past.set(dialect.State{}, false) // never reported
			} else if l.cur.exists {
				if err := l.report(m.at, nil, &rowState{}); err != nil {
					return err
				}
			}
		case markCloses:
			if l.cur.known {
				l.past, l.cur = l.cur, l.past
			}
			l.cur.set(dialect.State{}, false)
			l.folder.Reset(l.w.table, l.w.key)
		case markOpens:
			if l.cur.known {
				break
			}
			l.cur.set(dialect.State{}, true)
			if l.past.exists && m.at > l.w.from {
				if err := l.report(m.at, nil, &l.past); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

// take folds a change.
func (l *laneWalk) take(c *afterimage.Change) error {
	if err := l.pass(c.Time); err != nil {
		return err
	}
	l.prev, l.cur = l.cur, l.prev
	l.change = *c
	l.change.Key, l.change.Body = l.w.key, l.hold.keep(c.Body)
	if err := l.folder.Apply(&l.change); err != nil {
		return fmt.Errorf("table %s, key %x, change at %s order %d: %w: run `afterimage verify`", c.Table, c.Key, c.Time, c.Order, err)
	}
	st, err := l.folder.State()
	l.cur.set(st, err == nil)
	if err != nil {
		l.past.set(dialect.State{}, false)
	} else if l.hold.bytes > holdBytesMax {
		if err := l.renew(st); err != nil {
			return err
		}
	}
	if c.Time <= l.w.from && l.w.from > 0 {
		return nil
	}
	if c.From != afterimage.FromImage {
		return l.report(c.Time, &l.change, &l.prev)
	}
	before := &l.prev
	if !before.known {
		before = &l.past
	}
	if before.same(&l.cur) {
		return nil
	}
	return l.report(c.Time, nil, before)
}

// renew begins the folder anew from the present state, so that it no longer refers to what came before.
func (l *laneWalk) renew(st dialect.State) error {
	l.hold = arena{}
	l.folder.Reset(l.w.table, l.w.key)
	if !st.Exists {
		return nil
	}
	return l.folder.Apply(&afterimage.Change{
		Time: st.Time, Born: st.Born, Order: afterimage.OrderImage, Lane: l.step.lane, Op: afterimage.OpInsert,
		From: afterimage.FromImage, Table: l.w.table, Key: l.w.key, Body: l.hold.keep(l.cur.body),
	})
}

func (l *laneWalk) report(at afterimage.Time, c *afterimage.Change, before *rowState) error {
	l.step.time, l.step.change, l.step.before, l.step.after = at, c, before, &l.cur
	return l.w.fn(&l.step)
}
