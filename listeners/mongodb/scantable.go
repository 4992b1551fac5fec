package mongodb

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/cenkalti/backoff/v5"
	"go.mongodb.org/mongo-driver/bson"
	"go.mongodb.org/mongo-driver/bson/primitive"
	"go.mongodb.org/mongo-driver/mongo"
	"go.mongodb.org/mongo-driver/x/bsonx/bsoncore"
	"golang.org/x/time/rate"

	"github.com/afterimagedb/afterimage"
	dialect "github.com/afterimagedb/afterimage/dialect/mongodb"
	"github.com/afterimagedb/afterimage/manifest"
)

// Codes of server errors that end a read but not the scan.
const (
	codeNamespaceNotFound   = 26
	codeCursorNotFound      = 43
	codeCappedPositionLost  = 136
	codeQueryPlanKilled     = 175
	codeSnapshotTooOld      = 239
	codeSnapshotUnavailable = 246
	codeExceededTimeLimit   = 262
)

// errGone says that a table was dropped before it was read.
var errGone = errors.New("the table was dropped")

// table scans one table.
func (s *scanner) table(ctx context.Context, t *scanTable) error {
	read := s.ranges
	if !s.plan.exact || t.capped || !t.byID {
		read = s.whole
	}
	b := backoff.NewExponentialBackOff()
	b.InitialInterval, b.MaxInterval = retryFirst, retryMax
	for {
		err := read(ctx, t)
		switch {
		case err == nil:
			return nil
		case errors.Is(err, errGone):
			s.l.log.Info("first image: the table was dropped meanwhile", "namespace", t.ns, "table", t.id)
			s.rows.reset()
			return s.put(ctx, &manifest.Note{Kind: manifest.NoteRange, Table: t.id, Dropped: true}, false)
		case !passing(err):
			return err
		}
		wait := b.NextBackOff()
		s.l.log.Info("first image: reading again", "namespace", t.ns, "error", err, "wait", wait)
		if err := sleep(ctx, wait); err != nil {
			return err
		}
	}
}

// passing reports whether a read may succeed at a later time.
func passing(err error) bool {
	return hasCode(err, codeCursorNotFound, codeCappedPositionLost, codeQueryPlanKilled, codeSnapshotTooOld,
		codeSnapshotUnavailable, codeExceededTimeLimit)
}

// ranges scans a table in ranges of _id, each at an exact time. On an error it can be called again: t.resume says where
// it stands.
func (s *scanner) ranges(ctx context.Context, t *scanTable) error {
	for {
		n, err := s.oneRange(ctx, t)
		if err != nil {
			return err
		}
		if err := s.put(ctx, n, false); err != nil {
			return err
		}
		t.resume = n.Resume
		if s.part.bytes >= s.l.opts.SegmentBytes {
			if err := s.flush(ctx); err != nil {
				return err
			}
		}
		if n.Done {
			return nil
		}
	}
}

// time returns a recent time that a majority has, not before the catalog's.
func (s *scanner) time(ctx context.Context) (afterimage.Time, error) {
	h, err := hello(ctx, s.m.client)
	if err != nil {
		return 0, fmt.Errorf("ask for the majority's time: %w", err)
	}
	return max(s.plan.at, h.majority()), nil
}

// find begins to read a table by its UUID: a name could mean another table at another time.
func (s *scanner) find(ctx context.Context, t *scanTable, more ...bson.E) (*mongo.Cursor, error) {
	cmd := append(bson.D{
		{Key: "find", Value: primitive.Binary{Subtype: 4, Data: t.id[:]}},
		{Key: "batchSize", Value: s.l.opts.rowsPerGet},
	}, more...)
	cur, err := s.m.client.Database(t.db).RunCommandCursor(ctx, cmd, anyMember())
	if hasCode(err, codeNamespaceNotFound) {
		return nil, errGone
	}
	if err != nil {
		return nil, fmt.Errorf("read the table: %w", err)
	}
	cur.SetBatchSize(s.l.opts.rowsPerGet)
	return cur, nil
}

// oneRange reads the next range of t into s.rows.
func (s *scanner) oneRange(ctx context.Context, t *scanTable) (*manifest.Note, error) {
	s.rows.reset()
	at, err := s.time(ctx)
	if err != nil {
		return nil, err
	}
	more := []bson.E{{Key: "hint", Value: bson.D{{Key: "_id", Value: 1}}}, {Key: "readConcern", Value: snapshotAt(at)}}
	var after []byte
	if t.resume != nil {
		more = append(more, bson.E{Key: "min", Value: bson.Raw(t.resume)})
		if after, err = dialect.AppendDocKey(nil, t.resume); err != nil {
			return nil, fmt.Errorf("where the scan stands is damaged: %w", err)
		}
	}
	cur, err := s.find(ctx, t, more...)
	if err != nil {
		return nil, err
	}
	defer cur.Close(ctx) //nolint:errcheck // nothing depends on it
	n := &manifest.Note{Kind: manifest.NoteRange, Table: t.id, MinTime: at, Time: at}
	var last bson.Raw
	for began := time.Now(); ; {
		if !cur.Next(ctx) {
			n.Done = true
			break
		}
		last = cur.Current
		if err := s.take(ctx, last, after); err != nil {
			return nil, err
		}
		after = nil
		if cur.RemainingBatchLength() == 0 && (s.rows.size() >= s.l.opts.rangeBytes || time.Since(began) > rangeTime) {
			break
		}
	}
	if err := cur.Err(); err != nil {
		return nil, readError(err)
	}
	if !n.Done {
		n.Resume = idDocument(last)
	}
	return n, nil
}

