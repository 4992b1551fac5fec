package compactor

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"time"

	"github.com/afterimagedb/afterimage"
	"github.com/afterimagedb/afterimage/manifest"
	"github.com/afterimagedb/afterimage/segment"
)

// Lane is a lane's stream as the compactor needs it.
type Lane interface {
	// Last returns the newest batch of the stream.
	Last(ctx context.Context) (afterimage.Last, error)
	// Read returns a reader of the batches after a stream sequence.
	Read(ctx context.Context, after uint64) (BatchReader, error)
	// Trim removes what lies up to seq, but never the last message.
	Trim(ctx context.Context, seq uint64) error
	// Reset empties the stream so that its publisher is fenced and starts again from what the manifest covers.
	Reset(ctx context.Context) error
}

// BatchReader walks the batches of a lane. A batch is valid until the next call.
type BatchReader interface {
	Next(ctx context.Context) (*afterimage.Batch, uint64, error)
	Close()
}

// ingest is the state of one lane's path from batches to level 0.
type ingest struct {
	c       *Compactor
	name    string
	lane    Lane
	table   memtable
	pending []pendingBatch // headers and notes of batches whose changes are in table
	base    manifest.Lane  // the lane when the oldest pending batch came in: what table was cut by
	whole   bool           // read the stream from its start: the manifest's sequence, a hint, has misled
	since   time.Time      // when the oldest pending batch came in
	urgent  bool           // a pending batch has notes: commit soon
	deletes deleteWatch
}

type pendingBatch struct {
	batch afterimage.Batch // without changes
	seq   uint64
}

// run reads batches for ever. A broken chain resets the lane's stream: the listener then reads again from its own log.
func (in *ingest) run(ctx context.Context) error {
	for {
		err := in.follow(ctx)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		in.drop()
		switch {
		case errors.Is(err, manifest.ErrBroken) && !in.whole:
			in.whole = true // a stream that was made anew counts anew: the batches may be there, before the hint
			continue
		case errors.Is(err, manifest.ErrBroken):
			in.c.log.Error("batches are missing in the stream; it is emptied and the listener reads its log again", "lane", in.name, "error", err)
			in.c.metrics.broken.WithLabelValues(in.name).Inc()
			if err := in.reset(ctx); err != nil {
				return err
			}
		case errors.Is(err, afterimage.ErrHalt):
			return err
		default:
			in.c.metrics.retries.Inc()
			in.c.log.Warn("ingest failed, trying again", "lane", in.name, "error", err)
		}
		if err := pause(ctx, in.c.o.RetryAfter); err != nil {
			return err
		}
	}
}

// reset empties the stream, and tries until it is done: half done, there may be no stream at all.
func (in *ingest) reset(ctx context.Context) error {
	for {
		err := in.lane.Reset(ctx)
		if err == nil {
			in.whole = false
			return nil
		}
		in.c.log.Error("stream can't be reset, trying again", "lane", in.name, "error", err)
		if err := pause(ctx, in.c.o.RetryAfter); err != nil {
			return err
		}
	}
}

// drop forgets what was not committed: it is read from the stream again.
func (in *ingest) drop() {
	in.table.reset()
	in.pending = in.pending[:0]
	in.urgent = false
}

// follow reads from what the manifest covers and flushes by size and age, until an error.
func (in *ingest) follow(ctx context.Context) error {
	after, err := in.resume(ctx)
	if err != nil {
		return err
	}
	r, err := in.lane.Read(ctx, after)
	if err != nil {
		return err
	}
	defer r.Close()
	for {
		wait, cancel := context.WithCancel(ctx)
		if len(in.pending) > 0 {
			cancel()
			wait, cancel = context.WithDeadline(ctx, in.due())
		}
		b, seq, err := r.Next(wait)
		late := wait.Err() != nil
		cancel()
		switch {
		case err == nil:
			if err := in.continues(ctx, &b.BatchHeader); err != nil {
				return err
			}
			in.add(b, seq)
		case ctx.Err() != nil || !late:
			return err
		}
		if len(in.pending) > 0 && (in.table.bytes >= in.c.o.LevelZeroBytes || !time.Now().Before(in.due())) {
			if err := in.flush(ctx); err != nil {
				return err
			}
		}
	}
}

// resume is the stream sequence after which to read. The manifest's is a hint: a stream that was made anew counts from 1
// again, and then coverage by position skips what is known.
func (in *ingest) resume(ctx context.Context) (uint64, error) {
	last, err := in.lane.Last(ctx)
	if err != nil {
		return 0, err
	}
	l, ok := in.c.committer.State().Lane(in.name)
	if in.whole || !ok || last.Seq < l.Seq || last.To.Less(l.Covered) || last.Incarnation != l.Incarnation {
		return 0, nil
	}
	return l.Seq, nil
}

// due is when the pending batches must be committed.
func (in *ingest) due() time.Time {
	if in.urgent {
		return in.since.Add(in.c.o.CommitEvery / 4)
	}
	return in.since.Add(in.c.o.CommitEvery)
}

