package chaos

import (
	"context"
	"math"
	"strconv"
	"time"

	"go.mongodb.org/mongo-driver/bson"

	"github.com/afterimagedb/afterimage/e2e/wire"
)

var documentOps = []op{
	{"insert", 12, func(ctx context.Context, w *worker) error { return w.insert(ctx) }},
	{"update", 40, func(ctx context.Context, w *worker) error { return w.update(ctx) }},
	{"update-many", 4, updateMany},
	{"update-bulk", 8, updateBulk},
	{"update-retried", 5, updateRetried},
	{"findAndModify", 10, findAndModify},
	{"delete", 10, func(ctx context.Context, w *worker) error { return w.remove(ctx) }},
	{"delete-many", 1, deleteMany},
	{"delete-then-insert", 4, deleteThenInsert},
	{"capped-insert", 8, cappedInsert},
	{"capped-update", 4, cappedUpdate},
	{"series-insert", 6, seriesInsert},
	{"series-delete", 1, seriesDelete},
	{"applyOps", 3, applyOps},
	{"large", 1, large},
	{"no-op", 1, func(ctx context.Context, w *worker) error {
		_, err := w.cl.Run(ctx, "admin", wire.D("appendOplogNote", 1, "data", wire.D("by", "chaos")))
		return err
	}},
}

type element struct {
	name  string
	value wire.Val
}

func elementsOf(d wire.Doc) []element {
	elems, err := bson.Raw(d).Elements()
	if err != nil {
		panic(err) // made here
	}
	out := make([]element, len(elems))
	for i, e := range elems {
		out[i] = element{e.Key(), wire.V(e.Value())}
	}
	return out
}

// write runs a write command, sometimes with majority.
func (w *worker) write(ctx context.Context, db string, cmd wire.Doc) (bson.Raw, error) {
	if w.r.IntN(3) == 0 {
		cmd = wire.With(cmd, "writeConcern", wire.D("w", "majority"))
	}
	return w.cl.Run(ctx, db, cmd)
}

func (w *worker) insert(ctx context.Context) error {
	db, name, k, ok := w.some(plain, clustered)
	if !ok {
		return errNothing
	}
	var docs []wire.Doc
	for range 1 + w.r.IntN(8) {
		docs = append(docs, w.gen.document(w.newID(k)))
	}
	if w.r.IntN(10) == 0 { // the server makes the _id
		docs = append(docs, wire.D("n", 1, "noid", w.gen.value(2)))
	}
	_, err := w.write(ctx, db, wire.D("insert", name, "documents", wire.Docs(docs...), "ordered", w.r.IntN(2) == 0))
	return err
}

func (w *worker) newID(k kind) wire.Val {
	if k == clustered && w.r.IntN(2) == 0 {
		return w.gen.number(w.r.IntN(300))
	}
	return w.gen.id()
}

func (w *worker) filter(more ...any) wire.Doc {
	switch w.r.IntN(8) {
	case 0:
		return wire.D(append([]any{"n", wire.D("$gt", w.r.IntN(60))}, more...)...)
	case 1:
		return wire.D(append([]any{"s.x", 1}, more...)...)
	}
	return wire.D(append([]any{"_id", w.gen.number(w.r.IntN(120))}, more...)...)
}

// one is an update statement.
func (w *worker) one() wire.Doc {
	c := w.gen.change()
	s := wire.D("q", w.filter(c.query...), "u", c.u, "upsert", w.r.IntN(3) == 0)
	if c.filters != nil {
		s = wire.With(s, "arrayFilters", c.filters)
	}
	return s
}

func (w *worker) update(ctx context.Context) error {
	db, name, _, ok := w.some(plain, clustered)
	if !ok {
		return errNothing
	}
	_, err := w.write(ctx, db, wire.D("update", name, "updates", wire.A(w.one())))
	return err
}

func updateMany(ctx context.Context, w *worker) error {
	db, name, _, ok := w.some(plain, clustered)
	if !ok {
		return errNothing
	}
	c := w.gen.change()
	s := wire.D("q", wire.D("n", wire.D("$lt", w.r.IntN(20))), "u", c.u, "multi", true)
	if c.filters != nil {
		s = wire.With(s, "arrayFilters", c.filters)
	}
	_, err := w.write(ctx, db, wire.D("update", name, "updates", wire.A(s)))
	return err
}

