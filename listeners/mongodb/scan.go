package mongodb

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/cenkalti/backoff/v5"
	"golang.org/x/time/rate"

	"github.com/afterimagedb/afterimage"
	"github.com/afterimagedb/afterimage/manifest"
	"github.com/afterimagedb/afterimage/segment"
)

const (
	coverPoll  = 250 * time.Millisecond // how often the manifest is looked at while it does not cover the lane yet
	rangeTime  = 45 * time.Second       // a range is closed early, well within the server's snapshot window of 300 s
	rangeBytes = 8 << 20                // a range ends with the reply that reaches this size
	wholeBytes = 32 << 20               // rows of a segment of a table that is read in natural order
	rowsPerGet = 2000                   // of one reply
	retryFirst = 200 * time.Millisecond
	retryMax   = 5 * time.Second
	limitBurst = 1 << 20
)

// scanner reads the first image of tables.
type scanner struct {
	l       *Listener
	m       *member
	out     chan<- [][]byte
	plan    *scanPlan
	limiter *rate.Limiter
	rows    rowBuffer
	part    *part
}

// part is a segment being filled. Small tables share one.
type part struct {
	id    string
	w     *segment.Writer
	bytes int64
	rows  int64
	notes []*manifest.Note // one per table
	using []bool           // whether the note's table has rows in it
	last  []byte           // key of the last row
}

// scan reads the first image that the plan asks for, or what the manifest says is left of one.
func (s *session) scan(ctx context.Context, plan *scanPlan) error {
	sc := &scanner{l: s.l, m: s.m, out: s.scanned, plan: plan, limiter: rate.NewLimiter(rate.Inf, limitBurst)}
	if n := s.l.opts.BytesPerSecondMax; n > 0 {
		sc.limiter.SetLimit(rate.Limit(n))
	}
	catalog := true
	if plan.resume {
		scans, err := s.awaitCover(ctx)
		if err != nil || len(scans) == 0 {
			return err
		}
		if catalog, err = sc.remaining(ctx, scans); err != nil {
			return err
		}
	}
	began := time.Now()
	s.l.log.Info("first image: scanning", "tables", len(sc.plan.tables))
	if catalog {
		if err := sc.catalog(ctx); err != nil {
			return fmt.Errorf("first image of the catalog: %w", err)
		}
	}
	for i := range sc.plan.tables {
		t := &sc.plan.tables[i]
		s.l.metrics.scanTables.Set(float64(len(sc.plan.tables) - i))
		if err := sc.table(ctx, t); err != nil {
			return fmt.Errorf("first image of %s: %w", t.ns, err)
		}
	}
	if err := sc.flush(ctx); err != nil {
		return err
	}
	s.l.metrics.scanTables.Set(0)
	s.l.log.Info("first image: complete", "tables", len(sc.plan.tables), "took", time.Since(began).Round(time.Millisecond))
	return nil
}

// awaitCover waits until the committed state covers where this session began, so that it holds all notes of earlier
// sessions, and returns the scans of this lane that are under way.
func (s *session) awaitCover(ctx context.Context) (map[afterimage.TableID]manifest.Scan, error) {
	for {
		state, err := s.l.opts.State(ctx)
		if err != nil {
			return nil, fmt.Errorf("read the manifest: %w", err)
		}
		lane, ok := state.Lane(s.began.Lane)
		if ok && lane.Incarnation == s.began.Incarnation && lane.Epoch >= s.began.Epoch && !lane.Covered.Less(s.began.To) {
			scans := map[afterimage.TableID]manifest.Scan{}
			for id, sc := range state.Scans {
				if sc.Lane == lane.ID {
					scans[id] = sc
				}
			}
			return scans, nil
		}
		if err := sleep(ctx, coverPoll); err != nil {
			return nil, err
		}
	}
}

// remaining makes the plan of what is left of scans. It reports whether the catalog is still to be read.
func (s *scanner) remaining(ctx context.Context, scans map[afterimage.TableID]manifest.Scan) (bool, error) {
	// A member that lags must not tell what was before the lane's start, or that a table is gone which it does not have yet.
	var least afterimage.Time
	for _, sc := range scans {
		least = max(least, sc.Time)
	}
	plan, err := s.l.catalog(ctx, s.m, least)
	if err != nil {
		return false, fmt.Errorf("read the catalog: %w", err)
	}
	plan.tables = slices.DeleteFunc(plan.tables, func(t scanTable) bool { _, ok := scans[t.id]; return !ok })
	var gone [][]byte
	for id := range scans {
		if id == afterimage.CatalogTable || slices.ContainsFunc(plan.tables, func(t scanTable) bool { return t.id == id }) {
			continue
		}
		b, err := json.Marshal(&manifest.Note{Kind: manifest.NoteRange, Table: id, Dropped: true})
		if err != nil {
			return false, fmt.Errorf("encode a note: %w", err)
		}
		gone = append(gone, b)
	}
	for i := range plan.tables {
		plan.tables[i].resume = scans[plan.tables[i].id].Resume
	}
	s.plan = plan
	_, catalog := scans[afterimage.CatalogTable]
	return catalog, s.send(ctx, gone)
}

