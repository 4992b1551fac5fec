//go:build bench

package bench

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"runtime/pprof"
	"strings"
	"syscall"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/errgroup"

	"github.com/afterimagedb/afterimage"
	"github.com/afterimagedb/afterimage/bucket"
	"github.com/afterimagedb/afterimage/compactor"
	"github.com/afterimagedb/afterimage/dialect/mongodb"
	"github.com/afterimagedb/afterimage/listeners"
	listener "github.com/afterimagedb/afterimage/listeners/mongodb"
	"github.com/afterimagedb/afterimage/manifest"
	"github.com/afterimagedb/afterimage/stream"
)

// childVariable holds the orders of a listening process.
const childVariable = "AFTERIMAGE_BENCH_CHILD"

// orders of a listening process.
type orders struct {
	Source, URI string
	Stream      string // folder
	Bucket      string // folder, of the source
	Scratch     string
	UpTo        afterimage.Time // when this is durable it ends; 0: never
	Compact     bool            // with the compactor
	Image       bool            // it ends when the first image is complete instead
	Profile     string          // file for a CPU profile, or none
}

// outcome of a listening process.
type outcome struct {
	Durable   int64 // when all was durable in the stream, nanoseconds since the Unix epoch
	CPU       time.Duration
	Peak      int64  // bytes of memory
	Member    string // that was read
	Published map[string]float64
	wall      time.Duration // from the start of the process to Durable
}

// listen runs a listening process to its end.
func listen(ctx context.Context, o orders) (outcome, error) {
	var out outcome
	text, err := json.Marshal(o)
	if err != nil {
		return out, err
	}
	cmd := exec.CommandContext(ctx, os.Args[0])
	cmd.Env = append(os.Environ(), childVariable+"="+string(text), "GOGC=50", "GOMEMLIMIT=256MiB") // as `afterimage serve` sets them
	cmd.Stderr = os.Stderr
	began := time.Now()
	printed, err := cmd.Output()
	if err != nil {
		return out, fmt.Errorf("listening process: %w", err)
	}
	if err := json.Unmarshal(printed, &out); err != nil {
		return out, fmt.Errorf("listening process printed %q: %w", printed, err)
	}
	out.wall = time.Unix(0, out.Durable).Sub(began)
	return out, nil
}

// beChild is the listening process. It returns when its work is durable.
func beChild(text string) error {
	var o orders
	if err := json.Unmarshal([]byte(text), &o); err != nil {
		return err
	}
	if o.Profile != "" {
		f, err := os.Create(o.Profile)
		if err != nil {
			return err
		}
		defer f.Close()
		if err := pprof.StartCPUProfile(f); err != nil {
			return err
		}
		defer pprof.StopCPUProfile()
	}
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Minute)
	defer cancel()
	l, err := newListening(ctx, o)
	if err != nil {
		return err
	}
	defer l.bus.Close()
	done := &until{Publisher: l.lane, upTo: o.UpTo, done: make(chan struct{})}
	g, run := errgroup.WithContext(ctx)
	g.Go(func() error { return l.listener.Run(run, done) })
	if o.Compact {
		g.Go(func() error { return l.compact(run, o) })
	}
	finished := done.done
	if o.Image {
		finished = l.member.complete
	}
	select {
	case <-finished:
	case <-run.Done():
		return g.Wait()
	}
	if o.Image {
		done.at = time.Now()
	}
	out := outcome{Durable: done.at.UnixNano(), Peak: peakMemory(os.Getpid()), Member: l.member.String(), Published: l.counters()}
	var r syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &r); err != nil {
		return err
	}
	out.CPU = time.Duration(r.Utime.Nano() + r.Stime.Nano())
	cancel()
	if err := g.Wait(); err != nil && !errors.Is(err, context.Canceled) {
		return err
	}
	return json.NewEncoder(os.Stdout).Encode(out)
}

// until tells when everything up to a time is durable.
type until struct {
	listeners.Publisher
	upTo afterimage.Time
	done chan struct{}
	at   time.Time // read after done
}

// Publish hands the batch on.
func (u *until) Publish(ctx context.Context, b *afterimage.Batch) error {
	if err := u.Publisher.Publish(ctx, b); err != nil {
		return err
	}
	if u.upTo == 0 || !u.at.IsZero() || b.To.Less(afterimage.Position{Hi: uint64(u.upTo)}) {
		return nil
	}
	if err := u.Flush(ctx); err != nil {
		return err
	}
	u.at = time.Now()
	close(u.done)
	return nil
}

// listening is the product's stages as the product joins them.
type listening struct {
	name     string // of the lane
	bus      *stream.Bus
	lane     *stream.Lane
	store    *manifest.Store
	bucket   bucket.Bucket
	listener *listener.Listener
	registry *prometheus.Registry
	member   *heard
}

