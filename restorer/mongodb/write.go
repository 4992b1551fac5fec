package mongodb

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strconv"

	"github.com/cenkalti/backoff/v5"
	"go.mongodb.org/mongo-driver/bson"
	"go.mongodb.org/mongo-driver/mongo"
)

// write sends a batch and sees to every document that the server did not take as it is. An error stops the restore; a
// document that can't be restored does not, it goes into the report.
func (l *loader) write(ctx context.Context, b *batch) error {
	failed, err := l.insert(ctx, b.command())
	if err != nil {
		return err
	}
	if l.ordered() {
		err = l.writeRest(ctx, b, failed)
	} else {
		err = l.refusedAll(ctx, b, failed)
	}
	if err != nil {
		return err
	}
	return l.fix(ctx, b)
}

func (l *loader) refusedAll(ctx context.Context, b *batch, failed []mongo.WriteError) error {
	known, err := l.present(ctx, b, failed)
	if err != nil {
		return err
	}
	for _, e := range failed {
		if known[e.Index] {
			continue
		}
		if err := l.refused(ctx, b, e); err != nil {
			return err
		}
	}
	return nil
}

// present finds those of many duplicates that the target holds as they are: a resumed run meets what was in flight when
// the one before ended. It asks for them in one read; the others are looked at one by one.
func (l *loader) present(ctx context.Context, b *batch, failed []mongo.WriteError) (map[int]bool, error) {
	at := map[string]int{}
	ids := newDocument()
	for _, e := range failed {
		typ, id, err := identity(b.doc(e.Index))
		if e.Code == codeDuplicateKey && err == nil && typ != typeRegex { // in $in a regular expression is a pattern
			at[idKey(b.doc(e.Index))] = e.Index
			ids = ids.value(strconv.Itoa(len(at)), typ, id)
		}
	}
	if len(at) < 2 {
		return nil, nil
	}
	filter := newDocument().doc("_id", newDocument().value("$in", typeArray, ids.end()).end()).end()
	cur, err := l.run.target.client.Database(l.table.db).RunCommandCursor(ctx, newCommand("find", l.table.name).doc("filter", filter).end())
	if err != nil {
		return nil, fmt.Errorf("look for duplicates: %w", err)
	}
	same := map[int]bool{}
	return same, drain(ctx, cur, func(there []byte) error {
		if i, ok := at[idKey(there)]; ok {
			same[i] = bytes.Equal(there, b.doc(i)) || bytes.Equal(there, b.original(i))
		}
		return nil
	})
}

// restDocsMax is how many documents are sent at once behind one that failed: many in a row may be there already.
const restDocsMax = 64

// writeRest goes on after an ordered insert, which stops at the first document that fails.
func (l *loader) writeRest(ctx context.Context, b *batch, failed []mongo.WriteError) error {
	prefix := insertPrefix(l.table.name, true)
	next := len(b.spans) // first document that was not sent
	for {
		if len(failed) > 0 {
			if err := l.refusedAll(ctx, b, failed); err != nil {
				return err
			}
			next = failed[len(failed)-1].Index + 1
		}
		if next >= len(b.spans) {
			return nil
		}
		rest, from := new(batch), next
		rest.begin(prefix, 0)
		for ; next < len(b.spans) && next < from+restDocsMax; next++ {
			rest.add(b.doc(next))
		}
		var err error
		if failed, err = l.insert(ctx, rest.command()); err != nil {
			return err
		}
		for i := range failed {
			failed[i].Index += from
		}
	}
}

// insert runs an insert command until the server answered it, and returns what it refused.
func (l *loader) insert(ctx context.Context, cmd bson.Raw) ([]mongo.WriteError, error) {
	r := l.run
	return backoff.Retry(ctx, func() ([]mongo.WriteError, error) {
		_, err := r.target.client.Database(l.table.db).RunCommand(ctx, cmd).Raw()
		var we mongo.WriteException
		switch {
		case err == nil:
			return nil, nil
		case errors.As(err, &we) && len(we.WriteErrors) > 0 && !transient(err):
			return we.WriteErrors, nil
		case transient(err):
			r.opts.Metrics.retries.Inc()
			return nil, err
		}
		return nil, backoff.Permanent(err)
	}, patience()...)
}

