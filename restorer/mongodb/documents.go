package mongodb

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"

	"go.mongodb.org/mongo-driver/bson"

	"github.com/afterimagedb/afterimage"
	"github.com/afterimagedb/afterimage/dialect"
	"github.com/afterimagedb/afterimage/dialect/mongodb"
	"github.com/afterimagedb/afterimage/restorer"
)

// Documents names the documents of one collection that are to be put back as they were at T. Those that did not exist
// at T are deleted. Others of the collection are left alone.
type Documents struct {
	Namespace string // at T
	IDs       []ID
}

// wanted is one chosen document: as it was at T, and as it is in the target.
type wanted struct {
	id          bson.RawValue
	then, there []byte // nil when there is none
}

const (
	actionNone    = "none"
	actionInsert  = "insert"
	actionReplace = "replace"
	actionDelete  = "delete"
)

func (w *wanted) action() string {
	switch {
	case bytes.Equal(w.then, w.there):
		return actionNone
	case w.there == nil:
		return actionInsert
	case w.then == nil:
		return actionDelete
	}
	return actionReplace
}

// documents restores chosen documents: it looks at all of them on both sides before it writes the first.
func (r *run) documents(ctx context.Context) (err error) {
	if r.journal, err = openJournal(Options{}, ""); err != nil {
		return err
	}
	p, err := r.planDocuments(ctx)
	if err != nil {
		return err
	}
	list, err := r.lookBoth(ctx, p)
	if err != nil {
		return err
	}
	if err := r.listChanges(p, list); err != nil || r.opts.DryRun {
		return err
	}
	rep := p.report()
	rep.Indexes = 0
	l := &loader{run: r, table: p, rep: &rep}
	r.progress.TablesTotal = 1
	if !p.exists {
		if err := r.create(ctx, p); err != nil {
			return fmt.Errorf("restore %s: %w", p.shown, err)
		}
		r.holdCollection(p)
		if err := r.indexes(ctx, p, &rep); err != nil {
			return fmt.Errorf("restore %s: indexes: %w", p.shown, err)
		}
	}
	rep.Replaces, rep.Verified = false, true
	for i := range list {
		if err := l.putBack(ctx, &list[i]); err != nil {
			return fmt.Errorf("restore %s: document %s: %w", p.shown, idOf(&list[i]), err)
		}
	}
	r.step(func(g *restorer.Progress) { g.Namespace, g.Phase, g.Tables = p.shown, "done", 1 })
	r.add(rep)
	return r.verdict()
}

func (r *run) planDocuments(ctx context.Context) (*plannedTable, error) {
	tables, err := r.opts.Source.Tables(ctx)
	if err != nil {
		return nil, fmt.Errorf("read the catalog at %s: %w", r.opts.At, err)
	}
	db, name := splitNamespace(r.opts.Only.Namespace)
	for _, t := range tables {
		if t.Namespace == db+"."+bucketPrefix+name {
			return nil, afterimage.Usagef("%s is a time-series: its measurements have no _id of their own; restore it as a whole, "+
				"under another name if it exists", r.opts.Only.Namespace)
		}
	}
	for _, t := range tables {
		if t.Namespace != r.opts.Only.Namespace || internal(t.Namespace) {
			continue
		}
		plan := &plan{}
		if err := r.planTable(plan, t); err != nil {
			return nil, err
		}
		if len(plan.tables) == 0 {
			return nil, afterimage.Usagef("%s is excluded", t.Namespace)
		}
		p := plan.tables[0]
		there, err := r.target.collections(ctx, p.db, p.name)
		if err != nil {
			return nil, err
		}
		now, ok := there[p.name]
		if p.exists = ok; ok && now.typ != "collection" {
			return nil, afterimage.Usagef("%s is a %s in the target: its documents can't be put back one by one", p.shown, now.typ)
		}
		return p, nil
	}
	return nil, afterimage.Usagef("%s was no collection at %s", r.opts.Only.Namespace, r.opts.At)
}

