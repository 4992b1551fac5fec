package mongodb

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/afterimagedb/afterimage"
	"github.com/afterimagedb/afterimage/listeners"
	"github.com/afterimagedb/afterimage/listeners/mongodb/oplog"
	"github.com/afterimagedb/afterimage/manifest"
)

// gapPatience is how long members that do not answer are waited for before a gap is recorded.
const gapPatience = time.Minute

// idlePublish is how long a horizon that moved without changes may wait for a batch of its own.
const idlePublish = time.Second

// session is one unbroken chain of batches.
type session struct {
	l       *Listener
	pub     listeners.Publisher
	m       *member
	dec     *oplog.Decoder
	seen    oplog.Stats
	head    afterimage.BatchHeader // of the last batch
	notes   [][]byte               // for the next batch
	last    time.Time              // when a batch was published
	scanned chan [][]byte          // notes of the scanner
	began   afterimage.BatchHeader // head at the start
}

// lead takes the lane on from its last batch until something fails.
func (l *Listener) lead(ctx context.Context, pub listeners.Publisher) error {
	all, err := members(ctx, l.opts.URI)
	if err != nil {
		return err
	}
	defer func() {
		for _, m := range all {
			disconnect(ctx, m.client)
		}
	}()
	s := &session{
		l: l, pub: pub, scanned: make(chan [][]byte),
		dec: oplog.NewDecoder(oplog.Options{MemoryBytesMax: l.opts.OpenBytesMax, Scratch: scratch(l.opts.Scratch)}),
	}
	defer s.dec.Close() //nolint:errcheck // left-over scratch files are swept at the next start
	plan, err := s.begin(ctx, all)
	if err != nil {
		return err
	}
	for _, m := range all {
		if m != s.m {
			disconnect(ctx, m.client)
		}
	}
	all = []*member{s.m}
	l.begun = true
	return s.run(ctx, plan)
}

// begin finds out where the lane stands and which member to read, and sets the session's head. The plan says what is to
// be scanned.
func (s *session) begin(ctx context.Context, all []*member) (*scanPlan, error) {
	l := s.l
	last, err := s.pub.Last(ctx)
	if err != nil {
		return nil, fmt.Errorf("read the lane's last batch: %w", err)
	}
	state, err := l.opts.State(ctx)
	if err != nil {
		return nil, fmt.Errorf("read the manifest: %w", err)
	}
	id := all[0].id
	head, known := resume(id, last, state)
	if !known {
		s.m = all[l.tries%len(all)]
		l.log.Info("a new lane begins", "lane", id.Lane, "incarnation", id.Incarnation, "member", s.m.host)
		return s.fresh(ctx, afterimage.BatchHeader{Lane: id.Lane, Incarnation: id.Incarnation}, nil)
	}
	var errs []error
	for i := range all {
		m := all[(i+l.tries)%len(all)]
		ok, err := m.holds(ctx, needed(head))
		if err != nil {
			errs = append(errs, err)
			continue
		}
		if ok {
			s.m, s.head, l.missing = m, head, time.Time{}
			l.log.Info("the lane goes on", "lane", id.Lane, "from", afterimage.Time(head.To.Hi), "member", m.host)
			return &scanPlan{resume: true}, s.dec.Reset(head.To)
		}
	}
	if l.missing.IsZero() {
		l.missing = time.Now()
	}
	if (len(errs) > 0 || len(all) < all[0].of) && time.Since(l.missing) < gapPatience {
		// A member that does not answer may hold the position. A gap is for good, so it can wait.
		return nil, fmt.Errorf("no member that answers holds the oplog from %s on: %w", afterimage.Time(head.To.Hi),
			errors.Join(append(errs, errors.New("waiting for the other members"))...))
	}
	l.metrics.gaps.Inc()
	l.missing = time.Time{}
	s.m = all[l.tries%len(all)]
	gap := &manifest.Note{
		Kind: manifest.NoteGap, From: head.Horizon,
		Reason: fmt.Sprintf("no member's oplog reached back to %s", afterimage.Time(head.To.Hi)),
	}
	l.log.Error("the oplog no longer holds our position: recording a gap and scanning anew", "from", head.Horizon)
	head.Epoch++
	return s.fresh(ctx, head, gap)
}

// resume returns the header that the next batch continues: the stream's last batch, or what the manifest covers if that
// is further.
func resume(id Identity, last afterimage.Last, state *manifest.State) (afterimage.BatchHeader, bool) {
	h, known := last.BatchHeader, last.Seq != 0 && last.Incarnation == id.Incarnation
	if lane, ok := state.Lane(id.Lane); ok && lane.Incarnation == id.Incarnation {
		if !known || h.Epoch < lane.Epoch || h.Epoch == lane.Epoch && h.To.Less(lane.Covered) {
			h = afterimage.BatchHeader{
				Lane: id.Lane, Incarnation: id.Incarnation, Epoch: lane.Epoch, To: lane.Covered,
				Horizon: lane.Horizon, RestartFrom: lane.RestartFrom,
			}
		}
		known = true
	}
	return h, known
}

