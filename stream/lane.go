package stream

import (
	"context"
	"errors"
	"fmt"
	"log/slog"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/afterimagedb/afterimage"
)

// Lane is the stream of one lane. Last, Publish and Flush belong to one goroutine at a time (they wait for one another);
// Read and Trim may be called beside them.
type Lane struct {
	bus     *Bus
	name    string
	subject string
	stream  jetstream.Stream
	log     *slog.Logger
	metrics laneMetrics
	pub     *publisher
}

func newLane(b *Bus, name, subject string, s jetstream.Stream) *Lane {
	l := &Lane{
		bus:     b,
		name:    name,
		subject: subject,
		stream:  s,
		log:     b.log.With("lane", name),
		metrics: b.metrics.lane(name),
	}
	l.metrics.stored.Set(float64(s.CachedInfo().State.Bytes))
	l.pub = newPublisher(l)
	return l
}

// tail is what stands at the end of a stream.
type tail struct {
	lastSeq  uint64                  // of the last message, whatever it is; 0 when there never was one
	lastMsg  *jetstream.RawStreamMsg // nil when there is none
	firstSeq uint64                  // first message of the last whole batch, 0 if there is none
	batchEnd *jetstream.RawStreamMsg // last message of the last whole batch, nil if there is none
}

// lastMessage reads the last message from the stream's leader. A stream without messages yields nil and its last
// sequence.
func (l *Lane) lastMessage(ctx context.Context) (*jetstream.RawStreamMsg, uint64, error) {
	ctx, cancel := bounded(ctx)
	defer cancel()
	for {
		msg, err := l.stream.GetLastMsgForSubject(ctx, l.subject)
		if err == nil {
			return msg, msg.Sequence, nil
		}
		if !errors.Is(err, jetstream.ErrMsgNotFound) {
			return nil, 0, fmt.Errorf("read the last message of lane %q: %w", l.name, err)
		}
		info, err := l.stream.Info(ctx)
		if err != nil {
			return nil, 0, fmt.Errorf("state of the stream of lane %q: %w", l.name, err)
		}
		if info.State.Msgs == 0 {
			return nil, info.State.LastSeq, nil
		}
	}
}

// tail reads back from the end to the last whole batch. Parts of an unfinished batch behind it are passed over.
func (l *Lane) tail(ctx context.Context) (tail, error) {
	msg, lastSeq, err := l.lastMessage(ctx)
	t := tail{lastSeq: lastSeq, lastMsg: msg}
	for err == nil && msg != nil {
		var p part
		if p, err = parsePart(msg.Data); err != nil {
			return t, l.corruptAt(msg.Sequence, err)
		}
		before := msg.Sequence - min(uint64(p.k), msg.Sequence)
		if p.k == p.n {
			t.firstSeq, t.batchEnd = before+1, msg
			return t, nil
		}
		if before == 0 {
			return t, nil
		}
		msg, err = l.messageAt(ctx, before)
	}
	return t, err
}

// messageAt reads one message from the leader; nil if it isn't there.
func (l *Lane) messageAt(ctx context.Context, seq uint64) (*jetstream.RawStreamMsg, error) {
	ctx, cancel := bounded(ctx)
	defer cancel()
	msg, err := l.stream.GetMsg(ctx, seq)
	if errors.Is(err, jetstream.ErrMsgNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read message %d of lane %q: %w", seq, l.name, err)
	}
	return msg, nil
}

// header reads the header of the last whole batch.
func (l *Lane) header(ctx context.Context, t tail) (afterimage.BatchHeader, error) {
	var g gatherer
	last := t.batchEnd
	for seq := t.firstSeq; ; seq++ {
		msg := last
		if seq < last.Sequence {
			var err error
			if msg, err = l.messageAt(ctx, seq); err != nil {
				return afterimage.BatchHeader{}, err
			}
			if msg == nil {
				return afterimage.BatchHeader{}, l.corruptAt(seq, corrupt("a part of the batch that ends at %d is missing", last.Sequence))
			}
		}
		whole, err := g.add(msg.Data, seq)
		if err != nil {
			return afterimage.BatchHeader{}, l.corruptAt(seq, err)
		}
		if seq < last.Sequence {
			continue
		}
		h, err := decodeHeader(whole)
		if err != nil {
			return h, l.corruptAt(seq, err)
		}
		return h, nil
	}
}

func (l *Lane) corruptAt(seq uint64, err error) error {
	return fmt.Errorf("%w: message %d of lane %q: %w", afterimage.ErrHalt, seq, l.name, err)
}

// Trim removes the messages up to seq, which must be the last message of a batch that a committed manifest covers. The
// last whole batch and what follows it always stay.
func (l *Lane) Trim(ctx context.Context, seq uint64) error {
	t, err := l.tail(ctx)
	if err != nil {
		return err
	}
	if t.batchEnd == nil {
		return nil
	}
	ctx, cancel := bounded(ctx)
	defer cancel()
	if keep := min(seq+1, t.firstSeq); keep > 1 {
		if err := l.stream.Purge(ctx, jetstream.WithPurgeSequence(keep)); err != nil {
			return fmt.Errorf("trim lane %q to message %d: %w", l.name, keep, err)
		}
	}
	return l.observe(ctx)
}

// observe updates the gauge of the stream's size.
func (l *Lane) observe(ctx context.Context) error {
	info, err := l.stream.Info(ctx)
	if err != nil {
		return fmt.Errorf("state of the stream of lane %q: %w", l.name, err)
	}
	l.metrics.stored.Set(float64(info.State.Bytes))
	return nil
}
