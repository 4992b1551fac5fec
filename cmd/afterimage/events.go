package main

import (
	"fmt"
	"io"
	"math"

	"github.com/afterimagedb/afterimage"
	"github.com/afterimagedb/afterimage/dialect"
	"github.com/afterimagedb/afterimage/snapshotter"
)

// span is the time range of commands that list what happened.
type span struct {
	From string `help:"Only after this time. Forms as for --at." placeholder:"TIME"`
	To   string `help:"Only up to this time; default the horizon." placeholder:"TIME"`
}

func (s *span) resolve(a *app, p *protected) (from, to afterimage.Time, err error) {
	to = p.state.Horizon()
	if s.From != "" {
		if from, err = a.resolve(p, s.From); err != nil {
			return 0, 0, err
		}
	}
	if s.To != "" {
		if to, err = a.resolve(p, s.To); err != nil {
			return 0, 0, err
		}
	}
	if from > to {
		return 0, 0, afterimage.Usagef("--from %s lies after --to %s", from, to)
	}
	return from, to, nil
}

type eventsCmd struct {
	output
	span
	Source      string `arg:"" help:"Name of the source."`
	Destructive bool   `help:"Only what removed data: drops, renames over a collection, mass deletes."`
}

// Run lists events, oldest first.
func (c *eventsCmd) Run(a *app) error {
	p, err := a.open(c.Source)
	if err != nil {
		return err
	}
	from, to, err := c.resolve(a, p)
	if err != nil {
		return err
	}
	all, err := p.snap.Events(a.ctx, from, to)
	if err != nil {
		return err
	}
	events := []snapshotter.Event{}
	for _, e := range all {
		if !c.Destructive || e.Destructive {
			events = append(events, e)
		}
	}
	return c.print(a, events, func(w io.Writer) {
		row(w, "ID", "WHEN", "EVENT", "NAMESPACE", "DETAIL", "RESTORE WITH")
		for _, e := range events {
			how := ""
			if e.Destructive {
				how = "--at before:" + e.ID
			}
			row(w, e.ID, when(e.Time), e.Kind, e.Namespace, e.Detail, how)
		}
	})
}

// find returns the table that has a namespace at a time; with several times the first that has it.
func (p *protected) find(a *app, namespace string, times ...afterimage.Time) (dialect.Table, error) {
	for _, at := range times {
		tables, err := p.snap.Catalog(a.ctx, at)
		if err != nil {
			return dialect.Table{}, err
		}
		for _, t := range tables {
			if t.Namespace == namespace {
				return t, nil
			}
		}
	}
	return dialect.Table{}, afterimage.Usagef("source %s has no collection %s at %s: `afterimage events %s` lists when collections came and went", p.name, namespace, times[0], p.name)
}

type historyCmd struct {
	output
	span
	Source    string `arg:"" help:"Name of the source."`
	Namespace string `arg:"" help:"database.collection"`
	Key       string `arg:"" help:"The document's _id: an ObjectId, number or string, or extended JSON."`
	At        string `help:"A time at which the collection had this name, if it was dropped or renamed since." placeholder:"TIME"`
}

// Run shows every version of one document.
func (c *historyCmd) Run(a *app) error {
	p, err := a.open(c.Source)
	if err != nil {
		return err
	}
	from, to, err := c.resolve(a, p)
	if err != nil {
		return err
	}
	at := to
	if c.At != "" {
		if at, err = a.resolve(p, c.At); err != nil {
			return err
		}
	}
	t, err := p.find(a, c.Namespace, at)
	if err != nil {
		return err
	}
	versions, err := p.history(a, t, c.Key, from, to)
	if err != nil {
		return err
	}
	return c.print(a, versionsOf(versions), func(w io.Writer) {
		row(w, "WHEN", "OP", "CHANGED", "DOCUMENT")
		for _, v := range versionsOf(versions) {
			row(w, v.When, v.Op, v.Changed, clip(v.Document, 160))
		}
	})
}

// history tries the keys that the text can mean and returns the versions of the first that has any.
func (p *protected) history(a *app, t dialect.Table, text string, from, to afterimage.Time) ([]snapshotter.Version, error) {
	keys, err := p.dialect.ParseKey(text)
	if err != nil {
		return nil, afterimage.Usagef("key %q: %w", text, err)
	}
	for _, k := range keys {
		v, err := p.snap.History(a.ctx, t, k, from, to)
		if err != nil || len(v) > 0 {
			return v, err
		}
	}
	return nil, fmt.Errorf("%s has no document with _id %s in that time", t.Namespace, text)
}

type diffCmd struct {
	output
	Source    string `arg:"" help:"Name of the source."`
	Namespace string `arg:"" help:"database.collection"`
	From      string `required:"" help:"The earlier time. Forms as for --at." placeholder:"TIME"`
	To        string `default:"latest" help:"The later time." placeholder:"TIME"`
	Limit     int    `default:"1000" help:"Stop after so many documents; 0 for all."`
}

// Run streams what differs between two times.
func (c *diffCmd) Run(a *app) error {
	p, err := a.open(c.Source)
	if err != nil {
		return err
	}
	from, err := a.resolve(p, c.From)
	if err != nil {
		return err
	}
	to, err := a.resolve(p, c.To)
	if err != nil {
		return err
	}
	if from > to {
		return afterimage.Usagef("--from %s lies after --to %s", from, to)
	}
	t, err := p.find(a, c.Namespace, to, from)
	if err != nil {
		return err
	}
	if err := p.snap.RecoverableTables(a.ctx, from, []dialect.Table{t}); err != nil {
		return err
	}
	d, err := p.snap.Diff(a.ctx, t, from, to)
	if err != nil {
		return err
	}
	defer d.Close()
	limit := c.Limit
	if limit == 0 {
		limit = math.MaxInt
	}
	out := []difference{}
	for len(out) < limit && d.Next() {
		out = append(out, differenceOf(p.dialect, d.Before(), d.After()))
	}
	if err := d.Err(); err != nil {
		return err
	}
	return c.print(a, out, func(w io.Writer) {
		row(w, "", "_ID", "CHANGED", "BEFORE", "AFTER")
		for _, x := range out {
			row(w, x.Kind, x.ID, x.Changed, clip(x.Before, 80), clip(x.After, 80))
		}
		if len(out) == limit {
			fmt.Fprintf(w, "stopped after %d documents: --limit 0 for all\n", limit)
		}
	})
}

func clip(s string, n int) string {
	if r := []rune(s); len(r) > n {
		return string(r[:n]) + "…"
	}
	return s
}
