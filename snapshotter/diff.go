package snapshotter

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"io"

	"github.com/afterimagedb/afterimage"
	"github.com/afterimagedb/afterimage/dialect"
	"github.com/afterimagedb/afterimage/fold"
	"github.com/afterimagedb/afterimage/segment"
)

// Diffs walks the rows of a table that differ between two times, in the order of their keys.
type Diffs struct {
	src  pairs
	cur  *pair
	name string
	err  error
}

// pair is a row at two times; a nil body means that there was none.
type pair struct {
	table         afterimage.TableID
	key           []byte
	lane          afterimage.LaneID
	before, after []byte
}

// pairs yields rows at two times; some may be the same at both.
type pairs interface {
	next() (*pair, error) // nil at the end
	Close() error
}

// Diff compares a table at two times. A table that did not live at one of them had no rows then. When the table is known
// throughout, only rows with a change in between are read. The context serves the walk too; it must be closed.
func (s *Snapshotter) Diff(ctx context.Context, t dialect.Table, from, to afterimage.Time) (*Diffs, error) {
	if from > to {
		return nil, afterimage.Usagef("diff from %s to %s: the first lies after the second", from, to)
	}
	d := &Diffs{name: fmt.Sprintf("difference of %s between %s and %s", named(t), from, to)}
	var err error
	if d.src, err = s.pairs(ctx, t.ID, from, to); err != nil {
		return nil, fmt.Errorf("%s: %w", d.name, err)
	}
	return d, nil
}

// pairs chooses the cheapest way to compare.
func (s *Snapshotter) pairs(ctx context.Context, id afterimage.TableID, from, to afterimage.Time) (pairs, error) {
	lived, err := s.lived(ctx, id, from)
	if err != nil {
		return nil, err
	}
	lives, err := s.lived(ctx, id, to)
	if err != nil {
		return nil, err
	}
	known := always()
	if w, ok := s.state.Windows[id]; ok {
		known = spansOf(w)
	}
	if i := known.find(from); lived && lives && i >= 0 && i == known.find(to) {
		return s.newChanged(ctx, id, from, to)
	}
	w := &wholePairs{before: &scan{}, after: &scan{}}
	if lived {
		if w.before, err = s.rows(ctx, afterimage.TableRange(id), from); err != nil {
			return nil, err
		}
	}
	if lives {
		if w.after, err = s.rows(ctx, afterimage.TableRange(id), to); err != nil {
			discard(w.before)
			return nil, err
		}
	}
	return w, nil
}

// lived reports whether the catalog has a table at a time.
func (s *Snapshotter) lived(ctx context.Context, id afterimage.TableID, at afterimage.Time) (bool, error) {
	if id == afterimage.CatalogTable || id == afterimage.EventsTable {
		return true, nil
	}
	st, err := s.Row(ctx, dialect.Table{ID: afterimage.CatalogTable, Namespace: "catalog"}, id[:], at)
	return st.Exists, err
}

// Next moves to the next row that differs.
func (d *Diffs) Next() bool {
	for d.err == nil {
		if d.cur, d.err = d.src.next(); d.err != nil {
			d.err = fmt.Errorf("%s: %w", d.name, d.err)
			break
		}
		if d.cur == nil {
			return false
		}
		if (d.cur.before == nil) != (d.cur.after == nil) || !bytes.Equal(d.cur.before, d.cur.after) {
			return true
		}
	}
	return false
}

// Key is the row's key, valid until the next call of Next.
func (d *Diffs) Key() []byte { return d.cur.key }

// Before is the row at the first time, nil if there was none; valid until the next call of Next.
func (d *Diffs) Before() []byte { return d.cur.before }

// After is the row at the second time, nil if there was none; valid until the next call of Next.
func (d *Diffs) After() []byte { return d.cur.after }

// Err returns what ended the walk early.
func (d *Diffs) Err() error { return d.err }

// Close ends the walk. It may be called twice.
func (d *Diffs) Close() error { return d.src.Close() }

// wholePairs compares two readings of a table row by row.
type wholePairs struct {
	before, after *scan
	b, a          *fold.Row // heads, nil at the end
	began         bool
	out           pair
}

