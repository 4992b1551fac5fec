package stream

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"sync"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nuid"

	"github.com/afterimagedb/afterimage"
)

const (
	flightsMax     = 16       // messages in flight to the embedded server; to an external one it is 1
	flightBytesMax = 16 << 20 // bytes in flight; one message may always fly
	ackTimeout     = 10 * time.Second
	// patienceTime is how long a publisher tries to find out what became of a message before it gives up.
	patienceTime = 30 * time.Second
	// keepBufferBytes is the largest buffer that is kept for the next batch.
	keepBufferBytes = 4 << 20
)

// flight is a message on its way.
type flight struct {
	data   []byte
	raw    int    // bytes of the batch before compression, on the last message of a batch; else 0
	ends   bool   // the last message of its batch
	id     string // message id of this attempt
	token  uint64 // reply token of this attempt
	sent   time.Time
	answer answer
}

// publisher sends the messages of one lane, several at a time, each chained to the one before.
type publisher struct {
	lane *Lane
	// chained says that each message names the id of the one before it, so that several may fly. Only the embedded
	// server is asked for this: a replicated stream of nats-server 2.15.2 takes a wrong id for a failed write and
	// stops on all its replicas (seen). Without it the expected sequence fences, and one message flies at a time.
	chained bool

	turn    sync.Mutex // held by the one call of Last, Publish or Flush at a time
	enc     Encoder
	encoded []byte
	ready   bool   // Last was called and nothing broke since
	broken  error  // why not, once something broke
	session string // begins the ids of this session's messages
	base    uint64 // sequence of the message that the first flight goes behind
	linked  string // id of that message, if it has one
	stalls  int    // recoveries since the last progress
	stalled time.Time
	free    [][]byte

	timeout  time.Duration // of an acknowledgement
	patience time.Duration
	server   *server.Server // the embedded server when the session began

	sub    *nats.Subscription
	inbox  string
	notify chan struct{} // an answer came

	mu      sync.Mutex // guards what the answers touch
	tokens  uint64
	flights []*flight
}

func newPublisher(l *Lane) *publisher {
	return &publisher{lane: l, chained: l.bus.server != nil, notify: make(chan struct{}, 1), timeout: ackTimeout, patience: patienceTime}
}

// Last returns the newest whole batch in the stream, as its leader knows it, and begins a new session behind it: what
// was published before and is not acknowledged is forgotten.
func (l *Lane) Last(ctx context.Context) (afterimage.Last, error) {
	p := l.pub
	p.turn.Lock()
	defer p.turn.Unlock()
	p.drop()
	if err := p.subscribe(); err != nil {
		return afterimage.Last{}, err
	}
	if err := l.bus.revive(ctx); err != nil {
		return afterimage.Last{}, err
	}
	if e := l.bus.server; e != nil {
		p.server = e.current()
	}
	t, err := l.tail(ctx)
	if err != nil {
		return afterimage.Last{}, err
	}
	var last afterimage.Last
	if t.batchEnd != nil {
		last.Seq = t.batchEnd.Sequence
		if last.BatchHeader, err = l.header(ctx, t); err != nil {
			return afterimage.Last{}, err
		}
	}
	p.session, p.base, p.linked = nuid.Next(), t.lastSeq, ""
	if t.lastMsg != nil {
		p.linked = t.lastMsg.Header.Get(nats.MsgIdHdr)
	}
	p.ready, p.broken, p.stalls = true, nil, 0
	return last, nil
}

// Publish encodes b, which the caller may use again at once, and sends it behind what was published before. It blocks
// while too much is in flight and while the stream is full. Durable is only what a later [Lane.Flush] confirms.
//
// [afterimage.ErrFenced] means that somebody else published to the lane, so that this batch or one before it was not
// stored. After any error the lane refuses until [Lane.Last] was called: it says what was stored.
func (l *Lane) Publish(ctx context.Context, b *afterimage.Batch) error {
	p := l.pub
	p.turn.Lock()
	defer p.turn.Unlock()
	if p.broken != nil {
		return p.broken
	}
	if !p.ready {
		return fmt.Errorf("publish to lane %q before Last was called: %w", l.name, afterimage.ErrFenced)
	}
	if err := p.publish(ctx, b); err != nil {
		p.fail(err)
		return err
	}
	return nil
}

// Flush waits until everything published is acknowledged. Errors are those of [Lane.Publish].
func (l *Lane) Flush(ctx context.Context) error {
	p := l.pub
	p.turn.Lock()
	defer p.turn.Unlock()
	if p.broken != nil {
		return p.broken
	}
	for {
		if err := p.settle(ctx); err != nil {
			p.fail(err)
			return err
		}
		if len(p.flights) == 0 {
			return nil
		}
		if err := p.wait(ctx); err != nil {
			return err // nothing broke: what flies goes on flying
		}
	}
}