func newListening(ctx context.Context, o orders) (*listening, error) {
	l := &listening{registry: prometheus.NewRegistry(), member: newHeard()}
	var err error
	if o.Bucket == "" {
		l.bucket = bucket.NewMemory()
	} else if l.bucket, err = bucket.NewFolder(o.Bucket); err != nil {
		return nil, err
	}
	if l.store, err = manifest.Open(ctx, l.bucket, o.Source, mongodb.New().Name()); err != nil {
		return nil, err
	}
	if l.bus, err = stream.Open(ctx, stream.Options{URL: stream.Embedded, Dir: o.Stream, Source: o.Source, Registerer: l.registry}); err != nil {
		return nil, err
	}
	id, err := listener.Identify(ctx, o.URI)
	if err == nil {
		l.name = id.Lane
		l.lane, err = l.bus.Lane(ctx, id.Lane)
	}
	if err == nil {
		err = os.MkdirAll(o.Scratch, 0o750)
	}
	if err == nil {
		l.listener, err = listener.New(listener.Options{
			Source: o.Source, URI: o.URI, Bucket: l.bucket, State: l.store.Load, Scratch: o.Scratch,
			Logger: slog.New(l.member), Registerer: l.registry,
		})
	}
	if err != nil {
		return nil, errors.Join(err, l.bus.Close())
	}
	return l, nil
}

func (l *listening) compact(ctx context.Context, o orders) error {
	committer, err := manifest.NewCommitter(ctx, l.store)
	if err != nil {
		return err
	}
	// As in serve: reading the lane's last batch begins a session, so the compactor has a lane of its own.
	own, err := l.bus.Lane(ctx, l.name)
	if err != nil {
		return err
	}
	c := compactor.New(compactor.Options{
		Source: o.Source, Bucket: l.bucket, Committer: committer, Dialect: mongodb.New(),
		Lanes:  map[string]compactor.Lane{l.name: compactLane{own}},
		Logger: slog.New(slog.DiscardHandler), Registerer: l.registry,
	})
	return c.Run(ctx)
}

// compactLane gives a stream's lane the shape that the compactor declares.
type compactLane struct{ *stream.Lane }

// Read opens a reader.
func (l compactLane) Read(ctx context.Context, after uint64) (compactor.BatchReader, error) {
	return l.Lane.Read(ctx, after)
}

// counters are the sums of the metrics of listener and stream.
func (l *listening) counters() map[string]float64 {
	out := map[string]float64{}
	families, err := l.registry.Gather()
	if err != nil {
		return out
	}
	for _, f := range families {
		name := strings.TrimPrefix(f.GetName(), "afterimage_")
		for _, m := range f.GetMetric() {
			if c := m.GetCounter(); c != nil {
				out[name] += c.GetValue()
			}
		}
	}
	return out
}

// heard is a logger that remembers which member a listener reads and whether its first image is complete.
type heard struct {
	slog.Handler
	host     chan string
	complete chan struct{}
}

func newHeard() *heard {
	return &heard{Handler: slog.DiscardHandler, host: make(chan string, 64), complete: make(chan struct{}, 64)}
}

// Enabled says that everything is listened to.
func (*heard) Enabled(context.Context, slog.Level) bool { return true }

// WithAttrs keeps nothing.
func (h *heard) WithAttrs([]slog.Attr) slog.Handler { return h }

// WithGroup keeps nothing.
func (h *heard) WithGroup(string) slog.Handler { return h }

// Handle looks for the two.
func (h *heard) Handle(_ context.Context, r slog.Record) error {
	if strings.HasPrefix(r.Message, "first image: complete") {
		select {
		case h.complete <- struct{}{}:
		default:
		}
	}
	if r.Level >= slog.LevelWarn {
		fmt.Fprintln(os.Stderr, r.Message, attributes(&r))
	}
	r.Attrs(func(a slog.Attr) bool {
		if a.Key == "member" {
			select {
			case h.host <- a.Value.String():
			default:
			}
		}
		return true
	})
	return nil
}

func attributes(r *slog.Record) string {
	var out []string
	r.Attrs(func(a slog.Attr) bool { out = append(out, a.String()); return true })
	return strings.Join(out, " ")
}

// String is the last member that was read, if any.
func (h *heard) String() string {
	select {
	case s := <-h.host:
		return s
	default:
		return ""
	}
}

// copyOf copies a folder, so that a run does not change what the next one starts from.
func copyOf(from, to string) (string, error) {
	if err := os.MkdirAll(filepath.Dir(to), 0o750); err != nil {
		return "", err
	}
	return to, os.CopyFS(to, os.DirFS(from))
}
