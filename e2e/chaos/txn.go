package chaos

import (
	"context"
	"errors"
	"strconv"
	"time"

	"go.mongodb.org/mongo-driver/bson"

	"github.com/afterimagedb/afterimage/e2e/wire"
)

var transactionOps = []op{
	{"txn", 20, func(ctx context.Context, w *worker) error { return w.transaction(ctx, w.commit) }},
	{"txn-abort", 6, func(ctx context.Context, w *worker) error { return w.transaction(ctx, w.abort) }},
	{"txn-prepared", 8, func(ctx context.Context, w *worker) error { return w.transaction(ctx, w.prepareCommit) }},
	{"txn-prepared-abort", 4, func(ctx context.Context, w *worker) error { return w.transaction(ctx, w.prepareAbort) }},
	{"txn-chained", 1, func(ctx context.Context, w *worker) error { return w.chained(ctx, w.commit) }},
	{"txn-chained-abort", 1, func(ctx context.Context, w *worker) error { return w.chained(ctx, w.abort) }},
	{"txn-chained-prepared", 1, func(ctx context.Context, w *worker) error { return w.chained(ctx, w.prepareCommit) }},
}

// inTxn runs a command of the open transaction.
func (w *worker) inTxn(ctx context.Context, db string, first bool, cmd wire.Doc) (bson.Raw, error) {
	cmd = wire.With(cmd, "lsid", w.id, "txnNumber", w.txn)
	if first {
		cmd = wire.With(cmd, "startTransaction", true)
	}
	return w.cl.Run(ctx, db, wire.With(cmd, "autocommit", false))
}

type ending func(context.Context) error

// transaction does a few writes in one to three collections and ends.
func (w *worker) transaction(ctx context.Context, end ending) error {
	w.txns.RLock()
	defer w.txns.RUnlock()
	w.txn++
	first := true
	for range 1 + w.r.IntN(4) {
		db, name, _, ok := w.some(plain, clustered)
		if !ok {
			return errNothing
		}
		// a refused operation ends the transaction: use the ones that the server takes
		id := w.gen.number(200 + w.r.IntN(60))
		update := wire.D("update", name, "updates", wire.A(wire.D("q", wire.D("_id", id), "u", wire.D("$set", wire.D("t", w.gen.value(2)), "$inc", wire.D("in", 1)), "upsert", true)))
		cmds := []wire.Doc{
			update, update,
			wire.D("delete", name, "deletes", wire.A(wire.D("q", wire.D("_id", id), "limit", 1))),
			wire.D("insert", name, "documents", wire.A(w.gen.document(wire.Val{Type: 0x07, Data: w.gen.bytes(12)}), wire.D("_id", w.gen.text(12), "pad", w.gen.text(1000)))),
		}
		if _, err := w.inTxn(ctx, db, first, cmds[w.r.IntN(len(cmds))]); err != nil {
			w.giveUp(ctx)
			return err
		}
		first = false
	}
	if w.r.IntN(3) == 0 { // others write in between
		wait(ctx, time.Duration(w.r.IntN(150))*time.Millisecond)
	}
	return end(ctx)
}

// chained writes more than 16 MB, so that the log holds several entries of it.
func (w *worker) chained(ctx context.Context, end ending) error {
	if w.o.NoHuge || !w.chain.TryLock() { // two at once fill the cache of a small server, and it stands still
		return errNothing
	}
	defer w.chain.Unlock()
	w.txns.RLock()
	defer w.txns.RUnlock()
	db, name, ok := w.heavy()
	if !ok {
		return errNothing
	}
	w.txn++
	for i := range 3 {
		id := wire.V("chain" + strconv.Itoa(i))
		q := wire.A(wire.D("q", wire.D("_id", id), "u", wire.D("_id", id, "pad", wire.Bin{Data: make([]byte, 6<<20)}, "n", w.r.IntN(1e6)), "upsert", true))
		if _, err := w.inTxn(ctx, db, i == 0, wire.D("update", name, "updates", q)); err != nil {
			w.giveUp(ctx)
			return err
		}
	}
	return end(ctx)
}

func (w *worker) giveUp(ctx context.Context) {
	_ = w.abort(ctx) // it may be gone already
}

func (w *worker) abort(ctx context.Context) error {
	_, err := w.inTxn(ctx, "admin", false, wire.D("abortTransaction", 1))
	return err
}

func (w *worker) commit(ctx context.Context) error {
	_, err := w.inTxn(ctx, "admin", false, wire.D("commitTransaction", 1, "writeConcern", wire.D("w", "majority")))
	return err
}

// prepare is not ended with the run: a transaction whose prepare was cut off in flight would stay prepared for ever.
func (w *worker) prepare(ctx context.Context) (wire.TS, error) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 40*time.Second)
	defer cancel()
	reply, err := w.inTxn(ctx, "admin", false, wire.D("prepareTransaction", 1, "writeConcern", wire.D("w", "majority")))
	if err != nil {
		w.giveUp(ctx)
		return wire.TS{}, err
	}
	t, i := reply.Lookup("prepareTimestamp").Timestamp()
	return wire.TS{T: t, I: i}, nil
}

// prepareCommit commits at the prepare's time or at a later one, as a coordinator of several shards does.
func (w *worker) prepareCommit(ctx context.Context) error {
	at, err := w.prepare(ctx)
	if err != nil {
		return err
	}
	if w.r.IntN(2) == 0 {
		wait(ctx, time.Duration(w.r.IntN(200))*time.Millisecond)
		// a ping takes no lock: DDL may wait for this transaction, and everybody else for the DDL
		reply, err := w.cl.Run(ctx, "admin", wire.D("ping", 1))
		if err == nil && at.Less(wire.OperationTime(reply)) {
			at = wire.OperationTime(reply)
		}
	}
	return w.insist(ctx, wire.D("commitTransaction", 1, "commitTimestamp", at, "writeConcern", wire.D("w", "majority")))
}

func (w *worker) prepareAbort(ctx context.Context) error {
	if _, err := w.prepare(ctx); err != nil {
		return err
	}
	return w.insist(ctx, wire.D("abortTransaction", 1))
}

// insist ends a prepared transaction whatever happens to this run or to the primary: while it is open, it holds up everybody.
func (w *worker) insist(ctx context.Context, cmd wire.Doc) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 40*time.Second)
	defer cancel()
	for {
		_, err := w.inTxn(ctx, "admin", false, cmd)
		var refused *wire.Error
		if err == nil || ctx.Err() != nil || errors.As(err, &refused) && !refused.NotPrimary() {
			return err
		}
		wait(ctx, 50*time.Millisecond)
	}
}
