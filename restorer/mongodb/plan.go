package mongodb

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"go.mongodb.org/mongo-driver/bson"

	"github.com/afterimagedb/afterimage"
	"github.com/afterimagedb/afterimage/dialect"
	"github.com/afterimagedb/afterimage/restorer"
)

// plan is what a restore will write. It is made before the first write.
type plan struct {
	tables   []*plannedTable
	views    []*plannedView
	auth     []*plannedAuth
	warnings []string
}

type plannedTable struct {
	collection
	db, name string // target, physical: system.buckets.X for a time-series
	shown    string // target as users name it
	exists   bool   // to be dropped first
	adopted  bool   // exists, empty, because an earlier run of this restore ended while it created it
	resume   bool   // created by an earlier run of this restore
	mask     masks

	roomBytes, roomDocs int64 // limits of a capped collection while it is loaded, when larger than at T
}

type plannedView struct {
	source, db, name string
	row              bson.Raw // of system.views, renamed
	exists           bool
}

type plannedAuth struct {
	table dialect.Table
	rows  []bson.Raw // to write
	drop  []bson.Raw // their present forms in the target
}

func (p *plannedTable) report() restorer.NamespaceReport {
	return restorer.NamespaceReport{Source: p.logical, Target: p.shown, ID: p.table.ID, Kind: p.kind, Replaces: p.exists, Indexes: len(p.indexes)}
}

func (v *plannedView) report() restorer.NamespaceReport {
	return restorer.NamespaceReport{Source: v.source, Target: v.db + "." + v.name, Kind: kindView, Replaces: v.exists}
}

func (a *plannedAuth) report() restorer.NamespaceReport {
	return restorer.NamespaceReport{
		Source: a.table.Namespace, Target: a.table.Namespace, ID: a.table.ID, Kind: kindAuth,
		Replaces: len(a.drop) > 0, Documents: int64(len(a.rows)),
	}
}

// makePlan reads the catalog at T, applies selection and renaming, and refuses when something is in the way.
func (r *run) makePlan(ctx context.Context) (*plan, error) {
	tables, err := r.opts.Source.Tables(ctx)
	if err != nil {
		return nil, fmt.Errorf("read the catalog at %s: %w", r.opts.At, err)
	}
	p := &plan{}
	if err := r.planTables(ctx, p, tables); err != nil {
		return nil, err
	}
	if err := r.checkSelection(p); err != nil {
		return nil, err
	}
	return p, r.checkTarget(ctx, p)
}

func (r *run) planTables(ctx context.Context, p *plan, tables []dialect.Table) (err error) {
	for _, t := range tables {
		switch {
		case isAuth(t.Namespace):
			err = r.planAuth(ctx, p, t)
		case isViews(t.Namespace):
			err = r.planViews(ctx, p, t, tables)
		case !internal(t.Namespace):
			err = r.planTable(p, t)
		}
		if err != nil {
			return err
		}
	}
	slices.SortFunc(p.tables, func(a, b *plannedTable) int { return strings.Compare(a.shown, b.shown) })
	slices.SortFunc(p.views, func(a, b *plannedView) int { return strings.Compare(a.db+"."+a.name, b.db+"."+b.name) })
	return nil
}

func (r *run) planTable(p *plan, t dialect.Table) error {
	c, err := readCollection(t)
	if err != nil {
		return fmt.Errorf("catalog at %s: %w", r.opts.At, err)
	}
	if !r.opts.Select.Match(c.logical) {
		return nil
	}
	x := &plannedTable{collection: c, shown: r.opts.Rename.Apply(c.logical), mask: chooseMasks(r.opts.Masks, c.logical)}
	x.db, x.name = splitNamespace(x.shown)
	if c.kind == kindTimeseries {
		x.name = bucketPrefix + x.name
		if len(x.mask) > 0 {
			return afterimage.Usagef("mask: %s is a time-series: its buckets can't be masked; exclude it", c.logical)
		}
	}
	p.tables = append(p.tables, x)
	return nil
}

func (r *run) planViews(ctx context.Context, p *plan, t dialect.Table, tables []dialect.Table) error {
	rows, err := r.opts.Source.Rows(ctx, t)
	if err != nil {
		return fmt.Errorf("read %s: %w", t.Namespace, err)
	}
	defer func() { _ = rows.Close() }()
	for rows.Next() {
		row := bson.Raw(slices.Clone(rows.Body()))
		ns, _ := row.Lookup("_id").StringValueOK()
		on, _ := row.Lookup("viewOn").StringValueOK()
		db, name := splitNamespace(ns)
		if name == "" || strings.HasPrefix(on, bucketPrefix) && exists(tables, db+"."+on) || !r.opts.Select.Match(ns) {
			continue // the view over a time-series comes with its buckets
		}
		p.views = append(p.views, r.planView(ns, on, row))
	}
	if err := rows.Err(); err != nil {
		return fmt.Errorf("read %s: %w", t.Namespace, err)
	}
	return nil
}

