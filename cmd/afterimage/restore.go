package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/afterimagedb/afterimage"
	"github.com/afterimagedb/afterimage/dialect"
	"github.com/afterimagedb/afterimage/restorer"
	"github.com/afterimagedb/afterimage/restorer/mongodb"
	"github.com/afterimagedb/afterimage/snapshotter"
)

// selection is the flags that choose namespaces.
type selection struct {
	Include []string `help:"Only these namespaces: db, db.collection, patterns with *." placeholder:"NS" sep:"none"`
	Exclude []string `help:"Not these namespaces." placeholder:"NS" sep:"none"`
}

func (s *selection) patterns() restorer.Selection {
	return restorer.Selection{Include: s.Include, Exclude: s.Exclude}
}

// shownName is the name under which people know a table: a time-series' documents lie in its buckets.
func shownName(t dialect.Table) string {
	return strings.Replace(t.Namespace, ".system.buckets.", ".", 1)
}

// isViews reports whether a table holds a database's views: rows of it are chosen one by one.
func isViews(t dialect.Table) bool { return strings.HasSuffix(t.Namespace, ".system.views") }

type restoreCmd struct {
	output
	selection
	Source    string   `arg:"" help:"Name of the source."`
	At        string   `required:"" help:"${at}" placeholder:"TIME"`
	To        string   `required:"" help:"URI of the target: a replica set or a standalone." placeholder:"URI"`
	Rename    []string `help:"FROM=TO, db or db.collection, one * on each side." placeholder:"RULE" sep:"none"`
	Mask      []string `help:"Change fields on the way: NS:FIELD=null, =hash or ='CONSTANT'." placeholder:"RULE" sep:"none"`
	ID        []string `name:"id" help:"Only the documents with these _ids, of the one collection of --include." placeholder:"ID" sep:"none"`
	Query     string   `help:"Only the documents that match a query on _id, as extended JSON." placeholder:"JSON"`
	Users     bool     `help:"Also users and roles."`
	TTL       string   `name:"ttl" help:"hold: what has a time to live is kept until you say so; keep: it expires as at the source." enum:"hold,keep" default:"hold"`
	Overwrite bool     `help:"Replace what is in the way. Without it, existing data is never touched."`
	DryRun    bool     `help:"Say what would be done, and what would be read."`
	Rate      string   `help:"Limit, such as 50MB (per second)." placeholder:"BYTES"`
	Workers   int      `default:"4" help:"Insert commands in flight."`
}

// Run restores and prints a report.
func (c *restoreCmd) Run(a *app) error {
	p, err := a.open(c.Source)
	if err != nil {
		return err
	}
	at, err := a.resolve(p, c.At)
	if err != nil {
		return err
	}
	o, err := c.options(a, p, at)
	if err != nil {
		return err
	}
	if c.DryRun && o.Only == nil {
		fmt.Fprint(a.stderr, p.snap.Plan(at, nil))
	}
	progress := newProgress(a.stderr, a.log)
	o.Progress = progress.restore
	report, err := mongodb.Restore(a.ctx, *o)
	progress.done()
	if err != nil && len(report.Namespaces) == 0 {
		return err // nothing was begun
	}
	if perr := c.print(a, report, func(w io.Writer) { reportTable(w, &report) }); perr != nil {
		return errors.Join(err, perr)
	}
	if err != nil && o.StateDir != "" && a.ctx.Err() != nil {
		return fmt.Errorf("interrupted: run the same command again and it goes on where it stopped: %w", err)
	}
	return err
}

func (c *restoreCmd) options(a *app, p *protected, at afterimage.Time) (*mongodb.Options, error) {
	rules, err := restorer.ParseRules(c.Rename)
	if err != nil {
		return nil, err
	}
	rate, err := parseBytes(c.Rate)
	if err != nil {
		return nil, err
	}
	state, err := a.dataPath("restore")
	if err != nil {
		return nil, err
	}
	o := &mongodb.Options{
		URI: c.To, At: at, Select: c.patterns(), Rename: rules, Users: c.Users,
		TTL: mongodb.TTLMode(c.TTL), Overwrite: c.Overwrite, DryRun: c.DryRun, BytesPerSecond: rate, Workers: c.Workers,
		StateDir: state, Log: a.log,
	}
	for _, m := range c.Mask {
		mask, err := mongodb.ParseMask(m)
		if err != nil {
			return nil, err
		}
		o.Masks = append(o.Masks, mask)
	}
	view := p.snap.At(at, snapshotter.Selector{})
	tables, err := a.selected(p, at, &c.selection)
	if err != nil {
		return nil, err
	}
	o.Source = restoreSource{view}
	if len(c.ID) > 0 || c.Query != "" {
		if o.Only, err = c.documents(tables); err != nil {
			return nil, err
		}
	}
	return o, nil
}

