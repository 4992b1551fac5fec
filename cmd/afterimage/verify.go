package main

import (
	"context"
	"fmt"
	"io"
	"runtime"
	"slices"
	"strings"
	"sync"

	"golang.org/x/sync/errgroup"

	"github.com/afterimagedb/afterimage"
	"github.com/afterimagedb/afterimage/dialect"
	"github.com/afterimagedb/afterimage/segment"
)

type verifyCmd struct {
	output
	Source string `arg:"" help:"Name of the source."`
	Deep   bool   `help:"Also read every row as it stands at the horizon."`
}

// damage is one object that is not what the manifest says.
type damage struct {
	Object  string          `json:"object"`
	Problem string          `json:"problem"`
	From    afterimage.Time `json:"from"` // times that need the object
	To      afterimage.Time `json:"to"`
	Tables  string          `json:"tables"`
}

type verification struct {
	Source   string   `json:"source"`
	Manifest uint64   `json:"manifest"`
	Objects  int      `json:"objects"`
	Bytes    int64    `json:"bytes"`
	Rows     int64    `json:"rows,omitempty"` // read by --deep
	Damaged  []damage `json:"damaged"`
}

// Run checks every live object against the manifest: there, whole, checksums right, rows in order.
func (c *verifyCmd) Run(a *app) error {
	p, err := a.open(c.Source)
	if err != nil {
		return err
	}
	v, err := p.verifyObjects(a)
	if err != nil {
		return err
	}
	if c.Deep && len(v.Damaged) == 0 {
		if err := p.verifyRows(a, v); err != nil {
			return err
		}
	}
	err = c.print(a, v, func(w io.Writer) {
		for _, d := range v.Damaged {
			row(w, "DAMAGED", d.Object, d.Problem)
			row(w, "", "", fmt.Sprintf("needed for %s to %s, %s", when(d.From), when(d.To), d.Tables))
		}
		row(w, fmt.Sprintf("source %s, manifest %d: %d objects, %s checked, %d damaged", v.Source, v.Manifest, v.Objects, bytesOf(v.Bytes), len(v.Damaged)))
		if c.Deep {
			row(w, fmt.Sprintf("%d rows read as at %s", v.Rows, when(p.state.Horizon())))
		}
	})
	if err == nil && len(v.Damaged) > 0 {
		err = fmt.Errorf("source %s: %d of %d objects are damaged: other times and tables restore; keep the bucket as it is and see docs/operating.md, \"Damage\"", c.Source, len(v.Damaged), v.Objects)
	}
	return err
}

func (p *protected) verifyObjects(a *app) (*verification, error) {
	v := &verification{Source: p.name, Manifest: p.state.Number, Damaged: []damage{}}
	progress := newProgress(a.stderr, a.log)
	defer progress.done()
	var mu sync.Mutex
	g, ctx := errgroup.WithContext(a.ctx)
	g.SetLimit(runtime.GOMAXPROCS(0))
	for _, m := range p.state.Segments {
		g.Go(func() error {
			err := p.verifyObject(ctx, m)
			if ctx.Err() != nil {
				return ctx.Err()
			}
			mu.Lock()
			defer mu.Unlock()
			v.Objects++
			v.Bytes += m.Bytes
			progress.show("verifying", "objects", fmt.Sprintf("%d/%d", v.Objects, len(p.state.Segments)), "bytes", bytesOf(v.Bytes))
			if err != nil {
				v.Damaged = append(v.Damaged, damage{segment.ObjectName(m.ID), err.Error(), m.MinTime, m.MaxTime, tablesOf(&m)})
			}
			return nil
		})
	}
	err := g.Wait()
	slices.SortFunc(v.Damaged, func(x, y damage) int { return strings.Compare(x.Object, y.Object) })
	return v, err
}

func (p *protected) verifyObject(ctx context.Context, m segment.Meta) error {
	data, err := p.bucket.Get(ctx, segment.ObjectName(m.ID))
	if err != nil {
		return err
	}
	return segment.Verify(data, m) //nolint:contextcheck // works on bytes in memory
}

func tablesOf(m *segment.Meta) string {
	if m.First.Table == m.Last.Table {
		return "table " + m.First.Table.String()
	}
	return "tables " + m.First.Table.String() + " to " + m.Last.Table.String()
}

// verifyRows reads every row at the horizon: what a restore of everything would read.
func (p *protected) verifyRows(a *app, v *verification) error {
	at := p.state.Horizon()
	tables, err := p.snap.Catalog(a.ctx, at)
	if err != nil {
		return err
	}
	progress := newProgress(a.stderr, a.log)
	defer progress.done()
	for _, t := range tables {
		if err := p.countRows(a, t, at, &v.Rows, progress); err != nil {
			return err
		}
	}
	return nil
}

func (p *protected) countRows(a *app, t dialect.Table, at afterimage.Time, n *int64, progress *progress) error {
	rows, err := p.snap.Rows(a.ctx, t, at, afterimage.Range{})
	if err != nil {
		return err
	}
	defer rows.Close()
	for rows.Next() {
		if *n++; *n%10000 == 0 {
			progress.show("reading", "namespace", t.Namespace, "rows", *n)
		}
	}
	return rows.Err()
}
