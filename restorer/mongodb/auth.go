package mongodb

import (
	"bytes"
	"context"
	"fmt"
	"slices"

	"go.mongodb.org/mongo-driver/bson"

	"github.com/afterimagedb/afterimage/dialect"
	"github.com/afterimagedb/afterimage/restorer"
)

// planAuth plans users or roles: those at T are written, others in the target are left alone, so that no one who
// restores locks himself out.
func (r *run) planAuth(ctx context.Context, p *plan, t dialect.Table) error {
	if !r.opts.Users {
		return nil
	}
	rows, err := r.opts.Source.Rows(ctx, t)
	if err != nil {
		return fmt.Errorf("read %s: %w", t.Namespace, err)
	}
	defer func() { _ = rows.Close() }()
	a := &plannedAuth{table: t}
	for rows.Next() {
		a.rows = append(a.rows, slices.Clone(rows.Body()))
	}
	if err := rows.Err(); err != nil {
		return fmt.Errorf("read %s: %w", t.Namespace, err)
	}
	if len(a.rows) > 0 {
		p.auth = append(p.auth, a)
	}
	return nil
}

// authClashes finds users and roles that are different in the target; equal ones need not be written.
func (r *run) authClashes(ctx context.Context, p *plan) (clash []string, err error) {
	for _, a := range p.auth {
		db, coll := splitNamespace(a.table.Namespace)
		var missing []bson.Raw
		for _, row := range a.rows {
			typ, id, err := identity(row)
			if err != nil {
				return nil, fmt.Errorf("%s: %w", a.table.Namespace, err)
			}
			there, err := r.target.get(ctx, db, coll, typ, id)
			if err != nil {
				return nil, err
			}
			if bytes.Equal(there, row) {
				continue
			}
			missing = append(missing, row)
			if there != nil {
				a.drop = append(a.drop, there)
				clash = append(clash, a.table.Namespace+" "+valueText(typ, id))
			}
		}
		a.rows = missing
	}
	return clash, nil
}

// auth writes users and roles with a majority, and reads them back.
func (r *run) auth(ctx context.Context) error {
	for _, a := range r.plan.auth {
		rep := a.report()
		if err := r.authRows(ctx, a, &rep); err != nil {
			return fmt.Errorf("restore %s: %w", a.table.Namespace, err)
		}
		r.add(rep)
	}
	if len(r.plan.auth) == 0 {
		return nil
	}
	return r.authSchema(ctx)
}

func (r *run) authRows(ctx context.Context, a *plannedAuth, rep *restorer.NamespaceReport) error {
	_, coll := splitNamespace(a.table.Namespace)
	for _, old := range a.drop {
		typ, id, _ := identity(old)
		one := newDocument().doc("q", byID(typ, id)).i32("limit", 1).end()
		if _, err := r.target.run(ctx, "admin", newCommand("delete", coll).array("deletes", one).written("majority").end()); err != nil {
			return err
		}
	}
	rep.Verified = true
	for _, row := range a.rows {
		cmd := newCommand("insert", coll).array("documents", row).written("majority").end()
		if _, err := r.target.run(ctx, "admin", cmd); err != nil && !hasCode(err, codeDuplicateKey) {
			rep.Failed = append(rep.Failed, fmt.Sprintf("%s: %v", idText(row), err))
			continue
		}
		typ, id, _ := identity(row)
		there, err := r.target.get(ctx, "admin", coll, typ, id)
		if err != nil {
			return err
		}
		rep.Bytes += int64(len(row))
		if !bytes.Equal(there, row) {
			rep.Verified = false
			rep.Mismatch = append(rep.Mismatch, restorer.Mismatch{ID: valueText(typ, id), Problem: "differs"})
		}
	}
	return nil
}

// authSchema writes the version of the users' form, which createUser would have written: without it a server that is
// started again refuses the users.
func (r *run) authSchema(ctx context.Context) error {
	doc := newDocument().str("_id", "authSchema").i32("currentVersion", 5).end()
	cmd := newCommand("insert", "system.version").array("documents", doc).written("majority").end()
	if _, err := r.target.run(ctx, "admin", cmd); err != nil && !hasCode(err, codeDuplicateKey) {
		return fmt.Errorf("authorization schema: %w", err)
	}
	return nil
}