func updateBulk(ctx context.Context, w *worker) error {
	db, name, _, ok := w.some(plain, clustered)
	if !ok {
		return errNothing
	}
	var all []wire.Doc
	for range 2 + w.r.IntN(12) {
		all = append(all, w.one())
	}
	_, err := w.write(ctx, db, wire.D("update", name, "updates", wire.Docs(all...), "ordered", false))
	return err
}

// updateRetried sends the same command twice under one transaction number: the second changes nothing.
func updateRetried(ctx context.Context, w *worker) error {
	db, name, _, ok := w.some(plain, clustered)
	if !ok {
		return errNothing
	}
	w.txn++
	id := w.gen.number(w.r.IntN(120))
	cmd := wire.D("update", name, "updates", wire.A(wire.D("q", wire.D("_id", id), "u", wire.D("$inc", wire.D("retried", 1)), "upsert", true)), "lsid", w.id, "txnNumber", w.txn)
	switch w.r.IntN(3) {
	case 0: // needs an image of the document after it
		cmd = wire.D("findAndModify", name, "query", wire.D("_id", id), "update", wire.D("$inc", wire.D("retried", 1)), "new", true, "lsid", w.id, "txnNumber", w.txn)
	case 1: // and before it
		cmd = wire.D("findAndModify", name, "query", wire.D("_id", id), "remove", true, "lsid", w.id, "txnNumber", w.txn)
	}
	if _, err := w.cl.Run(ctx, db, cmd); err != nil {
		return err
	}
	_, err := w.cl.Run(ctx, db, cmd)
	return err
}

func findAndModify(ctx context.Context, w *worker) error {
	db, name, _, ok := w.some(plain, clustered)
	if !ok {
		return errNothing
	}
	c := w.gen.change()
	cmd := wire.D("findAndModify", name, "query", w.filter(c.query...), "sort", wire.D("n", -1))
	switch w.r.IntN(4) {
	case 0:
		cmd = wire.With(cmd, "remove", true)
	default:
		cmd = wire.With(cmd, "update", c.u, "upsert", w.r.IntN(3) == 0, "new", w.r.IntN(2) == 0)
		if c.filters != nil {
			cmd = wire.With(cmd, "arrayFilters", c.filters)
		}
	}
	_, err := w.write(ctx, db, cmd)
	return err
}

func (w *worker) remove(ctx context.Context) error {
	db, name, _, ok := w.some(plain, clustered)
	if !ok {
		return errNothing
	}
	var all []wire.Doc
	for range 1 + w.r.IntN(4) {
		all = append(all, wire.D("q", w.filter(), "limit", 1))
	}
	_, err := w.write(ctx, db, wire.D("delete", name, "deletes", wire.Docs(all...)))
	return err
}

func deleteMany(ctx context.Context, w *worker) error {
	db, name, _, ok := w.some(plain, clustered)
	if !ok {
		return errNothing
	}
	_, err := w.write(ctx, db, wire.D("delete", name, "deletes", wire.A(wire.D("q", wire.D("n", wire.D("$gt", 30+w.r.IntN(30))), "limit", 0))))
	return err
}

// deleteThenInsert puts a document back under the same key in another type.
func deleteThenInsert(ctx context.Context, w *worker) error {
	db, name, _, ok := w.some(plain, clustered)
	if !ok {
		return errNothing
	}
	n := w.r.IntN(120)
	if _, err := w.cl.Run(ctx, db, wire.D("delete", name, "deletes", wire.A(wire.D("q", wire.D("_id", w.gen.number(n)), "limit", 1)))); err != nil {
		return err
	}
	_, err := w.cl.Run(ctx, db, wire.D("insert", name, "documents", wire.A(w.gen.document(w.gen.number(n)))))
	return err
}

func cappedInsert(ctx context.Context, w *worker) error {
	db, name, _, ok := w.some(capped)
	if !ok {
		return errNothing
	}
	var docs []wire.Doc
	for range 1 + w.r.IntN(10) {
		docs = append(docs, wire.D("_id", w.gen.number(w.r.IntN(5000)), "n", w.r.IntN(100), "v", w.gen.text(1+w.r.IntN(200)), "odd", w.gen.scalar()))
	}
	_, err := w.write(ctx, db, wire.D("insert", name, "documents", wire.Docs(docs...), "ordered", w.r.IntN(2) == 0))
	return err
}