func (w *wholePairs) next() (*pair, error) {
	if !w.began {
		w.began = true
		w.b, w.a = head(w.before), head(w.after)
	} else {
		if w.out.before != nil {
			w.b = head(w.before)
		}
		if w.out.after != nil {
			w.a = head(w.after)
		}
	}
	if err := cmp.Or(w.before.err(), w.after.err()); err != nil {
		return nil, err
	}
	order := 0
	switch {
	case w.b == nil && w.a == nil:
		return nil, nil //nolint:nilnil // the end is no error
	case w.b == nil:
		order = 1
	case w.a == nil:
		order = -1
	default:
		order = cmp.Or(bytes.Compare(w.b.Key, w.a.Key), cmp.Compare(w.b.Lane, w.a.Lane))
	}
	w.out = pair{}
	if order <= 0 {
		w.out.key, w.out.lane, w.out.before = w.b.Key, w.b.Lane, present(w.b.Body)
	}
	if order >= 0 {
		w.out.key, w.out.lane, w.out.after = w.a.Key, w.a.Lane, present(w.a.Body)
	}
	return &w.out, nil
}

func head(s *scan) *fold.Row {
	if !s.next() {
		return nil
	}
	return s.row()
}

// present makes the body of a row that exists other than nil.
func present(b []byte) []byte {
	if b == nil {
		return []byte{}
	}
	return b
}

func (w *wholePairs) Close() error {
	return cmp.Or(w.before.Close(), w.after.Close())
}

const (
	// diffKeyBytesMax bounds the keys that are held at once while looking for changed rows.
	diffKeyBytesMax = 4 << 20
	// groupsPerRow is how many row groups of a range may be read for each row that is wanted; a row read by itself costs
	// one of each of its segments, and their indexes.
	groupsPerRow = 2
)

// changed compares the rows that have changes between two times: it gathers a run of keys from the changes, and then
// reads those rows.
type changed struct {
	ctx      context.Context //nolint:containedctx // a walk is one read, begun with this context
	s        *Snapshotter
	id       afterimage.TableID
	from, to afterimage.Time
	changes  segment.Iterator // of all rows in (from, to]
	more     bool             // changes stands on a key not gathered yet
	keys     [][]byte         // gathered, not read yet
	hold     arena
	reader   *pairFold
}

func (s *Snapshotter) newChanged(ctx context.Context, id afterimage.TableID, from, to afterimage.Time) (*changed, error) {
	c := &changed{ctx: ctx, s: s, id: id, from: from, to: to}
	r := afterimage.TableRange(id)
	var its []segment.Iterator
	for _, m := range s.changes(r, from, to) {
		it, err := segment.Open(ctx, s.bucket, m, segment.ReadOptions{Range: r, After: from, Until: to})
		if err != nil {
			closeAll(its)
			return nil, err
		}
		its = append(its, it)
	}
	c.changes = segment.Merge(its...)
	c.more = c.changes.Next()
	return c, nil
}

// discard closes what is not read any further; why not was said already, or needs no saying.
func discard(c io.Closer) { c.Close() }

func closeAll(its []segment.Iterator) {
	for _, it := range its {
		discard(it)
	}
}

func (c *changed) next() (*pair, error) {
	for {
		if c.reader != nil {
			p, err := c.reader.next()
			if p != nil || err != nil {
				return p, err
			}
			if err := c.reader.in.Close(); err != nil {
				return nil, err
			}
			c.reader = nil
		}
		if len(c.keys) == 0 {
			if err := c.gather(); err != nil || len(c.keys) == 0 {
				return nil, err
			}
		}
		if err := c.open(); err != nil {
			return nil, err
		}
	}
}

// gather collects the next run of changed keys.
func (c *changed) gather() error {
	c.keys, c.hold = c.keys[:0], arena{}
	for c.more && c.hold.bytes < diffKeyBytesMax {
		key := c.hold.keep(c.changes.Change().Key)
		c.keys = append(c.keys, key)
		for c.more && bytes.Equal(c.changes.Change().Key, key) {
			c.more = c.changes.Next()
		}
	}
	return c.changes.Err()
}

// open begins to read gathered rows: all of them as one range, or the first by itself when rows in between would be much
// more than the rows asked for.
func (c *changed) open() error {
	first, last := c.keys[0], c.keys[len(c.keys)-1]
	r := afterimage.Range{From: afterimage.Bound{Table: c.id, Key: first}, To: afterimage.KeyRange(c.id, last).To}
	keys := c.keys
	var raw int64
	for _, p := range c.s.cover(r, c.from) {
		for _, m := range p.Images {
			raw += m.RawBytes
		}
	}
	if raw/segment.RowGroupBytes > int64(len(keys))*groupsPerRow {
		r, keys = afterimage.KeyRange(c.id, first), keys[:1]
	}
	c.keys = c.keys[len(keys):]
	in, err := c.s.openPair(c.ctx, r, c.from, c.to)
	if err != nil {
		return err
	}
	c.reader = &pairFold{d: c.s.dialect, in: in, from: c.from, keys: keys}
	return nil
}

