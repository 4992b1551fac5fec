package stream

import (
	"context"
	"fmt"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/afterimagedb/afterimage"
)

// What a reader asks for at a time.
const (
	readAheadMessages = 64
	readAheadBytes    = 16 << 20
	// readHeartbeat is how often a silent server must show that our consumer is still there: one that was started
	// again has lost it, and two missing beats make a new one.
	readHeartbeat = time.Second
)

// Reader reads the batches of a lane in order. Not safe for concurrent use.
type Reader struct {
	lane     *Lane
	messages jetstream.MessagesContext
	gather   gatherer
	dec      Decoder
}

// Read returns a reader of the batches behind message after, or from the first one that is still there. Call
// [Reader.Close] when done.
func (l *Lane) Read(ctx context.Context, after uint64) (*Reader, error) {
	ctx, cancel := bounded(ctx)
	defer cancel()
	consumer, err := l.stream.OrderedConsumer(ctx, jetstream.OrderedConsumerConfig{
		DeliverPolicy: jetstream.DeliverByStartSequencePolicy,
		OptStartSeq:   after + 1,
	})
	if err != nil {
		return nil, fmt.Errorf("read lane %q from message %d: %w", l.name, after+1, err)
	}
	messages, err := consumer.Messages(jetstream.PullMaxMessagesWithBytesLimit(readAheadMessages, readAheadBytes), jetstream.PullHeartbeat(readHeartbeat))
	if err != nil {
		return nil, fmt.Errorf("read lane %q from message %d: %w", l.name, after+1, err)
	}
	return &Reader{lane: l, messages: messages}, nil
}

// Next returns the next whole batch and the sequence of its last message; it waits for one. The batch is valid until
// the next call. Batches that a publisher left unfinished are passed over. An error of [ErrCorrupt] concerns one batch:
// the next call goes on behind it.
func (r *Reader) Next(ctx context.Context) (*afterimage.Batch, uint64, error) {
	for {
		msg, err := r.messages.Next(jetstream.NextContext(ctx))
		if err != nil {
			return nil, 0, fmt.Errorf("read lane %q: %w", r.lane.name, err)
		}
		meta, err := msg.Metadata()
		if err != nil {
			return nil, 0, fmt.Errorf("read lane %q: %w", r.lane.name, err)
		}
		seq := meta.Sequence.Stream
		whole, err := r.gather.add(msg.Data(), seq)
		if err == nil && whole == nil {
			continue
		}
		var b *afterimage.Batch
		if err == nil {
			b, err = r.dec.Decode(whole)
		}
		if err != nil {
			return nil, seq, r.lane.corruptAt(seq, err)
		}
		return b, seq, nil
	}
}

// Close stops reading.
func (r *Reader) Close() { r.messages.Stop() }