// refused sees to one document that an insert did not take.
func (l *loader) refused(ctx context.Context, b *batch, why mongo.WriteError) error {
	p, t, doc := l.table, l.run.target, b.doc(why.Index)
	if why.Code == codeDuplicateKey {
		return l.duplicate(ctx, b, why)
	}
	// The server takes from an oplog entry what it does not take from a client.
	err := t.applyOps(ctx, opInsert(p.db+"."+p.name, doc))
	if err == nil {
		l.exact(1)
		return nil
	}
	if transient(err) || ctx.Err() != nil {
		return err
	}
	l.fail(fmt.Sprintf("document %s: %s", idText(doc), why.Message))
	return nil
}

// duplicate finds out whether the document is there already, which is so after a lost reply or a resumed run.
func (l *loader) duplicate(ctx context.Context, b *batch, why mongo.WriteError) error {
	doc := b.doc(why.Index)
	typ, id, err := identity(doc)
	if err != nil {
		return fmt.Errorf("document of the source: %w", err)
	}
	there, err := l.run.target.get(ctx, l.table.db, l.table.name, typ, id)
	if err != nil {
		return err
	}
	if bytes.Equal(there, doc) || bytes.Equal(there, b.original(why.Index)) {
		return nil
	}
	l.fail(fmt.Sprintf("document %s: the target holds another document in its place, which was left alone (%s)", idText(doc), why.Message))
	return nil
}

func (l *loader) exact(n int64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.rep.Exact += n
	l.run.opts.Metrics.exact.Add(float64(n))
}

// failuresMax bounds what a report says about one table.
const failuresMax = 100

func (l *loader) fail(msg string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.rep.Failed) < failuresMax {
		l.rep.Failed = append(l.rep.Failed, msg)
	}
}

// fix puts the Timestamp(0,0) back that the batch holds placeholders for: a modifier keeps what an insert changes.
// Names that are no paths (with dots, dollars, or empty) need an oplog entry with a diff.
func (l *loader) fix(ctx context.Context, b *batch) error {
	if len(b.fixes) == 0 {
		return nil
	}
	updates, ops := l.fixCommands(b)
	if len(updates) > 0 {
		cmd := newCommand("update", l.table.name).flag("ordered", false).flag("bypassDocumentValidation", true).
			written("w1").array("updates", updates...).end()
		if _, err := l.run.target.run(ctx, l.table.db, cmd); err != nil {
			return fmt.Errorf("put Timestamp(0,0) back: %w", err)
		}
	}
	if len(ops) > 0 {
		if err := l.run.target.applyOps(ctx, ops...); err != nil {
			return fmt.Errorf("put Timestamp(0,0) back: %w", err)
		}
	}
	l.exact(int64(len(b.fixes)))
	return nil
}

func (l *loader) fixCommands(b *batch) (updates, ops [][]byte) {
	zero := make([]byte, 8)
	for _, f := range b.fixes {
		doc := b.doc(f.doc)
		typ, id, err := identity(doc)
		if err != nil || id == nil {
			continue // refused by the server and reported
		}
		set, plain := newDocument(), true
		for _, n := range f.names {
			name := doc[n.from:n.to]
			set = set.value(string(name), typeTimestamp, zero)
			plain = plain && len(name) > 0 && !bytes.ContainsAny(name, ".$")
		}
		update := newDocument().doc("q", byID(typ, id))
		switch {
		case plain:
			update = update.doc("u", newDocument().doc("$set", set.end()).end())
		case l.run.target.major < 5: // knows no diffs, and a pipeline takes the names that it can hold
			literal := newDocument().doc("$literal", b.original(f.doc)).end()
			update = update.array("u", newDocument().doc("$replaceWith", literal).end())
		default:
			diff := newDocument().i32("$v", 2).doc("diff", newDocument().doc("u", set.end()).end()).end()
			ops = append(ops, newDocument().str("op", "u").str("ns", l.table.db+"."+l.table.name).
				doc("o2", newDocument().value("_id", typ, id).end()).doc("o", diff).end())
			continue
		}
		updates = append(updates, update.end())
	}
	return updates, ops
}

func idText(doc []byte) string {
	typ, id, err := identity(doc)
	if err != nil || id == nil {
		return "without _id"
	}
	return valueText(typ, id)
}

func valueText(typ byte, v []byte) string {
	s := jsonOf(newDocument().value("_id", typ, v).end())
	if len(s) > 200 {
		s = s[:200] + "..."
	}
	return s
}
