package snapshotter

import (
	"context"
	"fmt"

	"github.com/afterimagedb/afterimage"
	"github.com/afterimagedb/afterimage/dialect"
	"github.com/afterimagedb/afterimage/fold"
	"github.com/afterimagedb/afterimage/manifest"
)

// Rows walks rows as they were at a time, in the order of their keys, or of their birth when the table is ordered.
// It is not safe for concurrent use.
type Rows struct {
	src  source
	cur  *fold.Row
	name string
	err  error
}

// source yields rows; row is valid until the next call of next.
type source interface {
	next() bool
	row() *fold.Row
	err() error
	Close() error
}

// Rows reads the rows of a table at a time. r narrows what is read; the zero range means the whole table. The context
// serves the walk too. The rows must be closed.
func (s *Snapshotter) Rows(ctx context.Context, t dialect.Table, at afterimage.Time, r afterimage.Range) (*Rows, error) {
	r, ok := clip(r, afterimage.TableRange(t.ID))
	if !ok {
		return &Rows{src: &scan{}, name: named(t)}, nil
	}
	src, err := s.rows(ctx, r, at)
	if err != nil {
		return nil, fmt.Errorf("%s at %s: %w", named(t), at, err)
	}
	if !t.Ordered {
		return &Rows{src: src, name: named(t)}, nil
	}
	sorted, err := sortByBirth(src, s.scratch, sortBytesMax)
	if err != nil {
		return nil, fmt.Errorf("%s at %s: %w", named(t), at, err)
	}
	return &Rows{src: sorted, name: named(t)}, nil
}

// clip returns what r and to have in common.
func clip(r, to afterimage.Range) (afterimage.Range, bool) {
	if r.From.Compare(to.From) < 0 {
		r.From = to.From
	}
	if r.Open() || !to.Open() && r.To.Compare(to.To) > 0 {
		r.To = to.To
	}
	return r, r.Open() || r.From.Compare(r.To) < 0
}

// Next moves to the next row.
func (r *Rows) Next() bool {
	if r.err != nil {
		return false
	}
	if !r.src.next() {
		r.cur = nil
		if err := r.src.err(); err != nil {
			r.err = fmt.Errorf("%s: %w", r.name, err)
		}
		return false
	}
	r.cur = r.src.row()
	return true
}

// Key is the row's key, valid until the next call of Next.
func (r *Rows) Key() []byte { return r.cur.Key }

// Body is the row's native bytes, valid until the next call of Next.
func (r *Rows) Body() []byte { return r.cur.Body }

// Born is when the row was inserted, zero if not known.
func (r *Rows) Born() afterimage.Born { return r.cur.Born }

// Time is the commit time of the change that made the row what it is, or a later one at which it was found so.
func (r *Rows) Time() afterimage.Time { return r.cur.Time }

// Lane is the lane that owned the row.
func (r *Rows) Lane() afterimage.LaneID { return r.cur.Lane }

// Err returns what ended the walk early.
func (r *Rows) Err() error { return r.err }

// Close ends the walk. It may be called twice.
func (r *Rows) Close() error { return r.src.Close() }

// rows reads a range of row space at a time in key order.
func (s *Snapshotter) rows(ctx context.Context, r afterimage.Range, at afterimage.Time) (*scan, error) {
	sc := &scan{ctx: ctx, s: s, at: at, pieces: s.cover(r, at)}
	// What can't be opened should be said now, not in the middle of what the caller then began.
	if err := sc.open(); err != nil {
		return nil, err
	}
	return sc, nil
}

// scan walks the pieces of a range one after the other.
type scan struct {
	ctx    context.Context //nolint:containedctx // a walk is one read, begun with this context
	s      *Snapshotter
	at     afterimage.Time
	pieces []manifest.Piece
	cur    *fold.Rows
	fail   error
}

// open begins the next piece.
func (s *scan) open() error {
	if len(s.pieces) == 0 {
		return nil
	}
	p := &s.pieces[0]
	in, err := p.Open(s.ctx, s.s.bucket, s.at)
	if err != nil {
		return err
	}
	s.pieces = s.pieces[1:]
	s.cur = fold.New(in, s.s.dialect, nil)
	return nil
}

func (s *scan) next() bool {
	for s.cur != nil {
		if s.cur.Next() {
			return true
		}
		if s.fail = s.cur.Err(); s.fail != nil {
			return false
		}
		s.fail = s.cur.Close()
		s.cur = nil
		if s.fail == nil {
			s.fail = s.open()
		}
	}
	return false
}

func (s *scan) row() *fold.Row { return s.cur.Row() }
func (s *scan) err() error     { return s.fail }

// Close closes the piece being read.
func (s *scan) Close() error {
	s.pieces = nil
	if s.cur == nil {
		return nil
	}
	err := s.cur.Close()
	s.cur = nil
	return err
}