// fresh starts an epoch: a position before everything open, the catalog at a later time, and a first batch that says
// what is going to be scanned. gap, if any, ends there.
func (s *session) fresh(ctx context.Context, head afterimage.BatchHeader, gap *manifest.Note) (*scanPlan, error) {
	at, err := s.m.startPosition(ctx, s.l.opts.LookBack, time.Now())
	if err != nil {
		return nil, err
	}
	if gap != nil {
		if at.Less(head.To) {
			at = head.To // a look back must not go behind what is known
		}
		gap.To = afterimage.Time(at.Hi)
		if err := s.note(gap); err != nil {
			return nil, err
		}
	}
	// A transaction that began before this position and ended while it was looked for comes in pieces: every image must be
	// of a time after its end.
	least, err := majorityAfterNow(ctx, s.m)
	if err != nil {
		return nil, err
	}
	plan, err := s.l.catalog(ctx, s.m, least)
	if err != nil {
		return nil, fmt.Errorf("read the catalog: %w", err)
	}
	ids := []afterimage.TableID{afterimage.CatalogTable}
	for _, t := range plan.tables {
		ids = append(ids, t.id)
	}
	if err := s.note(&manifest.Note{Kind: manifest.NoteScan, Tables: ids, Time: plan.at}); err != nil {
		return nil, err
	}
	head.To, head.RestartFrom, head.Horizon = at, at, afterimage.Time(at.Hi)
	s.head = head
	return plan, s.dec.Reset(at)
}

func (s *session) note(n *manifest.Note) error {
	b, err := json.Marshal(n)
	if err != nil {
		return fmt.Errorf("encode a note: %w", err)
	}
	s.notes = append(s.notes, b)
	return nil
}

// run reads, publishes and scans until one of them fails.
func (s *session) run(ctx context.Context, plan *scanPlan) error {
	s.began = s.head
	r := newReader(s.m, needed(s.head), s.l.opts.Pace)
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return r.run(ctx) })
	g.Go(func() error { return s.publishLoop(ctx, r) })
	g.Go(func() error { return s.scan(ctx, plan) })
	return g.Wait()
}

// publishLoop turns chunks into batches.
func (s *session) publishLoop(ctx context.Context, r *reader) error {
	if len(s.notes) > 0 {
		if err := s.publish(ctx); err != nil {
			return err
		}
	}
	tick := time.NewTicker(idlePublish / 2)
	defer tick.Stop()
	for {
		select {
		case c := <-r.full:
			if err := s.chunk(ctx, c); err != nil {
				return err
			}
			r.free <- c
		case notes := <-s.scanned:
			s.notes = append(s.notes, notes...)
			if err := s.publish(ctx); err != nil {
				return err
			}
		case <-tick.C:
			if s.head.To.Less(s.dec.To()) && time.Since(s.last) >= idlePublish {
				if err := s.publish(ctx); err != nil {
					return err
				}
			}
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// chunk decodes a chunk and publishes its changes.
func (s *session) chunk(ctx context.Context, c *chunk) error {
	for i := range c.ends {
		if err := s.dec.Add(c.entry(i)); err != nil {
			return fmt.Errorf("decode the oplog after %s: %w", afterimage.Time(s.dec.To().Hi), err)
		}
		for s.dec.Pending() || s.dec.Bytes() >= s.l.opts.BatchBytesMax {
			if s.dec.Bytes() >= s.l.opts.BatchBytesMax {
				if err := s.publish(ctx); err != nil {
					return err
				}
			}
			if err := s.dec.Continue(); err != nil {
				return fmt.Errorf("decode a transaction that ends after %s: %w", afterimage.Time(s.dec.To().Hi), err)
			}
		}
	}
	s.l.metrics.readBytes.Add(float64(len(c.buf)))
	if len(s.dec.Changes()) > 0 || len(s.dec.Notes()) > 0 {
		return s.publish(ctx)
	}
	return nil
}

// publish hands what is decoded to the stream. The decoder's memory is free afterwards.
func (s *session) publish(ctx context.Context) error {
	for i := range s.dec.Notes() {
		n := &s.dec.Notes()[i]
		s.l.log.Error("an oplog entry was not understood: it is kept raw and its time is not certified", "time", n.Time, "reason", n.Reason)
		if err := s.note(n); err != nil {
			return err
		}
	}
	h := s.head
	h.From, h.To = h.To, s.dec.To()
	if h.From.Less(h.To) {
		h.Horizon, h.RestartFrom = max(h.Horizon, s.dec.Horizon()), s.dec.RestartFrom()
	}
	b := afterimage.Batch{BatchHeader: h, Notes: s.notes, Changes: s.dec.Changes()}
	if err := s.pub.Publish(ctx, &b); err != nil {
		return fmt.Errorf("publish the changes up to %s: %w", afterimage.Time(h.To.Hi), err)
	}
	s.head, s.notes, s.last = h, nil, time.Now()
	s.measure(&b)
	s.dec.Clear()
	return nil
}

func (s *session) measure(b *afterimage.Batch) {
	m := s.l.metrics
	m.leader.Set(1)
	m.batches.Inc()
	m.changes.Add(float64(len(b.Changes)))
	m.changeBytes.Add(float64(s.dec.Bytes()))
	m.horizon.Set(float64(b.Horizon.Seconds()))
	if n := len(b.Changes); n > 0 && b.Changes[n-1].Wall != 0 {
		m.lag.Set(time.Since(time.UnixMilli(b.Changes[n-1].Wall)).Seconds())
	} else {
		m.lag.Set(time.Since(afterimage.Time(b.To.Hi).Clock()).Seconds())
	}
	m.decoder(s.dec, &s.seen)
}