func cappedUpdate(ctx context.Context, w *worker) error {
	db, name, _, ok := w.some(capped)
	if !ok {
		return errNothing
	}
	u := wire.D("$inc", wire.D("n", 1)) // as large as before
	if w.from5() && w.r.IntN(2) == 0 {
		u = wire.D("$set", wire.D("v", w.gen.text(w.r.IntN(20))))
	}
	_, err := w.write(ctx, db, wire.D("update", name, "updates", wire.A(wire.D("q", wire.D("n", wire.D("$gt", w.r.IntN(100))), "u", u, "multi", w.r.IntN(3) == 0))))
	return err
}

func seriesInsert(ctx context.Context, w *worker) error {
	db, name, _, ok := w.some(series)
	if !ok {
		return errNothing
	}
	var docs []wire.Doc
	for range 1 + w.r.IntN(20) {
		docs = append(docs, wire.D("t", time.Now().Add(-time.Duration(w.r.IntN(7200))*time.Second), "m", wire.D("dev", w.r.IntN(5)), "v", w.r.Float64(), "odd", w.gen.scalar()))
	}
	_, err := w.write(ctx, db, wire.D("insert", name, "documents", wire.Docs(docs...), "ordered", w.r.IntN(2) == 0))
	return err
}

func seriesDelete(ctx context.Context, w *worker) error {
	db, name, _, ok := w.some(series)
	if !ok {
		return errNothing
	}
	_, err := w.write(ctx, db, wire.D("delete", name, "deletes", wire.A(wire.D("q", wire.D("m.dev", w.r.IntN(5)), "limit", 0))))
	return err
}

// applyOps is a user's own: one entry of several operations, by _ids far from the others so that it is not refused.
func applyOps(ctx context.Context, w *worker) error {
	db, name, _, ok := w.some(plain)
	if !ok {
		return errNothing
	}
	ns, id := db+"."+name, strconv.Itoa(w.r.IntN(20))
	set := wire.D("$set", wire.D("v", w.r.IntN(99)))
	if w.from5() {
		set = wire.D("$v", 2, "diff", wire.D("u", wire.D("v", w.r.IntN(99)), "i", wire.D("a.b", w.gen.scalar())))
	}
	// Odd values one level down: a top-level Timestamp(0,0) of an applyOps insert becomes what no log tells.
	ops := []any{
		wire.D("op", "i", "ns", ns, "o", wire.D("_id", id, "v", 1, "odd", wire.D("v", w.gen.value(2)))),
		wire.D("op", "u", "ns", ns, "o2", wire.D("_id", id), "o", set),
	}
	if w.r.IntN(3) == 0 {
		ops = append(ops, wire.D("op", "d", "ns", ns, "o", wire.D("_id", id)))
	}
	w.txns.Lock()
	defer w.txns.Unlock()
	_, err := w.cl.Run(ctx, "admin", wire.D("applyOps", wire.A(ops...)))
	return err
}

// heavy is the collection for what is large, so that not all of them become so.
func (w *worker) heavy() (db, name string, ok bool) {
	w.mu.Lock()
	k, there := w.colls["shop.c0"]
	w.mu.Unlock()
	if there && k == plain {
		return "shop", "c0", true
	}
	db, name, _, ok = w.some(plain)
	return db, name, ok && w.r.IntN(4) == 0
}

// large writes a document of a megabyte or two; thrice in a run, one of the greatest size.
func large(ctx context.Context, w *worker) error {
	if w.o.NoHuge {
		return errNothing
	}
	const most = 16 << 20
	size := 1<<20 + w.r.IntN(1<<20)
	w.mu.Lock()
	if w.huge < 3 && w.r.IntN(4) == 0 {
		w.huge++
		size = most - w.r.IntN(2)
	}
	w.mu.Unlock()
	db, name, ok := w.heavy()
	if !ok {
		return errNothing
	}
	id := wire.V("large" + strconv.Itoa(w.r.IntN(3)))
	if _, err := w.cl.Run(ctx, db, wire.D("delete", name, "deletes", wire.A(wire.D("q", wire.D("_id", id), "limit", 1)))); err != nil {
		return err
	}
	if _, err := w.cl.RunSeq(ctx, db, wire.D("insert", name), "documents", w.gen.sized(id, size)); err != nil {
		return err
	}
	_, err := w.cl.Run(ctx, db, wire.D("update", name, "updates", wire.A(wire.D("q", wire.D("_id", id), "u", wire.D("$set", wire.D("n", int64(math.MaxInt64)))))))
	return err
}