func (s *scanner) send(ctx context.Context, notes [][]byte) error {
	if len(notes) == 0 {
		return nil
	}
	select {
	case s.out <- notes:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// catalog writes the catalog's rows.
func (s *scanner) catalog(ctx context.Context) error {
	s.rows.reset()
	for _, r := range s.plan.rows {
		s.rows.add(r.id[:], r.row)
	}
	n := &manifest.Note{Kind: manifest.NoteRange, Table: afterimage.CatalogTable, MinTime: s.plan.at, Time: s.plan.at, Done: true}
	if err := s.put(ctx, n, false); err != nil {
		return err
	}
	return s.flush(ctx)
}

// follows reports whether the rows gathered, of the table, can be appended to the part: a range starts where the one
// before it ended in the server's order, which a collation makes another one than ours.
func (s *scanner) follows(table afterimage.TableID) bool {
	p := s.part
	if p == nil || len(p.notes) == 0 || p.notes[len(p.notes)-1].Table != table {
		return true
	}
	for r := range s.rows.sorted() {
		return bytes.Compare(p.last, r.key) < 0
	}
	return true
}

// put adds the rows gathered to the part, as the range that n tells of. It keeps n.
func (s *scanner) put(ctx context.Context, n *manifest.Note, ordered bool) error {
	if !s.follows(n.Table) {
		if err := s.flush(ctx); err != nil {
			return err
		}
	}
	if s.part == nil {
		id := segment.NewID()
		w, err := segment.NewWriter(segment.WriterOptions{ID: id, Kind: segment.Image})
		if err != nil {
			return fmt.Errorf("begin a segment: %w", err)
		}
		s.part = &part{id: id, w: w}
	}
	c := afterimage.Change{
		Time: n.MinTime, Pos: afterimage.Position{Hi: uint64(n.MinTime)}, Order: afterimage.OrderImage,
		Op: afterimage.OpInsert, From: afterimage.FromImage, Table: n.Table,
	}
	rows, size := int64(0), int64(0)
	for r := range s.rows.sorted() {
		c.Key, c.Body = r.key, r.body
		if ordered {
			c.Born = afterimage.Born{Time: n.MinTime, Order: r.ordinal}
		}
		if err := s.part.w.Append(&c); err != nil {
			return fmt.Errorf("write a segment: %w", err)
		}
		rows++
		size += int64(len(r.key) + len(r.body))
		s.part.last = r.key
	}
	s.part.last = bytes.Clone(s.part.last)
	s.part.rows += rows
	s.part.bytes += size
	s.part.note(n, rows > 0)
	s.l.metrics.scanRows.Add(float64(rows))
	s.l.metrics.scanBytes.Add(float64(size))
	return nil
}

// note adds what is said of a range. Ranges of one table in one part are told of together.
func (p *part) note(n *manifest.Note, rows bool) {
	i := len(p.notes) - 1
	if i < 0 || p.notes[i].Table != n.Table || n.Dropped {
		p.notes, p.using = append(p.notes, n), append(p.using, rows)
		return
	}
	n.MinTime, n.Time = min(n.MinTime, p.notes[i].MinTime), max(n.Time, p.notes[i].Time)
	p.notes[i], p.using[i] = n, p.using[i] || rows
}

// store finishes the part's segment and puts it into the bucket. It returns nil if the part has no rows.
func (s *scanner) store(ctx context.Context) (*segment.Meta, error) {
	p := s.part
	if p.rows == 0 {
		return nil, nil //nolint:nilnil // nothing to store is no error
	}
	data, meta, err := p.w.Close()
	if err != nil {
		return nil, fmt.Errorf("finish a segment: %w", err)
	}
	// A bucket that is away for a while must not end the session: the log goes on into the stream meanwhile.
	b := backoff.NewExponentialBackOff()
	b.MaxInterval = retryMax
	for {
		err := s.l.opts.Bucket.Put(ctx, segment.ObjectName(p.id), data)
		if err == nil {
			break
		}
		if ctx.Err() != nil || errors.Is(err, afterimage.ErrHalt) {
			return nil, fmt.Errorf("store a segment: %w", err)
		}
		wait := b.NextBackOff()
		s.l.log.Warn("first image: the bucket refuses a segment, trying again", "error", err, "wait", wait)
		if err := sleep(ctx, wait); err != nil {
			return nil, err
		}
	}
	s.l.metrics.scanSegments.Inc()
	return &meta, nil
}

// flush stores the part and sends its notes.
func (s *scanner) flush(ctx context.Context) error {
	if s.part == nil {
		return nil
	}
	meta, err := s.store(ctx)
	if err != nil {
		return err
	}
	var notes [][]byte
	for i, n := range s.part.notes {
		if s.part.using[i] {
			n.Segments = append(n.Segments, *meta)
		}
		b, err := json.Marshal(n)
		if err != nil {
			return fmt.Errorf("encode a note: %w", err)
		}
		notes = append(notes, b)
	}
	s.part = nil
	s.l.metrics.scanRanges.Add(float64(len(notes)))
	return s.send(ctx, notes)
}
