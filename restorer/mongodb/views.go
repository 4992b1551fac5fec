package mongodb

import (
	"bytes"
	"context"
	"fmt"

	"go.mongodb.org/mongo-driver/bson"

	"github.com/afterimagedb/afterimage/restorer"
)

// views creates the views, after all collections.
func (r *run) views(ctx context.Context) error {
	for _, v := range r.plan.views {
		rep := v.report()
		if err := r.view(ctx, v, &rep); err != nil {
			return fmt.Errorf("view %s: %w", rep.Target, err)
		}
		r.add(rep)
		if err := r.journal.view(rep.Target); err != nil {
			return err
		}
		r.step(func(g *restorer.Progress) { g.Namespace, g.Phase, g.Tables = rep.Target, "done", g.Tables+1 })
	}
	return nil
}

// view creates one and checks its row of system.views. A definition that create refuses, or changes, goes in as an oplog
// entry.
func (r *run) view(ctx context.Context, v *plannedView, rep *restorer.NamespaceReport) error {
	if v.exists {
		if err := r.target.drop(ctx, v.db, v.name); err != nil {
			return err
		}
	}
	cmd := newCommand("create", v.name)
	cmd = append(cmd, elements(without(v.row, "_id"))...)
	_, refused := r.target.run(ctx, v.db, durable(cmd.end()))
	if ctx.Err() != nil || refused != nil && transient(refused) {
		return refused
	}
	same, err := r.sameView(ctx, v)
	if err != nil {
		return err
	}
	if !same {
		if err := r.viewRow(ctx, v); err != nil {
			rep.Failed = append(rep.Failed, viewProblem(refused, err))
			return nil
		}
		rep.Exact++
		if same, err = r.sameView(ctx, v); err != nil {
			return err
		}
	}
	if rep.Verified = same; !same {
		rep.Failed = append(rep.Failed, "its definition reads back differently")
	}
	return nil
}

func viewProblem(refused, err error) string {
	if refused != nil {
		return fmt.Sprintf("the server refuses its definition: %v (and as an oplog entry: %v)", refused, err)
	}
	return fmt.Sprintf("the server changed its definition, and refuses it as an oplog entry: %v", err)
}

func (r *run) sameView(ctx context.Context, v *plannedView) (bool, error) {
	id, _ := lookup(v.row, "_id")
	there, err := r.target.get(ctx, v.db, "system.views", id.typ, v.row[id.value:id.end])
	return bytes.Equal(there, v.row), err
}

func (r *run) viewRow(ctx context.Context, v *plannedView) error {
	there, err := r.target.collections(ctx, v.db, "system.views")
	if err != nil {
		return err
	}
	if len(there) == 0 {
		if err := r.target.applyOps(ctx, opCommand(v.db, newCommand("create", "system.views").end())); err != nil {
			return err
		}
	}
	return r.target.applyOps(ctx, opInsert(v.db+".system.views", v.row))
}

// elements is the inside of a document.
func elements(doc bson.Raw) []byte { return doc[4 : len(doc)-1] }
