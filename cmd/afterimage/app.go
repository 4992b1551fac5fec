package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"text/tabwriter"

	"github.com/afterimagedb/afterimage"
	"github.com/afterimagedb/afterimage/bucket"
	"github.com/afterimagedb/afterimage/bucket/open"
	"github.com/afterimagedb/afterimage/config"
	"github.com/afterimagedb/afterimage/dialect"
	"github.com/afterimagedb/afterimage/dialect/mongodb"
	"github.com/afterimagedb/afterimage/manifest"
	"github.com/afterimagedb/afterimage/snapshotter"
)

// app is what the commands share: configuration, logger and the ways into a bucket.
type app struct {
	ctx     context.Context // of the whole process; commands pass it on
	cli     *cli
	stdout  io.Writer
	stderr  io.Writer
	log     *slog.Logger
	conf    *config.Config
	scratch string
}

// close removes what the command left in its scratch folder.
func (a *app) close() {
	if a.scratch != "" {
		if err := os.RemoveAll(a.scratch); err != nil {
			a.log.Warn("a scratch folder stays behind", "folder", a.scratch, "error", err)
		}
	}
}

func (a *app) config() (*config.Config, error) {
	if a.conf == nil {
		c, err := config.Load(a.cli.Config, os.Getenv)
		if err != nil {
			return nil, err
		}
		a.conf = c
	}
	return a.conf, nil
}

// sourceBucket opens the bucket, scoped to one source.
func (a *app) sourceBucket(source string) (bucket.Bucket, error) {
	c, err := a.config()
	if err != nil {
		return nil, err
	}
	b, err := open.Open(a.ctx, c.Bucket)
	if err != nil {
		return nil, err
	}
	return bucket.Sub(b, source+"/"), nil
}

// scratchDir is a folder for spilled rows, removed at the end of the command.
func (a *app) scratchDir() (string, error) {
	if a.scratch == "" {
		dir, err := os.MkdirTemp("", "afterimage-")
		if err != nil {
			return "", err
		}
		a.scratch = dir
	}
	return a.scratch, nil
}

// protected is a source as the bucket knows it: what every reading command begins with.
type protected struct {
	name   string
	bucket bucket.Bucket
	store  *manifest.Store
	state  *manifest.State
	snap   *snapshotter.Snapshotter

	dialect dialect.Dialect
}

func (a *app) open(source string) (*protected, error) {
	b, err := a.sourceBucket(source)
	if err != nil {
		return nil, err
	}
	st, err := manifest.Open(a.ctx, b, source, "")
	if err != nil {
		return nil, err
	}
	p := &protected{name: source, bucket: b, store: st, dialect: mongodb.New()}
	return p, a.reload(p)
}

// reload takes up the newest manifest.
func (a *app) reload(p *protected) error {
	s, err := p.store.Load(a.ctx)
	if err != nil {
		return err
	}
	scratch, err := a.scratchDir()
	if err != nil {
		return err
	}
	p.state = s
	p.snap = snapshotter.New(snapshotter.Options{State: s, Bucket: p.bucket, Dialect: p.dialect, Scratch: scratch})
	return nil
}

// sourceNames lists the configured sources, or only the one named.
func (a *app) sourceNames(only string) ([]string, error) {
	if only != "" {
		return []string{only}, nil
	}
	c, err := a.config()
	if err != nil {
		return nil, err
	}
	var names []string
	for _, s := range c.Sources {
		names = append(names, s.Name)
	}
	if len(names) == 0 {
		return nil, afterimage.Usagef("%s names no sources: give SOURCE, or the right file with --config", c.Path)
	}
	return names, nil
}

// output is the -o flag of every command that prints data.
type output struct {
	Output string `short:"o" help:"Print as table or json." enum:"table,json" default:"table"`
}

// print writes v as JSON, or calls table for people.
func (o *output) print(a *app, v any, table func(w io.Writer)) error {
	if o.Output == "json" {
		e := json.NewEncoder(a.stdout)
		e.SetIndent("", "  ")
		e.SetEscapeHTML(false)
		return e.Encode(v)
	}
	w := tabwriter.NewWriter(a.stdout, 0, 4, 2, ' ', 0)
	table(w)
	return w.Flush()
}

func row(w io.Writer, cells ...any) {
	s := make([]string, len(cells))
	for i, c := range cells {
		s[i] = fmt.Sprint(c)
	}
	fmt.Fprintln(w, strings.Join(s, "\t"))
}

// when prints a commit time for people: the clock and the exact timestamp.
func when(t afterimage.Time) string {
	if t == 0 {
		return "-"
	}
	return t.Describe()
}

// bytesOf prints a size.
func bytesOf(n int64) string {
	const unit = 1000
	if n < unit {
		return fmt.Sprintf("%d B", n)
	}
	div, exp := int64(unit), 0
	for m := n / unit; m >= unit; m /= unit {
		div *= unit
		exp++
	}
	return fmt.Sprintf("%.1f %cB", float64(n)/float64(div), "kMGTPE"[exp])
}

// dataPath is a path in the data folder, which is made if need be.
func (a *app) dataPath(elem ...string) (string, error) {
	c, err := a.config()
	if err != nil {
		return "", err
	}
	p := filepath.Join(append([]string{c.DataDir}, elem...)...)
	return p, os.MkdirAll(p, 0o750)
}
