package chaos

import (
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	"github.com/afterimagedb/afterimage/e2e/wire"
)

// Ack is a ledger document that the server acknowledged with majority.
type Ack struct {
	ID int64
	At wire.TS // operation time of the acknowledgement
}

type ledger struct {
	mu    sync.Mutex
	acked []Ack
	next  int64
}

// Acked lists what was acknowledged so far, in order.
func (c *Chaos) Acked() []Ack {
	c.ledger.mu.Lock()
	defer c.ledger.mu.Unlock()
	return slices.Clone(c.ledger.acked)
}

// acks writes the ledger: one document after another, each repeated under its number until there is an answer.
func (w *worker) acks(ctx context.Context) error {
	defer w.cl.Close()
	for ctx.Err() == nil {
		w.docs.RLock()
		w.ledger.mu.Lock()
		w.ledger.next++
		id := w.ledger.next
		w.ledger.mu.Unlock()
		at, ok := w.ack(ctx, id)
		w.docs.RUnlock()
		if ok {
			w.ledger.mu.Lock()
			w.ledger.acked = append(w.ledger.acked, Ack{id, at})
			w.ledger.mu.Unlock()
		}
		wait(ctx, time.Duration(w.o.LedgerMS)*time.Millisecond)
	}
	return nil
}

func (w *worker) ack(ctx context.Context, id int64) (wire.TS, bool) {
	w.txn++
	cmd := wire.D("insert", "acks", "documents", wire.Docs(wire.D("_id", id, "by", int64(w.o.Seed), "pad", w.gen.text(60))),
		"lsid", w.id, "txnNumber", w.txn, "writeConcern", wire.D("w", "majority", "wtimeout", 5000))
	for ctx.Err() == nil {
		try, cancel := context.WithTimeout(ctx, 10*time.Second)
		reply, err := w.cl.Run(try, "ledger", cmd)
		cancel()
		if err == nil {
			return wire.OperationTime(reply), true
		}
		var refused *wire.Error
		if errors.As(err, &refused) && refused.Code == 11000 && !refused.Concern {
			return wire.TS{}, false // an earlier try of ours, not acknowledged in its own words
		}
		wait(ctx, 50*time.Millisecond)
	}
	return wire.TS{}, false
}