// lookBoth reads the chosen documents from the source and the target.
func (r *run) lookBoth(ctx context.Context, p *plannedTable) ([]wanted, error) {
	then, err := r.rowsAt(ctx, p.table)
	if err != nil {
		return nil, err
	}
	var out []wanted
	var masked []byte
	for _, id := range r.opts.Only.IDs {
		w := wanted{}
		for _, v := range id {
			x := wanted{id: v}
			key, err := mongodb.AppendValueKey(nil, byte(v.Type), v.Value)
			if err != nil {
				continue // no value that an _id can have
			}
			if x.then = then[string(key)]; x.then != nil {
				body, err := p.mask.apply(&masked, x.then)
				if err != nil {
					return nil, err
				}
				x.then = slices.Clone(body)
			}
			if x.there, err = r.target.get(ctx, p.db, p.name, byte(v.Type), v.Value); err != nil {
				return nil, err
			}
			if w.then == nil && w.there == nil {
				w = x
			}
		}
		out = append(out, w)
	}
	return out, nil
}

// rowsAt returns the chosen rows of the source by key: one by one where it can, else by reading the table.
func (r *run) rowsAt(ctx context.Context, t dialect.Table) (map[string][]byte, error) {
	out := map[string][]byte{}
	for _, id := range r.opts.Only.IDs {
		for _, v := range id {
			if key, err := mongodb.AppendValueKey(nil, byte(v.Type), v.Value); err == nil {
				out[string(key)] = nil
			}
		}
	}
	if point, ok := r.opts.Source.(restorer.PointSource); ok {
		for key := range out {
			row, err := point.Row(ctx, t, []byte(key))
			if err != nil {
				return nil, fmt.Errorf("read %s at %s: %w", t.Namespace, r.opts.At, err)
			}
			out[key] = row
		}
		return out, nil
	}
	rows, err := r.opts.Source.Rows(ctx, t)
	if err != nil {
		return nil, fmt.Errorf("read %s at %s: %w", t.Namespace, r.opts.At, err)
	}
	defer func() { _ = rows.Close() }()
	for rows.Next() {
		if _, ok := out[string(rows.Key())]; ok {
			out[string(rows.Key())] = slices.Clone(rows.Body())
		}
	}
	return out, rows.Err()
}

func idOf(w *wanted) string {
	if w.then != nil {
		return idText(w.then)
	}
	return valueText(byte(w.id.Type), w.id.Value)
}

// listChanges reports what differs, and refuses to change what exists unless the operator said so.
func (r *run) listChanges(p *plannedTable, list []wanted) error {
	var blocked []string
	for i := range list {
		w := &list[i]
		c := restorer.DocumentChange{Namespace: p.shown, ID: idOf(w), Action: w.action()}
		if w.there != nil {
			c.Before = jsonOf(w.there)
		}
		if w.then != nil {
			c.After = jsonOf(w.then)
		}
		if w.then == nil && w.there == nil {
			r.warn(fmt.Sprintf("%s: no document %s at %s, and none in the target", p.shown, idOf(w), r.opts.At))
		}
		r.report.Changes = append(r.report.Changes, c)
		if c.Action == actionReplace || c.Action == actionDelete {
			blocked = append(blocked, c.ID)
		}
	}
	if len(blocked) > 0 && !r.opts.Overwrite {
		return &restorer.ExistsError{Documents: blocked}
	}
	if p.kind == kindCapped && p.exists {
		r.warn(fmt.Sprintf("%s is capped: documents that are inserted again come last in its order", p.shown))
	}
	return nil
}

var errMoved = errors.New("it changed in the target while the restore ran, and was left alone: look at it and run the restore again")

