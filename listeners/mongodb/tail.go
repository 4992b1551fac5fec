package mongodb

import (
	"context"
	"errors"
	"fmt"
	"time"

	"go.mongodb.org/mongo-driver/bson"
	"go.mongodb.org/mongo-driver/bson/primitive"
	"go.mongodb.org/mongo-driver/mongo"
	"go.mongodb.org/mongo-driver/mongo/options"

	"github.com/afterimagedb/afterimage"
)

const (
	entriesPerRead = 1000             // of one reply: more does not make it faster, but takes memory
	awaitMax       = time.Second      // how long the server holds a read that finds nothing
	chunkBytesMax  = 4 << 20          // entries are handed on at this size
	chunksInFlight = 2                // filled and waiting
	silenceMax     = 30 * time.Second // the server writes a no-op every 10 s: longer silence is a sick member
)

// errSilent says that a member has stopped to replicate.
var errSilent = errors.New("the member's oplog stands still")

// chunk is a run of raw entries, in memory that is used again.
type chunk struct {
	buf  []byte
	ends []int
}

func (c *chunk) reset() { c.buf, c.ends = c.buf[:0], c.ends[:0] }

func (c *chunk) add(raw []byte) {
	c.buf = append(c.buf, raw...)
	c.ends = append(c.ends, len(c.buf))
}

func (c *chunk) entry(i int) []byte {
	start := 0
	if i > 0 {
		start = c.ends[i-1]
	}
	return c.buf[start:c.ends[i]:c.ends[i]]
}

// reader reads the oplog of a member into chunks.
type reader struct {
	m    *member
	from afterimage.Time // inclusive
	pace time.Duration
	full chan *chunk
	free chan *chunk
}

func newReader(m *member, from afterimage.Time, pace time.Duration) *reader {
	r := &reader{m: m, from: from, pace: pace, full: make(chan *chunk, chunksInFlight), free: make(chan *chunk, chunksInFlight+2)}
	for range cap(r.free) {
		r.free <- &chunk{}
	}
	return r
}

// run reads until ctx ends or the member fails. After a read that did not fill a reply it rests for the pace: a server
// that is woken for every single entry pays far more than one that finds several.
func (r *reader) run(ctx context.Context) error {
	since := primitive.Timestamp{T: r.from.Seconds(), I: r.from.Ordinal()}
	cur, err := r.m.oplog().Find(ctx, bson.D{{Key: "ts", Value: bson.D{{Key: "$gte", Value: since}}}},
		options.Find().SetCursorType(options.TailableAwait).SetBatchSize(entriesPerRead).SetMaxAwaitTime(awaitMax).SetNoCursorTimeout(true))
	if err != nil {
		return fmt.Errorf("read the oplog: %w", err)
	}
	defer func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), helloTimeout)
		defer cancel()
		_ = cur.Close(ctx) // a cursor left open ends with its connection
	}()
	// Only now: had the log been cut before the read began, this would tell.
	if ok, err := r.m.holds(ctx, r.from); err != nil {
		return err
	} else if !ok {
		return fmt.Errorf("the oplog no longer reaches back to %s", r.from)
	}
	rest := time.NewTimer(0)
	defer rest.Stop()
	heard := time.Now()
	for {
		if !cur.TryNext(ctx) {
			if err := cur.Err(); err != nil {
				return fmt.Errorf("read the oplog: %w", err)
			}
			if cur.ID() == 0 {
				return errors.New("read the oplog: the server closed the cursor")
			}
			if time.Since(heard) > silenceMax {
				return errSilent
			}
			continue
		}
		heard = time.Now()
		n, err := r.take(ctx, cur)
		if err != nil {
			return err
		}
		if n >= entriesPerRead/4 {
			continue
		}
		rest.Reset(r.pace)
		select {
		case <-rest.C:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// take hands on everything that the last reply brought.
func (r *reader) take(ctx context.Context, cur *mongo.Cursor) (int, error) {
	n := 0
	for more := true; more; {
		var c *chunk
		select {
		case c = <-r.free:
		case <-ctx.Done():
			return n, ctx.Err()
		}
		c.reset()
		for {
			c.add(cur.Current)
			n++
			if more = cur.RemainingBatchLength() > 0; !more {
				break
			}
			if !cur.TryNext(ctx) {
				return n, fmt.Errorf("read the oplog: %w", errors.Join(cur.Err(), ctx.Err()))
			}
			if len(c.buf) >= chunkBytesMax {
				break
			}
		}
		select {
		case r.full <- c:
		case <-ctx.Done():
			return n, ctx.Err()
		}
	}
	return n, nil
}
