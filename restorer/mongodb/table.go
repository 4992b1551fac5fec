package mongodb

import (
	"bytes"
	"context"
	"fmt"
	"strings"
	"time"

	"go.mongodb.org/mongo-driver/bson"

	"github.com/afterimagedb/afterimage"
	"github.com/afterimagedb/afterimage/restorer"
)

// restoreTable brings one table back and reads it back.
func (r *run) restoreTable(ctx context.Context, p *plannedTable) (*restorer.NamespaceReport, error) {
	begin := time.Now()
	j := r.journal.table(p)
	if p.resume && j.done != nil {
		r.step(func(g *restorer.Progress) {
			g.Namespace, g.Phase, g.Tables = p.shown, "done", g.Tables+1
			g.Documents, g.Bytes = g.Documents+j.done.Documents, g.Bytes+j.done.Bytes
		})
		return j.done, nil
	}
	rep := p.report()
	l := &loader{run: r, table: p, rep: &rep, resumeKey: j.key}
	r.step(func(g *restorer.Progress) { g.Namespace, g.Phase = p.shown, "create" })
	if !p.resume {
		if err := r.create(ctx, p); err != nil {
			return nil, fmt.Errorf("restore %s: %w", p.shown, err)
		}
	}
	r.holdCollection(p)
	if err := l.load(ctx); err != nil {
		return &rep, fmt.Errorf("restore %s: %w", p.shown, err)
	}
	if err := r.capSize(ctx, p); err != nil {
		return &rep, fmt.Errorf("restore %s: %w", p.shown, err)
	}
	r.step(func(g *restorer.Progress) { g.Namespace, g.Phase = p.shown, "indexes" })
	if err := r.indexes(ctx, p, &rep); err != nil {
		return &rep, fmt.Errorf("restore %s: indexes: %w", p.shown, err)
	}
	r.step(func(g *restorer.Progress) { g.Namespace, g.Phase = p.shown, "verify" })
	if err := l.verify(ctx); err != nil {
		return &rep, fmt.Errorf("verify %s: %w", p.shown, err)
	}
	rep.Elapsed = time.Since(begin)
	r.step(func(g *restorer.Progress) { g.Namespace, g.Phase, g.Tables = p.shown, "done", g.Tables+1 })
	r.opts.Log.Info("restored", "namespace", p.shown, "documents", rep.Documents, "bytes", rep.Bytes,
		"indexes", rep.Indexes, "verified", rep.Verified, "elapsed", rep.Elapsed)
	if rep.Verified && len(rep.Failed) == 0 {
		return &rep, r.journal.done(p, &rep)
	}
	return &rep, nil
}

// create makes the collection with its options at T, after dropping what the operator said may go.
func (r *run) create(ctx context.Context, p *plannedTable) error {
	there, err := r.target.collections(ctx, p.db, p.name)
	if err != nil {
		return err
	}
	now, ok := there[p.name]
	if ok && !p.exists {
		return afterimage.Usagef("%s appeared in the target while the restore ran: nothing of it was touched", p.shown)
	}
	replaces := now.uuid
	if p.adopted {
		replaces = "" // nobody's but ours
	}
	if err := r.journal.creating(p, replaces); err != nil {
		return err
	}
	if p.exists {
		_, name := splitNamespace(p.shown)
		if err := r.target.drop(ctx, p.db, name); err != nil {
			return err
		}
	}
	if p.kind == kindCapped {
		if err := r.measureCapped(ctx, p); err != nil {
			return err
		}
	}
	if err := r.target.create(ctx, p.db, r.createCommand(p)); err != nil {
		return err
	}
	if there, err = r.target.collections(ctx, p.db, p.name); err != nil {
		return err
	}
	made, ok := there[p.name]
	if !ok {
		return fmt.Errorf("the collection vanished just after it was created")
	}
	if p.kind == kindTimeseries {
		if err := r.dropOwnIndexes(ctx, p); err != nil {
			return err
		}
	}
	return r.journal.created(p, made.uuid)
}

func (t *target) drop(ctx context.Context, db, name string) error {
	_, err := t.run(ctx, db, newCommand("drop", name).end())
	if err != nil && !hasCode(err, codeNamespaceNotFound) {
		return fmt.Errorf("drop %s.%s: %w", db, name, err)
	}
	return nil
}

// create sends a create command. Options that it refuses and the catalog holds all the same go in as an oplog entry.
func (t *target) create(ctx context.Context, db string, cmd bson.Raw) error {
	_, err := t.run(ctx, db, durable(cmd))
	if err == nil || !hasCode(err, codeInvalidOptions, codeBadValue, codeUnknownField, codeCappedClustered) {
		return wrap("create", err)
	}
	if second := t.applyOps(ctx, opCommand(db, cmd)); second != nil {
		return fmt.Errorf("create: %w (and as an oplog entry: %w)", err, second)
	}
	return nil
}