// take adds a document to the rows, unless its key is skip.
func (s *scanner) take(ctx context.Context, doc bson.Raw, skip []byte) error {
	b := &s.rows
	key := len(b.mem)
	mem, err := dialect.AppendDocKey(b.mem, doc)
	if err != nil {
		return fmt.Errorf("make a row's key: %w", err)
	}
	if skip != nil && bytes.Equal(mem[key:], skip) {
		return nil
	}
	body := len(mem)
	b.mem = append(mem, doc...)
	b.push(key, body)
	if s.limiter.Limit() == rate.Inf {
		return nil
	}
	for n := len(doc); n > 0; n -= limitBurst {
		if err := s.limiter.WaitN(ctx, min(n, limitBurst)); err != nil {
			return err
		}
	}
	return nil
}

// idDocument returns {_id: ...} of a document.
func idDocument(doc bson.Raw) bson.Raw {
	v := doc.Lookup("_id")
	at, b := bsoncore.AppendDocumentStart(nil)
	b = bsoncore.AppendValueElement(b, "_id", bsoncore.Value{Type: v.Type, Data: v.Value})
	b, _ = bsoncore.AppendDocumentEnd(b, at)
	return b
}

func readError(err error) error {
	if hasCode(err, codeNamespaceNotFound) {
		return errGone
	}
	return fmt.Errorf("read the table: %w", err)
}

// whole scans a table that can't be read at an exact time, or not by _id, in natural order. Its rows carry a time before
// they were read; what changed since is in the log, so the table is exact from the scan's end on.
func (s *scanner) whole(ctx context.Context, t *scanTable) error {
	if err := s.flush(ctx); err != nil {
		return err
	}
	s.rows.reset()
	note := &manifest.Note{Kind: manifest.NoteRange, Table: t.id, Done: true}
	at, err := s.time(ctx)
	if err != nil {
		return err
	}
	note.MinTime = at
	cur, err := s.find(ctx, t, bson.E{Key: "hint", Value: bson.D{{Key: "$natural", Value: 1}}},
		bson.E{Key: "readConcern", Value: majorityAfter(at)})
	if err != nil {
		return err
	}
	defer cur.Close(ctx) //nolint:errcheck // nothing depends on it
	for cur.Next(ctx) {
		if err := s.takeWhole(ctx, cur.Current, at); err != nil {
			return err
		}
		// Only with the next reply may the time step: what is left of this one was read before.
		if s.rows.size() < s.l.opts.wholeBytes || cur.RemainingBatchLength() > 0 {
			continue
		}
		if err := s.storeWhole(ctx, t, note, at); err != nil {
			return err
		}
		s.rows.next()
		if at, err = s.step(ctx, t); err != nil {
			return err
		}
	}
	if err := cur.Err(); err != nil {
		return readError(err)
	}
	if note.Time, err = majorityAfterNow(ctx, s.m); err != nil {
		return err
	}
	return s.endWhole(ctx, t, note, at)
}

// step returns a time that the next reply of a read in natural order will not be older than: a reply tells what a majority
// had when it was made, which can be a little less than what the member says it is.
func (s *scanner) step(ctx context.Context, t *scanTable) (afterimage.Time, error) {
	at, err := s.time(ctx)
	if err != nil {
		return 0, err
	}
	cur, err := s.find(ctx, t, bson.E{Key: "limit", Value: 1}, bson.E{Key: "singleBatch", Value: true},
		bson.E{Key: "readConcern", Value: majorityAfter(at)})
	if err != nil {
		return 0, err
	}
	return at, cur.Close(ctx)
}

// takeWhole adds a document, which may lack _id.
func (s *scanner) takeWhole(ctx context.Context, doc bson.Raw, at afterimage.Time) error {
	err := s.take(ctx, doc, nil)
	if errors.Is(err, dialect.ErrNoID) {
		b := &s.rows
		s.rows.add(dialect.AppendMissingKey(nil, at, b.base+uint32(len(b.rows))), doc)
		return nil
	}
	return err
}

// storeWhole writes the rows gathered to a segment of their own, which note gets.
func (s *scanner) storeWhole(ctx context.Context, t *scanTable, note *manifest.Note, at afterimage.Time) error {
	if err := s.put(ctx, &manifest.Note{Table: t.id, MinTime: at}, t.capped); err != nil {
		return err
	}
	meta, err := s.store(ctx)
	s.part = nil
	if err != nil {
		return err
	}
	if meta != nil {
		note.Segments = append(note.Segments, *meta)
	}
	return nil
}

// endWhole adds the last rows, and the note, to a part that the next tables may share.
func (s *scanner) endWhole(ctx context.Context, t *scanTable, note *manifest.Note, at afterimage.Time) error {
	least := note.MinTime
	note.MinTime = at // of the rows that are put now
	err := s.put(ctx, note, t.capped)
	note.MinTime = least
	return err
}
