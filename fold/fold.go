// Package fold turns a sorted run of changes into rows: each row as it stands after the last of its changes in the run.
// The snapshotter reads a time with it, the compactor builds images with it.
//
// # Invariants
//
//  1. Rows come out in (table, key, lane) order. A row folds per lane, because a key is unique within a lane only: the
//     rows of several lanes are united, not merged.
//  2. A row whose state is not known (a patch without its base) is an error that names it, never a guess.
package fold

import (
	"bytes"
	"fmt"

	"github.com/afterimagedb/afterimage"
	"github.com/afterimagedb/afterimage/dialect"
	"github.com/afterimagedb/afterimage/segment"
)

// Row is one row and its state. It is valid until the next call of Next.
type Row struct {
	Table afterimage.TableID
	Key   []byte
	Lane  afterimage.LaneID
	dialect.State
}

// Rows walks the rows that exist after a run of changes.
type Rows struct {
	in     segment.Iterator
	d      dialect.Dialect
	skip   func(afterimage.TableID) bool
	have   bool // in stands on a change that belongs to the next row
	began  bool
	table  afterimage.TableID
	key    []byte
	arena  []byte
	lanes  []laneFold // of the present key; the folders behind its end are kept for later keys
	used   int
	next   int // lane to hand out next
	row    Row
	err    error
	change afterimage.Change
}

type laneFold struct {
	lane afterimage.LaneID
	f    dialect.Folder
}

// New folds in, which it closes with Close. Tables for which skip is true are passed over; skip may be nil.
func New(in segment.Iterator, d dialect.Dialect, skip func(afterimage.TableID) bool) *Rows {
	return &Rows{in: in, d: d, skip: skip}
}

// Next moves to the next row that exists.
func (r *Rows) Next() bool {
	for r.err == nil {
		for r.next < r.used {
			l := &r.lanes[r.next]
			r.next++
			st, err := l.f.State()
			if err != nil {
				r.err = fmt.Errorf("table %s, key %x: %w: run `afterimage verify`", r.table, r.key, err)
				return false
			}
			if st.Exists {
				r.row = Row{Table: r.table, Key: r.key, Lane: l.lane, State: st}
				return true
			}
		}
		if !r.gather() {
			return false
		}
	}
	return false
}

// gather folds every change of the next key.
func (r *Rows) gather() bool {
	if !r.began {
		r.began = true
		r.have = r.in.Next()
	}
	for r.have && r.skip != nil && r.skip(r.in.Change().Table) {
		r.have = r.in.Next()
	}
	if !r.have {
		r.err = r.in.Err()
		return false
	}
	c := r.in.Change()
	r.table = c.Table
	r.key = append(r.key[:0], c.Key...)
	r.arena, r.used, r.next = r.arena[:0], 0, 0
	for r.have {
		c := r.in.Change()
		if c.Table != r.table || !bytes.Equal(c.Key, r.key) {
			break
		}
		// The iterator's memory ends with its next step, the folder's at its next Reset.
		r.change = *c
		r.change.Key, r.change.Body = r.key, r.keep(c.Body)
		f := r.folder(c.Lane)
		if err := f.Apply(&r.change); err != nil {
			r.err = fmt.Errorf("table %s, key %x, change at %s order %d: %w: run `afterimage verify`", c.Table, c.Key, c.Time, c.Order, err)
			return false
		}
		if len(r.arena) > arenaBytesMax && r.used == 1 {
			r.condense(f, c.Lane)
		}
		r.have = r.in.Next()
	}
	if !r.have {
		r.err = r.in.Err()
	}
	return r.err == nil
}

// arenaBytesMax is when the changes of one row are condensed, so that a row that changed a million times takes no more
// memory than its state.
const arenaBytesMax = 4 << 20

// condense folds what the row has so far into one body, so that the bodies before it can be let go. A row whose base is
// still to come is left as it is.
func (r *Rows) condense(f dialect.Folder, lane afterimage.LaneID) {
	st, err := f.State()
	if err != nil {
		return
	}
	body := bytes.Clone(st.Body)
	r.arena = r.arena[:0]
	f.Reset(r.table, r.key)
	if !st.Exists {
		return
	}
	r.change = afterimage.Change{Time: st.Time, Born: st.Born, Lane: lane, Op: afterimage.OpInsert, From: afterimage.FromImage, Table: r.table, Key: r.key, Body: body}
	if err := f.Apply(&r.change); err != nil {
		r.err = fmt.Errorf("table %s, key %x: %w", r.table, r.key, err) // a whole row always applies
	}
}

// keep copies a body into the arena of this key. A block that is too small is left to the folder's references.
func (r *Rows) keep(b []byte) []byte {
	if cap(r.arena)-len(r.arena) < len(b) {
		r.arena = make([]byte, 0, max(2*cap(r.arena), len(b), 64<<10))
	}
	n := len(r.arena)
	r.arena = append(r.arena, b...)
	return r.arena[n:len(r.arena):len(r.arena)]
}

func (r *Rows) folder(lane afterimage.LaneID) dialect.Folder {
	for i := range r.lanes[:r.used] {
		if r.lanes[i].lane == lane {
			return r.lanes[i].f
		}
	}
	if r.used == len(r.lanes) {
		r.lanes = append(r.lanes, laneFold{f: r.d.NewFolder()})
	}
	l := &r.lanes[r.used]
	r.used++
	l.lane = lane
	l.f.Reset(r.table, r.key)
	return l.f
}

// Row returns the present row.
func (r *Rows) Row() *Row { return &r.row }

// Err returns what ended the walk early.
func (r *Rows) Err() error { return r.err }

// Close closes the run.
func (r *Rows) Close() error { return r.in.Close() }
