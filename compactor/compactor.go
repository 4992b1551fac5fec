package compactor

import (
	"context"
	"log/slog"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/errgroup"

	"github.com/afterimagedb/afterimage"
	"github.com/afterimagedb/afterimage/bucket"
	"github.com/afterimagedb/afterimage/dialect"
	"github.com/afterimagedb/afterimage/manifest"
	"github.com/afterimagedb/afterimage/segment"
)

// Options configure a compactor. Zero values take the defaults.
type Options struct {
	Source         string
	Bucket         bucket.Bucket       // scoped to the source
	Committer      *manifest.Committer //
	Dialect        dialect.Dialect     //
	Lanes          map[string]Lane     // by name
	LevelZeroBytes int64               // keys and bodies gathered before a flush whatever its age; default 32 MiB
	Policy         Policy              //
	CommitEvery    time.Duration       // age at which pending batches are committed; default 2 s
	RetryAfter     time.Duration       // pause after a failure; default 1 s
	Grace          time.Duration       // how long a doomed object stays; default 1 h
	Logger         *slog.Logger
	Registerer     prometheus.Registerer
}

func (o *Options) defaults() {
	if o.LevelZeroBytes == 0 {
		o.LevelZeroBytes = 32 << 20
	}
	o.Policy.defaults()
	if o.CommitEvery == 0 {
		o.CommitEvery = 2 * time.Second
	}
	if o.RetryAfter == 0 {
		o.RetryAfter = time.Second
	}
	if o.Grace == 0 {
		o.Grace = time.Hour
	}
}

// Compactor is the one committer of a source. Make it with New and call Run once.
type Compactor struct {
	o         Options
	committer *manifest.Committer
	log       *slog.Logger
	metrics   *metrics
	wake      chan struct{} // something was committed: the background may have work
}

// New returns a compactor.
func New(o Options) *Compactor {
	o.defaults()
	return &Compactor{
		o: o, committer: o.Committer, log: o.Logger.With("stage", "compactor", "source", o.Source),
		metrics: newMetrics(o.Registerer), wake: make(chan struct{}, 1),
	}
}

// Run ingests every lane and works in the background until ctx ends. It only returns early on an error that retrying
// can't mend.
func (c *Compactor) Run(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	for name, lane := range c.o.Lanes {
		in := &ingest{c: c, name: name, lane: lane}
		g.Go(func() error { return in.run(ctx) })
	}
	g.Go(func() error { return c.background(ctx) })
	return g.Wait()
}

// laneID is the number that stands in the rows of a lane: that of its first incarnation. A set that took another's place
// keeps it, as rows of a first image bear it too, and rows fold per number.
func (c *Compactor) laneID(name string) afterimage.LaneID {
	s := c.committer.State()
	for _, l := range s.Lanes {
		if l.Name == name {
			return l.ID
		}
	}
	return afterimage.LaneID(len(s.Lanes))
}

// store closes the writer and puts its object.
func (c *Compactor) store(ctx context.Context, w *segment.Writer) (segment.Meta, error) {
	data, m, err := w.Close()
	if err != nil {
		return m, err
	}
	if err := c.o.Bucket.Put(ctx, segment.ObjectName(m.ID), data); err != nil {
		return m, err
	}
	c.metrics.segments.WithLabelValues(string(m.Kind)).Inc()
	c.metrics.rawBytes.WithLabelValues(string(m.Kind)).Add(float64(m.RawBytes))
	c.metrics.storedBytes.WithLabelValues(string(m.Kind)).Add(float64(m.Bytes))
	return m, nil
}

// committed notes a commit in metrics and wakes the background.
func (c *Compactor) committed(lane string, s *manifest.State, began time.Time) {
	c.metrics.commitSeconds.Observe(time.Since(began).Seconds())
	if l, ok := s.Lane(lane); ok {
		c.metrics.horizon.WithLabelValues(lane).Set(float64(l.Horizon.Seconds()))
	}
	c.metrics.liveSegments.Set(float64(len(s.Segments)))
	c.metrics.manifest.Set(float64(s.Number))
	c.poke()
}

// poke wakes the background.
func (c *Compactor) poke() {
	select {
	case c.wake <- struct{}{}:
	default:
	}
}

// pause waits for d or the end of ctx, whose error it returns.
func pause(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-t.C:
		return nil
	}
}