// add takes in a batch.
func (in *ingest) add(b *afterimage.Batch, seq uint64) {
	if len(in.pending) == 0 {
		in.since = time.Now()
		in.base, _ = in.c.committer.State().Lane(in.name)
	}
	known, same := in.known(&b.BatchHeader)
	notes := make([][]byte, len(b.Notes))
	for i, n := range b.Notes {
		notes[i] = slices.Clone(n)
	}
	in.pending = append(in.pending, pendingBatch{afterimage.Batch{BatchHeader: b.BatchHeader, Notes: notes}, seq})
	in.urgent = in.urgent || len(notes) > 0
	for i := range b.Changes {
		c := &b.Changes[i]
		if same && !known.Less(c.Pos) {
			in.c.metrics.duplicates.Inc()
			continue
		}
		in.table.add(c)
	}
	in.c.metrics.batches.WithLabelValues(in.name).Inc()
	in.c.metrics.changes.WithLabelValues(in.name).Add(float64(len(b.Changes)))
}

// known is the position up to which the epoch that h belongs to is pending or covered; false if nothing of it is.
func (in *ingest) known(h *afterimage.BatchHeader) (afterimage.Position, bool) {
	var p afterimage.Position
	same := false
	if n := len(in.pending); n > 0 {
		if q := &in.pending[n-1].batch; q.Incarnation == h.Incarnation && q.Epoch == h.Epoch {
			p, same = q.To, true
		}
	}
	l, ok := in.c.committer.State().Lane(in.name)
	switch {
	case !ok || l.Incarnation != h.Incarnation:
	case h.Epoch < l.Epoch: // long over: this is a stream that was rewound
		return afterimage.Position{Hi: math.MaxUint64, Lo: math.MaxUint64}, true
	case h.Epoch == l.Epoch:
		same = true
		if p.Less(l.Covered) {
			p = l.Covered
		}
	}
	return p, same
}

// continues reports ErrBroken if batches are missing before the one with header h. What came before them is committed first,
// as nothing of the stream outlives its reset.
func (in *ingest) continues(ctx context.Context, h *afterimage.BatchHeader) error {
	known, same := in.known(h)
	if !same || !known.Less(h.From) {
		return nil
	}
	if len(in.pending) > 0 {
		if err := in.flush(ctx); err != nil {
			return err
		}
	}
	return fmt.Errorf("lane %s is known to %s, the next batch starts at %s: %w", in.name, known, h.From, manifest.ErrBroken)
}

// flush writes what is pending as a level-0 segment, commits it and trims the stream behind it.
func (in *ingest) flush(ctx context.Context) error {
	began := time.Now()
	events := in.deletes.events(&in.table)
	for i := range events {
		in.table.add(&events[i])
	}
	metas, err := in.write(ctx)
	if err != nil {
		return err
	}
	state, err := in.c.committer.Commit(ctx, func(s *manifest.State) (manifest.Edit, error) { return in.propose(s, metas) })
	if errors.Is(err, errOvertaken) {
		in.c.discard(ctx, metas)
	}
	if err != nil {
		return err
	}
	seq := in.pending[len(in.pending)-1].seq
	in.drop()
	in.deletes.committed()
	if l, _ := state.Lane(in.name); in.base.Covered.Less(l.Covered) {
		in.whole = false // the manifest's sequence is of this stream now
	}
	in.c.committed(in.name, state, began)
	if err := in.lane.Trim(ctx, seq); err != nil {
		in.c.log.Warn("stream was not trimmed, trying again after the next commit", "lane", in.name, "error", err)
	}
	return nil
}

// propose makes the edit of what is pending on a state whose lane still stands at the base. Metas are cut by that coverage: on
// any other they would hold changes twice.
func (in *ingest) propose(s *manifest.State, metas []segment.Meta) (manifest.Edit, error) {
	if len(metas) > 0 {
		if _, ok := s.Segments[metas[0].ID]; ok {
			return manifest.Edit{}, nil // committed before, only the answer was lost
		}
	}
	if l, _ := s.Lane(in.name); l.ID != in.base.ID || l.Epoch != in.base.Epoch || l.Covered != in.base.Covered {
		return manifest.Edit{}, errOvertaken
	}
	b := manifest.NewBuilder(s)
	for i := range in.pending {
		p := &in.pending[i]
		if b.Covers(p.batch.BatchHeader) {
			continue
		}
		if _, err := b.Batch(&p.batch, p.seq); err != nil {
			return manifest.Edit{}, err
		}
	}
	e := b.Edit()
	for _, m := range metas {
		m.Lanes = []afterimage.LaneID{laneOf(&e, s, in.name)}
		e.AddSegments = append(e.AddSegments, m)
	}
	return e, nil
}

// laneOf is the id that the lane has after the edit.
func laneOf(e *manifest.Edit, s *manifest.State, name string) afterimage.LaneID {
	for _, le := range e.Lanes {
		if le.Lane.Name == name {
			return le.Lane.ID
		}
	}
	l, _ := s.Lane(name)
	return l.ID
}

// write sorts the memtable and stores it as one segment; nothing is written when it is empty.
func (in *ingest) write(ctx context.Context) ([]segment.Meta, error) {
	if in.table.len() == 0 {
		return nil, nil
	}
	lane := in.c.laneID(in.name)
	w, err := segment.NewWriter(segment.WriterOptions{ID: segment.NewID(), Kind: segment.Changes})
	if err != nil {
		return nil, err
	}
	var last *afterimage.Change
	for _, c := range in.table.sorted() {
		if last != nil && last.Compare(c) == 0 {
			in.c.metrics.duplicates.Inc()
			continue
		}
		c.Lane = lane
		if err := w.Append(c); err != nil {
			return nil, fmt.Errorf("level 0 of lane %s: %w", in.name, err)
		}
		last = c
	}
	m, err := in.c.store(ctx, w)
	if err != nil {
		return nil, err
	}
	return []segment.Meta{m}, nil
}