// selected lists the chosen tables that live at a time, and checks that the time can be restored for all of them.
func (a *app) selected(p *protected, at afterimage.Time, s *selection) ([]dialect.Table, error) {
	if err := p.snap.Recoverable(a.ctx, at); err != nil && (len(s.Include) == 0 && len(s.Exclude) == 0 || isBeyond(err)) {
		return nil, err
	}
	all, err := p.snap.Catalog(a.ctx, at)
	if err != nil {
		return nil, err
	}
	var tables []dialect.Table
	for _, t := range all {
		if isViews(t) || s.patterns().Match(shownName(t)) {
			tables = append(tables, t)
		}
	}
	if err := p.snap.RecoverableTables(a.ctx, at, tables); err != nil {
		return nil, err
	}
	for _, w := range p.snap.Warnings(at) {
		a.log.Warn(w)
	}
	return tables, nil
}

// isBeyond reports whether a time lies beyond the horizon, where even the catalog is not known yet.
func isBeyond(err error) bool {
	var n *afterimage.NotRecoverableError
	return errors.As(err, &n) && n.Later
}

// documents names the documents of --id and --query: each text of --id may mean several values.
func (c *restoreCmd) documents(tables []dialect.Table) (*mongodb.Documents, error) {
	tables = slices.DeleteFunc(slices.Clone(tables), isViews)
	if len(tables) != 1 {
		return nil, afterimage.Usagef("--id and --query need --include with exactly one collection, it has %d", len(tables))
	}
	d := &mongodb.Documents{Namespace: tables[0].Namespace}
	for _, text := range c.ID {
		id, err := mongodb.ParseID(text)
		if err != nil {
			return nil, err
		}
		d.IDs = append(d.IDs, id)
	}
	if c.Query != "" {
		ids, err := mongodb.ParseQuery(c.Query)
		if err != nil {
			return nil, err
		}
		d.IDs = append(d.IDs, ids...)
	}
	return d, nil
}

// restoreSource gives a view the shape that the restorer declares.
type restoreSource struct{ *snapshotter.View }

// Rows reads a table.
func (s restoreSource) Rows(ctx context.Context, t dialect.Table) (restorer.Rows, error) {
	return s.View.Rows(ctx, t)
}

func reportTable(w io.Writer, r *restorer.Report) {
	row(w, "NAMESPACE", "INTO", "KIND", "DOCUMENTS", "BYTES", "INDEXES", "VERIFIED")
	for _, n := range r.Namespaces {
		verified := "yes"
		if !n.Verified {
			verified = "no"
		}
		if r.DryRun {
			verified = "-"
		}
		row(w, n.Source, n.Target, n.Kind, n.Documents, bytesOf(n.Bytes), n.Indexes, verified)
	}
	for _, d := range r.Changes {
		row(w, d.Namespace, d.ID, d.Action)
		row(w, "", "before", clip(d.Before, 200))
		row(w, "", "after", clip(d.After, 200))
	}
	for _, h := range r.Held {
		row(w, "held", h.Namespace, h.Index, "expired after "+h.Original+" s; to let it expire again: "+h.Command)
	}
	for _, x := range r.Warnings {
		row(w, "warning", x)
	}
	if !r.DryRun {
		docs, rate := r.Rate()
		fmt.Fprintf(w, "%d documents, %s in %s: %.0f documents/s, %s/s, as at %s\n", r.Documents, bytesOf(r.Bytes),
			r.Elapsed.Round(time.Millisecond), docs, bytesOf(int64(rate)), when(r.At))
	}
}