// durable adds a majority write concern: a collection that is rolled back comes again with the next insert, without its
// options.
func durable(cmd bson.Raw) bson.Raw {
	return append(newDocument(), elements(cmd)...).written("majority").end()
}

func wrap(what string, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%s: %w", what, err)
}

// createCommand builds {create: name, options...}. A time-series is created by its logical name, which makes its buckets
// and its view.
func (r *run) createCommand(p *plannedTable) bson.Raw {
	name := strings.TrimPrefix(p.name, bucketPrefix)
	if p.kind != kindTimeseries {
		name = p.name
	}
	cmd := newCommand("create", name)
	_ = walk(p.options, func(e element) bool {
		field := string(e.name)
		switch {
		case field == "uuid", field == "create", field == "idIndex", field == "autoIndexId":
		case p.kind == kindTimeseries && (field == "validator" || field == "clusteredIndex"):
		case field == "expireAfterSeconds" && r.opts.TTL == TTLHold: // see holdCollection
		case field == "size" && p.kind == kindCapped && p.roomBytes > 0:
			cmd = cmd.i64(field, p.roomBytes)
		case field == "max" && p.kind == kindCapped && p.roomDocs > 0:
			cmd = cmd.i64(field, p.roomDocs)
		default:
			cmd = append(cmd, p.options[e.at:e.end]...)
		}
		return true
	})
	if p.idIndex != nil {
		cmd = cmd.doc("idIndex", without(p.idIndex, "ns"))
	}
	return cmd.end()
}

// holdCollection records the time to live that a clustered collection or a time-series had: a held one has none, as
// servers refuse numbers that reach back before 1970. (An index can't become a TTL index on older servers, so it gets
// holdSeconds.)
func (r *run) holdCollection(p *plannedTable) {
	e, ok := lookup(p.options, "expireAfterSeconds")
	if !ok || r.opts.TTL != TTLHold {
		return
	}
	_, name := splitNamespace(p.shown)
	original := seconds(p.options, e)
	r.held(restorer.HeldTTL{
		Namespace: p.shown, Original: original,
		Command: fmt.Sprintf("db.getSiblingDB(%q).runCommand({collMod: %q, expireAfterSeconds: %s})", p.db, name, original),
	})
}

// seconds prints a time to live as it is written in a shell.
func seconds(doc []byte, e element) string {
	v := bson.RawValue{Type: e.btype(), Value: doc[e.value:e.end]}
	if n, ok := v.AsInt64OK(); ok {
		return fmt.Sprint(n)
	}
	return v.String()
}

// measureCapped finds whether the rows at T exceed the collection's limits: after collMod made them smaller, or an
// update made a document larger, they may until the next insert. Such a collection is made larger first.
func (r *run) measureCapped(ctx context.Context, p *plannedTable) error {
	rows, err := r.opts.Source.Rows(ctx, p.table)
	if err != nil {
		return fmt.Errorf("read the source: %w", err)
	}
	defer func() { _ = rows.Close() }()
	var size, count int64
	for rows.Next() {
		size += int64(len(rows.Body()))
		count++
	}
	if e, ok := lookup(p.options, "size"); ok && float64(size) > number(p.options, e) {
		p.roomBytes = size + size/8 + 4096
	}
	if e, ok := lookup(p.options, "max"); ok && number(p.options, e) > 0 && float64(count) > number(p.options, e) {
		p.roomDocs = count
	}
	return rows.Err()
}

// capSize gives a capped collection that was made larger its limits of T.
func (r *run) capSize(ctx context.Context, p *plannedTable) error {
	if p.kind != kindCapped {
		return nil
	}
	there, err := r.target.collections(ctx, p.db, p.name)
	if err != nil {
		return err
	}
	cmd, changes := newCommand("collMod", p.name), false
	for _, f := range []struct{ option, mod string }{{"size", "cappedSize"}, {"max", "cappedMax"}} {
		want, ok := lookup(p.options, f.option)
		now, okNow := lookup(there[p.name].options, f.option)
		if ok && okNow && number(p.options, want) != number(there[p.name].options, now) {
			cmd, changes = cmd.i64(f.mod, int64(number(p.options, want))), true
		}
	}
	if !changes {
		return nil
	}
	_, err = r.target.run(ctx, p.db, cmd.end())
	if hasCode(err, codeInvalidOptions, codeUnknownField) {
		r.warn(fmt.Sprintf("%s: its documents at T exceed its limits, and this server can't set the limits back afterwards: it stays larger than at the source", p.shown))
		return nil
	}
	return wrap("capped size", err)
}

// empty reports whether a collection of the target has no document.
func (t *target) empty(ctx context.Context, db, name string) (bool, error) {
	reply, err := t.run(ctx, db, newCommand("find", name).i32("limit", 1).flag("singleBatch", true).end())
	if err != nil {
		return false, fmt.Errorf("look into %s.%s: %w", db, name, err)
	}
	batch, ok := reply.Lookup("cursor", "firstBatch").ArrayOK()
	return ok && bytes.Equal(batch, newDocument().end()), nil
}