func (c *changed) Close() error {
	err := c.changes.Close()
	if c.reader != nil {
		err = cmp.Or(err, c.reader.in.Close())
	}
	return err
}

// openPair merges the base at one time with all changes up to another.
func (s *Snapshotter) openPair(ctx context.Context, r afterimage.Range, from, to afterimage.Time) (segment.Iterator, error) {
	var its []segment.Iterator
	for _, p := range s.cover(r, from) {
		p.Changes = s.changes(p.Range, p.After, to)
		it, err := p.Open(ctx, s.bucket, to)
		if err != nil {
			closeAll(its)
			return nil, err
		}
		its = append(its, it)
	}
	return segment.Merge(its...), nil
}

// pairFold folds chosen rows at two times in one pass.
type pairFold struct {
	d     dialect.Dialect
	in    segment.Iterator
	from  afterimage.Time
	keys  [][]byte
	began bool
	more  bool
	lanes []*pairLane
	used  int
	out   int // lane to hand out next
	hold  arena
}

// pairLane is the row on one lane.
type pairLane struct {
	pair
	folder dialect.Folder
	split  bool // before is taken
	prior  []byte
}

func (f *pairFold) next() (*pair, error) {
	for {
		if f.out < f.used {
			l := f.lanes[f.out]
			f.out++
			return l.end()
		}
		if !f.began {
			f.began, f.more = true, f.in.Next()
		}
		if ok, err := f.seek(); !ok {
			return nil, err
		}
		if err := f.gather(); err != nil {
			return nil, err
		}
	}
}

// seek passes over rows that were not asked for.
func (f *pairFold) seek() (bool, error) {
	for f.more && len(f.keys) > 0 {
		switch n := bytes.Compare(f.in.Change().Key, f.keys[0]); {
		case n == 0:
			return true, nil
		case n < 0:
			f.more = f.in.Next()
		default:
			f.keys = f.keys[1:]
		}
	}
	return false, f.in.Err()
}

// gather folds all changes of the first key.
func (f *pairFold) gather() error {
	key := f.keys[0]
	f.keys = f.keys[1:]
	f.used, f.out, f.hold = 0, 0, arena{block: f.hold.block[:0]}
	for f.more && bytes.Equal(f.in.Change().Key, key) {
		c := *f.in.Change()
		c.Key, c.Body = key, f.hold.keep(c.Body)
		l := f.lane(&c)
		if c.Time > f.from {
			if err := l.begin(); err != nil {
				return err
			}
		}
		if err := l.folder.Apply(&c); err != nil {
			return fmt.Errorf("table %s, key %x, change at %s order %d: %w: run `afterimage verify`", c.Table, c.Key, c.Time, c.Order, err)
		}
		f.more = f.in.Next()
	}
	return f.in.Err()
}

func (f *pairFold) lane(c *afterimage.Change) *pairLane {
	for _, l := range f.lanes[:f.used] {
		if l.lane == c.Lane {
			return l
		}
	}
	if f.used == len(f.lanes) {
		f.lanes = append(f.lanes, &pairLane{folder: f.d.NewFolder()})
	}
	l := f.lanes[f.used]
	f.used++
	l.pair = pair{table: c.Table, key: c.Key, lane: c.Lane}
	l.split = false
	l.folder.Reset(c.Table, c.Key)
	return l
}

// begin takes the state at the first time.
func (l *pairLane) begin() error {
	if l.split {
		return nil
	}
	l.split = true
	st, err := l.folder.State()
	if err != nil {
		return fmt.Errorf("table %s, key %x: %w: run `afterimage verify`", l.table, l.key, err)
	}
	if st.Exists {
		l.prior = append(l.prior[:0], st.Body...)
		l.before = present(l.prior)
	}
	return nil
}

// end takes the state at the second time.
func (l *pairLane) end() (*pair, error) {
	if err := l.begin(); err != nil {
		return nil, err
	}
	st, err := l.folder.State()
	if err != nil {
		return nil, fmt.Errorf("table %s, key %x: %w: run `afterimage verify`", l.table, l.key, err)
	}
	if st.Exists {
		l.after = present(st.Body)
	}
	return &l.pair, nil
}