func (p *publisher) publish(ctx context.Context, b *afterimage.Batch) error {
	encoded, err := p.enc.Encode(p.encoded[:0], b)
	if err != nil {
		return err
	}
	raw := len(p.enc.body)
	p.encoded = keep(encoded)
	p.enc.body = keep(p.enc.body)
	limit := p.lane.bus.messageBytesMax()
	n := partCount(encoded, limit)
	if most := p.lane.stream.CachedInfo().Config.MaxBytes; most > 0 && int64(len(encoded)) > most/2 {
		return fmt.Errorf("%w: a batch of %d bytes does not fit in the stream of lane %q, which holds %d: raise the limit to at least twice the batch", afterimage.ErrHalt, len(encoded), p.lane.name, most)
	}
	for k := 1; k <= n; k++ {
		f := &flight{data: appendPart(p.buffer(), encoded, k, n, limit), ends: k == n}
		if f.ends {
			f.raw = raw
		}
		if err := p.room(ctx, len(f.data)); err != nil {
			return err
		}
		p.mu.Lock()
		p.flights = append(p.flights, f)
		p.mu.Unlock()
		p.send(len(p.flights) - 1)
	}
	return nil
}

// room waits until a message of size bytes may fly.
func (p *publisher) room(ctx context.Context, size int) error {
	for {
		if err := p.settle(ctx); err != nil {
			return err
		}
		flying := size
		for _, f := range p.flights {
			flying += len(f.data)
		}
		n := len(p.flights)
		if n == 0 || p.chained && n < flightsMax && flying <= flightBytesMax {
			return p.diskRoom(ctx, flying)
		}
		if err := p.wait(ctx); err != nil {
			return err
		}
	}
}

// send sends flight i. What can't be sent counts as lost.
func (p *publisher) send(i int) {
	f := p.flights[i]
	p.mu.Lock()
	p.tokens++
	f.token, f.sent, f.answer = p.tokens, time.Now(), answer{}
	f.id = p.session + "-" + strconv.FormatUint(f.token, 36)
	reply := p.inbox + strconv.FormatUint(f.token, 10)
	p.mu.Unlock()
	before := p.linked
	if i > 0 {
		before = p.flights[i-1].id
	}
	msg := nats.Msg{Subject: p.lane.subject, Reply: reply, Data: f.data, Header: nats.Header{
		nats.MsgIdHdr:           []string{f.id},
		nats.ExpectedLastSeqHdr: []string{strconv.FormatUint(p.base+uint64(i), 10)},
	}}
	if p.chained && before != "" {
		msg.Header[nats.ExpectedLastMsgIdHdr] = []string{before}
	}
	p.lane.metrics.pending.Set(float64(len(p.flights)))
	if err := p.lane.bus.nc.PublishMsg(&msg); err != nil {
		p.mu.Lock()
		f.answer = answer{kind: answerLost, text: err.Error()}
		p.mu.Unlock()
	}
}

// settle takes what is acknowledged off the front, and deals with a first flight that was refused or got lost.
func (p *publisher) settle(ctx context.Context) error {
	for {
		p.mu.Lock()
		if len(p.flights) == 0 {
			p.mu.Unlock()
			return nil
		}
		f := p.flights[0]
		a := f.answer
		p.mu.Unlock()
		if a.kind == answerNone && time.Since(f.sent) >= p.timeout {
			a = answer{kind: answerLost, text: "no acknowledgement within " + p.timeout.String()}
		}
		switch a.kind {
		case answerNone:
			return nil
		case answerStored:
			if a.seq != p.base+1 {
				return fmt.Errorf("lane %q: message stored at %d, expected %d: the stream was tampered with: %w", p.lane.name, a.seq, p.base+1, afterimage.ErrFenced)
			}
			p.landed(1, f.id)
		default:
			if err := p.recover(ctx, a); err != nil {
				return err
			}
		}
	}
}

// landed takes n flights off the front; id is the message id of the last of them.
func (p *publisher) landed(n int, id string) {
	m := &p.lane.metrics
	for _, f := range p.flights[:n] {
		m.bytes.Add(float64(len(f.data)))
		m.stored.Add(float64(len(f.data)))
		if f.ends {
			m.batches.Inc()
			m.rawBytes.Add(float64(f.raw))
		}
		if len(p.free) < flightsMax && cap(f.data) <= keepBufferBytes {
			p.free = append(p.free, f.data[:0])
		}
	}
	p.base += uint64(n)
	p.linked = id
	p.stalls = 0
	p.mu.Lock()
	p.flights = append(p.flights[:0], p.flights[n:]...)
	p.mu.Unlock()
	m.pending.Set(float64(len(p.flights)))
}

// wait returns when an answer came or the first flight has been out for too long.
func (p *publisher) wait(ctx context.Context) error {
	timer := time.NewTimer(p.timeout - time.Since(p.flights[0].sent))
	defer timer.Stop()
	select {
	case <-p.notify:
	case <-timer.C:
	case <-ctx.Done():
		return fmt.Errorf("lane %q: waiting for %d messages to be stored: %w", p.lane.name, len(p.flights), ctx.Err())
	}
	return nil
}

// fail ends the session.
func (p *publisher) fail(err error) {
	p.drop()
	p.broken = err
	if errors.Is(err, afterimage.ErrFenced) {
		p.lane.metrics.fenced.Inc()
	}
}

// drop forgets what is in flight.
func (p *publisher) drop() {
	p.mu.Lock()
	clear(p.flights)
	p.flights = p.flights[:0]
	p.mu.Unlock()
	p.ready = false
	p.lane.metrics.pending.Set(0)
}

func (p *publisher) buffer() []byte {
	n := len(p.free)
	if n == 0 {
		return nil
	}
	b := p.free[n-1]
	p.free = p.free[:n-1]
	return b
}

// keep returns the buffer for later use, or nil if it is too large to be kept.
func keep(b []byte) []byte {
	if cap(b) > keepBufferBytes {
		return nil
	}
	return b
}
