package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime/debug"
	"slices"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"golang.org/x/sync/errgroup"

	"github.com/afterimagedb/afterimage"
	"github.com/afterimagedb/afterimage/bucket"
	"github.com/afterimagedb/afterimage/compactor"
	"github.com/afterimagedb/afterimage/config"
	"github.com/afterimagedb/afterimage/dialect/mongodb"
	listener "github.com/afterimagedb/afterimage/listeners/mongodb"
	"github.com/afterimagedb/afterimage/manifest"
	"github.com/afterimagedb/afterimage/stream"
)

// The roles of a process.
const (
	roleListen  = "listen"
	roleCompact = "compact"
)

type serveCmd struct {
	Roles []string `help:"Roles of this process: listen, compact; default both. Several processes need an external stream." placeholder:"ROLE"`
}

// Run protects every source until a signal ends it.
func (c *serveCmd) Run(a *app) error {
	conf, err := a.config()
	if err != nil {
		return err
	}
	if len(conf.Sources) == 0 {
		return afterimage.Usagef("%s names no sources: there is nothing to protect (see README.md for an example)", conf.Path)
	}
	if len(c.Roles) == 0 {
		c.Roles = []string{roleListen, roleCompact}
	}
	for _, r := range c.Roles {
		if r != roleListen && r != roleCompact {
			return afterimage.Usagef("role %q: want listen or compact", r)
		}
	}
	if len(c.Roles) == 1 && conf.Stream == "embedded" {
		return afterimage.Usagef("--roles %s: several processes need a stream that they share: set stream: nats://...", c.Roles[0])
	}
	return a.serve(conf, conf.Sources, c.Roles)
}

type listenCmd struct {
	Source string `arg:"" help:"Name of the source."`
}

// Run tails one source into an external stream.
func (c *listenCmd) Run(a *app) error {
	conf, err := a.config()
	if err != nil {
		return err
	}
	s, err := conf.Source(c.Source)
	if err != nil {
		return err
	}
	if conf.Stream == "embedded" {
		return afterimage.Usagef("listen needs a stream that the compactor's process shares: set stream: nats://..., or use `afterimage serve`")
	}
	return a.serve(conf, []config.Source{*s}, []string{roleListen})
}

// keepSmall trades some collector time for memory: the process lives beside a database. GOGC and GOMEMLIMIT win.
func keepSmall() {
	const heapBytes = 256 << 20
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(50)
	}
	if os.Getenv("GOMEMLIMIT") == "" {
		debug.SetMemoryLimit(heapBytes)
	}
}

// serve runs the roles for the sources, and the HTTP endpoint, until the context ends.
func (a *app) serve(conf *config.Config, sources []config.Source, roles []string) error {
	keepSmall()
	registry := prometheus.NewRegistry()
	registry.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	h := newHealth()
	g, ctx := errgroup.WithContext(a.ctx)
	g.Go(func() error { return serveHTTP(ctx, a.log, conf.HTTP, registry, h) })
	for _, s := range sources {
		p := &protector{app: a, conf: conf, source: s, roles: roles, registry: registry, health: h}
		if p.has(roleCompact) {
			h.set(s.Name, nil)
		}
		g.Go(func() error {
			if err := p.run(ctx); err != nil && ctx.Err() == nil {
				return fmt.Errorf("source %s: %w", s.Name, err)
			}
			return nil
		})
	}
	err := g.Wait()
	if a.ctx.Err() != nil && (err == nil || errors.Is(err, context.Canceled)) {
		a.log.Info("stopped")
		return nil
	}
	return err
}

// protector runs the stages of one source and joins them.
type protector struct {
	app      *app
	conf     *config.Config
	source   config.Source
	roles    []string
	registry *prometheus.Registry
	health   *health
}

func (p *protector) has(role string) bool { return slices.Contains(p.roles, role) }

func (p *protector) run(ctx context.Context) error {
	a, log := p.app, p.app.log.With("source", p.source.Name)
	b, err := a.sourceBucket(p.source.Name)
	if err != nil {
		return err
	}
	store, err := manifest.Open(ctx, b, p.source.Name, mongodb.New().Name())
	if err != nil {
		return err
	}
	dir, err := a.dataPath("stream", p.source.Name)
	if err != nil {
		return err
	}
	reg := prometheus.WrapRegistererWith(prometheus.Labels{"source": p.source.Name}, p.registry)
	bus, err := stream.Open(ctx, stream.Options{URL: p.conf.Stream, Dir: dir, Source: p.source.Name, Logger: log, Registerer: p.registry})
	if err != nil {
		return err
	}
	defer func() {
		if err := bus.Close(); err != nil {
			log.Warn("stream was not closed in order", "error", err)
		}
	}()
	id, err := p.identify(ctx)
	if err != nil {
		return err
	}
	lane, err := bus.Lane(ctx, id.Lane)
	if err != nil {
		return err
	}
	log.Info("protecting", "lane", id.Lane, "bucket", b.String(), "roles", strings.Join(p.roles, ","))
	g, ctx := errgroup.WithContext(ctx)
	if p.has(roleCompact) {
		committer, err := manifest.NewCommitter(ctx, store)
		if err != nil {
			return err
		}
		p.health.set(p.source.Name, committer.State)
		// A lane of its own: the listener's is busy for as long as a full stream keeps its publisher waiting, and only the
		// compactor makes room.
		own, err := bus.Lane(ctx, id.Lane)
		if err != nil {
			return err
		}
		c := compactor.New(compactor.Options{
			Source: p.source.Name, Bucket: b, Committer: committer, Dialect: mongodb.New(),
			Lanes: map[string]compactor.Lane{id.Lane: compactLane{own}}, Logger: a.log, Registerer: reg,
		})
		g.Go(func() error { return c.Run(ctx) })
	}
	if p.has(roleListen) {
		l, err := p.listener(b, store)
		if err != nil {
			return err
		}
		g.Go(func() error { return l.Run(ctx, lane) })
	}
	return g.Wait()
}

func (p *protector) listener(b bucket.Bucket, store *manifest.Store) (*listener.Listener, error) {
	scratch, err := p.app.dataPath("scratch", p.source.Name)
	if err != nil {
		return nil, err
	}
	scratch, err = filepath.Abs(scratch)
	if err != nil {
		return nil, err
	}
	return listener.New(listener.Options{
		Source: p.source.Name, URI: p.source.MongoDB.URI, LookBack: time.Duration(p.source.MongoDB.LookBack),
		Bucket: b, State: store.Load, Scratch: scratch, Logger: p.app.log, Registerer: p.registry,
	})
}

// identify asks the database who it is, until it answers. A wrong URI or a server without an oplog ends it.
func (p *protector) identify(ctx context.Context) (listener.Identity, error) {
	for {
		id, err := listener.Identify(ctx, p.source.MongoDB.URI)
		var usage *afterimage.UsageError
		if err == nil || errors.As(err, &usage) {
			return id, err
		}
		p.app.log.Warn("source can't be reached, trying again", "source", p.source.Name, "error", err)
		t := time.NewTimer(2 * time.Second)
		select {
		case <-ctx.Done():
			t.Stop()
			return id, ctx.Err()
		case <-t.C:
		}
	}
}

// compactLane gives a stream's lane the shape that the compactor declares.
type compactLane struct{ *stream.Lane }

// Read opens a reader.
func (l compactLane) Read(ctx context.Context, after uint64) (compactor.BatchReader, error) {
	return l.Lane.Read(ctx, after)
}