// putBack makes one document what it was, and reads it back.
func (l *loader) putBack(ctx context.Context, w *wanted) error {
	var err error
	switch w.action() {
	case actionNone:
		return nil
	case actionInsert:
		b := new(batch)
		b.begin(insertPrefix(l.table.name, false), 0)
		b.add(w.then)
		err = l.write(ctx, b)
	case actionDelete:
		err = l.remove(ctx, w)
	case actionReplace:
		err = l.replace(ctx, w)
	}
	if errors.Is(err, errMoved) {
		l.fail(fmt.Sprintf("document %s: %v", idOf(w), err))
		return nil
	}
	if err != nil {
		return err
	}
	l.rep.Documents++
	l.rep.Bytes += int64(len(w.then))
	l.run.step(func(g *restorer.Progress) {
		g.Namespace, g.Phase, g.Documents, g.Bytes = l.table.shown, "documents", l.rep.Documents, l.rep.Bytes
	})
	there, err := l.run.target.getMajority(ctx, l.table.db, l.table.name, w.id)
	if err != nil {
		return err
	}
	if !bytes.Equal(there, w.then) && len(l.rep.Failed) == 0 {
		l.rep.Verified = false
		l.mismatch(idOf(w), "differs")
	}
	return nil
}

// guard finds the document as long as it is what was seen before, as far as a command can hold both. (4.4 can't compare
// whole documents: it fails to optimize the expression.)
func (l *loader) guard(w *wanted, room int) bson.Raw {
	filter := newDocument().doc("_id", newDocument().value("$eq", byte(w.id.Type), w.id.Value).end())
	if len(w.there)+room < 15<<20 && l.run.target.major >= 5 {
		same := newDocument().str("0", "$$ROOT").doc("1", newDocument().doc("$literal", w.there).end()).end()
		filter = filter.doc("$expr", newDocument().value("$eq", typeArray, same).end())
	}
	return filter.end()
}

func (l *loader) remove(ctx context.Context, w *wanted) error {
	one := newDocument().doc("q", l.guard(w, 0)).i32("limit", 1).end()
	cmd := newCommand("delete", l.table.name).array("deletes", one).written("majority").end()
	reply, err := l.run.target.run(ctx, l.table.db, cmd)
	if err != nil {
		return err
	}
	if n, _ := reply.Lookup("n").AsInt64OK(); n == 0 {
		return errMoved
	}
	return nil
}

// replace exchanges a document in its place. A pipeline does it at once and says what it made; what it can't write
// exactly (odd names, another type of _id) is deleted and inserted by one oplog entry.
func (l *loader) replace(ctx context.Context, w *wanted) error {
	stage := newDocument().doc("$replaceWith", newDocument().doc("$literal", w.then).end()).end()
	cmd := newCommand("findAndModify", l.table.name).doc("query", l.guard(w, len(w.then))).array("update", stage).
		flag("new", true).flag("bypassDocumentValidation", true).written("majority").end()
	reply, err := l.run.target.run(ctx, l.table.db, cmd)
	switch {
	case err != nil && (transient(err) || ctx.Err() != nil):
		return err
	case err == nil:
		now, ok := reply.Lookup("value").DocumentOK()
		if !ok {
			return errMoved
		}
		if bytes.Equal(now, w.then) {
			return nil
		}
	}
	l.exact(1)
	return l.exchange(ctx, w)
}

// exchange deletes and inserts in one oplog entry, Timestamp(0,0) included.
func (l *loader) exchange(ctx context.Context, w *wanted) error {
	ns := l.table.db + "." + l.table.name
	b := new(batch)
	b.begin(nil, 0)
	b.add(w.then)
	typ, id, err := identity(w.there)
	if err != nil {
		return err
	}
	ops := [][]byte{
		newDocument().str("op", "d").str("ns", ns).doc("o", newDocument().value("_id", typ, id).end()).end(),
		opInsert(ns, b.doc(0)),
	}
	if err := l.run.target.applyOps(ctx, ops...); err != nil {
		return err
	}
	return l.fix(ctx, b)
}
