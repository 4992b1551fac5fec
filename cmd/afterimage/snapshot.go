package main

import (
	"context"
	"fmt"
	"io"
	"runtime"
	"time"

	"go.mongodb.org/mongo-driver/bson"

	"github.com/afterimagedb/afterimage"
	"github.com/afterimagedb/afterimage/dialect"
	"github.com/afterimagedb/afterimage/restorer"
	"github.com/afterimagedb/afterimage/snapshotter"
	"github.com/afterimagedb/afterimage/snapshotter/format"
	bsondump "github.com/afterimagedb/afterimage/snapshotter/format/bson"
	"github.com/afterimagedb/afterimage/snapshotter/format/jsonl"
)

type snapshotCmd struct {
	output
	selection
	Source string `arg:"" help:"Name of the source."`
	At     string `required:"" help:"${at}" placeholder:"TIME"`
	Out    string `required:"" help:"New folder; with --format archive a new file, or - for standard output." placeholder:"DIR"`
	Format string `help:"bson: a folder as mongodump writes it; archive: mongodump's archive; jsonl: canonical extended JSON." enum:"bson,archive,jsonl" default:"bson"`
	Gzip   bool   `help:"Compress, as mongorestore --gzip takes it."`
	DryRun bool   `help:"Only say what would be read."`
}

// Run writes the state at a time to files.
func (c *snapshotCmd) Run(a *app) error {
	p, err := a.open(c.Source)
	if err != nil {
		return err
	}
	at, err := a.resolve(p, c.At)
	if err != nil {
		return err
	}
	tables, err := a.selected(p, at, &c.selection)
	if err != nil {
		return err
	}
	if c.DryRun {
		var ranges []afterimage.Range
		for _, t := range tables {
			ranges = append(ranges, afterimage.TableRange(t.ID))
		}
		_, err := fmt.Fprint(a.stdout, p.snap.Plan(at, ranges))
		return err
	}
	progress := newProgress(a.stderr, a.log)
	src := &snapshotSource{View: p.snap.At(at, snapshotter.Selector{}), tables: tables, patterns: c.patterns(), progress: progress}
	if err := src.check(a.ctx, p, at); err != nil {
		return err
	}
	began := time.Now()
	sum, err := c.write(a.ctx, src)
	progress.done()
	if err != nil {
		return err
	}
	return c.report(a, sum, at, time.Since(began))
}

func (c *snapshotCmd) write(ctx context.Context, src format.Source) (*format.Summary, error) {
	workers := runtime.GOMAXPROCS(0)
	switch c.Format {
	case "archive":
		return bsondump.WriteArchive(ctx, c.Out, src, bsondump.Options{Gzip: c.Gzip})
	case "jsonl":
		return jsonl.WriteDirectory(ctx, c.Out, src, jsonl.Options{Gzip: c.Gzip, Workers: workers})
	}
	return bsondump.WriteDirectory(ctx, c.Out, src, bsondump.Options{Gzip: c.Gzip, Workers: workers})
}

func (c *snapshotCmd) report(a *app, sum *format.Summary, at afterimage.Time, took time.Duration) error {
	if c.Out == "-" { // standard output is the archive
		a.log.Info("snapshot written", "at", at.String(), "documents", sum.Count, "bytes", sum.Bytes)
		return nil
	}
	type result struct {
		At  afterimage.Time `json:"at"`
		Out string          `json:"out"`
		*format.Summary
	}
	return c.print(a, result{at, c.Out, sum}, func(w io.Writer) {
		row(w, "NAMESPACE", "TYPE", "DOCUMENTS", "BYTES")
		for _, n := range sum.Namespaces {
			row(w, n.Namespace, n.Type, n.Count, bytesOf(n.Bytes))
		}
		row(w, fmt.Sprintf("%d documents, %s in %s, as at %s, in %s", sum.Count, bytesOf(sum.Bytes), took.Round(time.Millisecond), when(at), c.Out))
	})
}

// snapshotSource gives a view the shape that the formats declare, restricted to the chosen namespaces.
type snapshotSource struct {
	*snapshotter.View
	tables   []dialect.Table
	patterns restorer.Selection
	progress *progress
}

// Tables lists the chosen tables.
func (s *snapshotSource) Tables(context.Context) ([]dialect.Table, error) { return s.tables, nil }

// Rows reads a table; of the views only the chosen ones.
func (s *snapshotSource) Rows(ctx context.Context, t dialect.Table) (format.Rows, error) {
	s.progress.show("writing", "namespace", shownName(t))
	rows, err := s.View.Rows(ctx, t)
	if err != nil || !isViews(t) {
		return rows, err
	}
	return &chosenViews{rows, s.patterns}, nil
}

// check refuses a pattern that matches nothing: most likely a typing error, and an empty snapshot is no success.
func (s *snapshotSource) check(ctx context.Context, p *protected, at afterimage.Time) error {
	if len(s.patterns.Include) == 0 {
		return nil
	}
	layout, err := format.Layout(ctx, s)
	if err != nil {
		return err
	}
	names := make([]string, 0, len(layout))
	for _, n := range layout {
		names = append(names, n.DB+"."+n.Name)
	}
	for _, pattern := range s.patterns.Unmatched(names) {
		return afterimage.Usagef("--include %s matches no namespace of source %s at %s: `afterimage events %s` lists when collections came and went", pattern, p.name, at, p.name)
	}
	return nil
}

// chosenViews passes over the rows of views that are not chosen.
type chosenViews struct {
	*snapshotter.Rows
	patterns restorer.Selection
}

// Next moves to the next chosen view.
func (r *chosenViews) Next() bool {
	for r.Rows.Next() {
		if ns, ok := bson.Raw(r.Body()).Lookup("_id").StringValueOK(); !ok || r.patterns.Match(ns) {
			return true
		}
	}
	return false
}