func exists(tables []dialect.Table, ns string) bool {
	return slices.ContainsFunc(tables, func(t dialect.Table) bool { return t.Namespace == ns })
}

// planView renames a view and, when it stays in one database with it, what it looks at. Pipelines stay as they are.
func (r *run) planView(ns, on string, row bson.Raw) *plannedView {
	to := r.opts.Rename.Apply(ns)
	v := &plannedView{source: ns, row: row}
	v.db, v.name = splitNamespace(to)
	db, _ := splitNamespace(ns)
	onDB, onName := splitNamespace(r.opts.Rename.Apply(db + "." + on))
	if onDB != v.db || onName == "" {
		onName = on
	}
	if to == ns && onName == on {
		return v
	}
	out := newDocument()
	_ = walk(row, func(e element) bool {
		switch string(e.name) {
		case "_id":
			out = out.str("_id", to)
		case "viewOn":
			out = out.str("viewOn", onName)
		default:
			out = append(out, row[e.at:e.end]...)
		}
		return true
	})
	v.row = out.end()
	return v
}

func (r *run) checkSelection(p *plan) error {
	var sources []string
	targets := map[string]string{}
	for _, n := range p.names() {
		sources = append(sources, n.source)
		if other, ok := targets[n.target]; ok {
			return afterimage.Usagef("rename: %s and %s would both become %s", other, n.source, n.target)
		}
		targets[n.target] = n.source
		if db, name := splitNamespace(n.target); name == "" || db == "config" || db == "local" || strings.ContainsAny(db, `/\. "$`) {
			return afterimage.Usagef("rename: %s would become %q: not a namespace that can be restored to", n.source, n.target)
		}
	}
	if missing := r.opts.Select.Unmatched(sources); len(missing) > 0 {
		// Most likely a typing error, and a restore of nothing is no success.
		return afterimage.Usagef("nothing existed at %s that matches --include %s: `afterimage events` lists when collections came and went", r.opts.At.Describe(), strings.Join(missing, ", "))
	}
	return nil
}

type name struct{ source, target string }

func (p *plan) names() []name {
	var out []name
	for _, t := range p.tables {
		out = append(out, name{t.logical, t.shown})
	}
	for _, v := range p.views {
		out = append(out, name{v.source, v.db + "." + v.name})
	}
	return out
}

// checkTarget finds what is in the way, all of it.
func (r *run) checkTarget(ctx context.Context, p *plan) error {
	dbs := map[string]map[string]found{}
	list := func(db string) (map[string]found, error) {
		if l, ok := dbs[db]; ok {
			return l, nil
		}
		l, err := r.target.collections(ctx, db, "")
		dbs[db] = l
		return l, err
	}
	var clash []string
	for _, t := range p.tables {
		there, err := list(t.db)
		if err != nil {
			return err
		}
		ours, err := r.inTheWay(ctx, t, there)
		if err != nil {
			return err
		}
		if t.exists && !ours {
			clash = append(clash, t.shown)
		}
	}
	for _, v := range p.views {
		there, err := list(v.db)
		if err != nil {
			return err
		}
		if _, v.exists = there[v.name]; v.exists && !r.journal.viewDone(v.db+"."+v.name) {
			clash = append(clash, v.db+"."+v.name)
		}
	}
	users, err := r.authClashes(ctx, p)
	if err != nil {
		return err
	}
	if clash = append(clash, users...); len(clash) > 0 && !r.opts.Overwrite {
		slices.Sort(clash)
		return &restorer.ExistsError{Namespaces: clash}
	}
	return nil
}

// inTheWay sets t.exists and t.resume. What an earlier run of this restore created is ours; something else under the
// name of a table that the earlier run created is never touched.
func (r *run) inTheWay(ctx context.Context, t *plannedTable, there map[string]found) (ours bool, err error) {
	now, ok := there[t.name]
	if _, logical := there[strings.TrimPrefix(t.name, bucketPrefix)]; !ok && logical {
		t.exists = true
		return false, nil
	}
	j := r.journal.table(t)
	if !ok {
		j.forget()
		return false, nil
	}
	switch {
	case j.uuid != "" && j.uuid == now.uuid:
		t.resume = true
		return true, nil
	case j.uuid != "":
		return false, r.otherNow(t)
	case j.creating && j.replaces != now.uuid:
		empty, err := r.target.empty(ctx, t.db, t.name)
		if err == nil && !empty {
			err = r.otherNow(t)
		}
		t.exists, t.adopted = true, true
		return true, err
	}
	t.exists = true
	return false, nil
}

func (r *run) otherNow(t *plannedTable) error {
	return afterimage.Usagef("%s is another collection than the interrupted restore created: nothing was touched; "+
		"look at it, then delete the journal %s to start anew", t.shown, r.journal.path)
}
