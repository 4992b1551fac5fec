package stream

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/afterimagedb/afterimage"
)

const (
	retryFirst = 20 * time.Millisecond
	retryMost  = time.Second
	// diskReserveBytes stays free on the disk of the embedded server: a server that can't write stops for good.
	diskReserveBytes = 128 << 20
)

// recover deals with a first flight that was not stored, as far as its answer a tells. What flies behind it can't be
// stored either, so everything is sent again that the stream does not hold.
func (p *publisher) recover(ctx context.Context, a answer) error {
	switch a.kind {
	case answerRefused:
		return fmt.Errorf("%w: the stream of lane %q refused a message: %s", afterimage.ErrHalt, p.lane.name, a.text)
	case answerFull:
		if err := p.waitFull(ctx, a.text); err != nil {
			return err
		}
	default:
		if err := p.reconcile(ctx, a); err != nil {
			return err
		}
	}
	p.stalls++
	p.lane.metrics.retries.Inc()
	for i := range p.flights {
		p.send(i)
	}
	return nil
}

// waitFull waits a moment for room.
func (p *publisher) waitFull(ctx context.Context, why string) error {
	m := &p.lane.metrics
	if p.stalls == 0 {
		m.waiting.Set(1)
		p.lane.log.Warn("the stream is full: waiting until the compactor has made room", "reason", why)
	}
	if err := pause(ctx, p.stalls); err != nil {
		return fmt.Errorf("the stream of lane %q is full (%s): %w", p.lane.name, why, err)
	}
	m.waiting.Set(0)
	return nil
}

// diskRoom waits until the disk of the embedded server takes size bytes more.
func (p *publisher) diskRoom(ctx context.Context, size int) error {
	e := p.lane.bus.server
	if e == nil {
		return nil
	}
	for try := 0; ; try++ {
		free, err := freeBytes(e.dir)
		if err != nil {
			return err
		}
		if free >= diskReserveBytes+int64(size) {
			if try > 0 {
				p.lane.metrics.waiting.Set(0)
			}
			return nil
		}
		if try == 0 {
			p.lane.metrics.waiting.Set(1)
			p.lane.log.Warn("the stream's disk is full: waiting", "dir", e.dir, "free_bytes", free, "reserve_bytes", diskReserveBytes)
		}
		if err := pause(ctx, try); err != nil {
			return fmt.Errorf("the disk of %s has %d bytes left, less than the reserve of %d: %w", e.dir, free, diskReserveBytes, err)
		}
	}
}

// reconcile finds out by the stream's last message which flights are stored: all up to the one that it is, as none can
// be stored except behind the one before it. Anything else there means that we are fenced.
func (p *publisher) reconcile(ctx context.Context, a answer) error {
	if p.stalls == 0 {
		p.stalled = time.Now()
	} else if time.Since(p.stalled) > p.patience {
		return p.giveUp(ctx, a.text)
	} else if err := pause(ctx, p.stalls-1); err != nil {
		return fmt.Errorf("the stream of lane %q does not acknowledge (%s): %w", p.lane.name, a.text, err)
	}
	msg, lastSeq, err := p.lastMessage(ctx)
	if err != nil {
		return err
	}
	if lastSeq == p.base {
		if a.kind == answerRaced && p.linked != "" && (msg == nil || msg.Header.Get(nats.MsgIdHdr) != p.linked) {
			return p.fenced(lastSeq) // a stream that was made anew uses sequences again
		}
		return nil
	}
	i := int64(lastSeq) - int64(p.base) - 1
	if i < 0 || i >= int64(len(p.flights)) || msg == nil {
		return p.fenced(lastSeq)
	}
	id := msg.Header.Get(nats.MsgIdHdr)
	if !strings.HasPrefix(id, p.session+"-") || !bytes.Equal(msg.Data, p.flights[i].data) {
		return p.fenced(lastSeq)
	}
	p.landed(int(i)+1, id)
	return nil
}

func (p *publisher) fenced(lastSeq uint64) error {
	return fmt.Errorf("lane %q: the stream ends at message %d, we were at %d: %w", p.lane.name, lastSeq, p.base, afterimage.ErrFenced)
}

// giveUp starts an embedded server again, as a stream does not store any more once a write failed (no space, an I/O
// error), and returns an error in any case: the caller begins again at Last.
func (p *publisher) giveUp(ctx context.Context, why string) error {
	err := fmt.Errorf("the stream of lane %q does not acknowledge: %s", p.lane.name, why)
	if p.server != nil {
		return errors.Join(err, p.lane.bus.restart(ctx, p.server))
	}
	return err
}

// lastMessage reads the stream's last message and has patience with a server that is away for a moment.
func (p *publisher) lastMessage(ctx context.Context) (*jetstream.RawStreamMsg, uint64, error) {
	began := time.Now()
	for try := 0; ; try++ {
		msg, seq, err := p.tryLastMessage(ctx)
		if err == nil || ctx.Err() != nil || errors.Is(err, jetstream.ErrStreamNotFound) {
			return msg, seq, err
		}
		if time.Since(began) > p.patience || pause(ctx, try) != nil {
			return nil, 0, err
		}
	}
}

func (p *publisher) tryLastMessage(ctx context.Context) (*jetstream.RawStreamMsg, uint64, error) {
	if err := p.lane.bus.revive(ctx); err != nil {
		return nil, 0, err
	}
	ctx, cancel := context.WithTimeout(ctx, p.timeout)
	defer cancel()
	return p.lane.lastMessage(ctx)
}

// pause waits before try n (from 0), longer each time.
func pause(ctx context.Context, n int) error {
	timer := time.NewTimer(min(retryFirst<<min(n, 10), retryMost))
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
