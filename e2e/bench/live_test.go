//go:build bench

package bench

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"go.mongodb.org/mongo-driver/bson"
	"go.mongodb.org/mongo-driver/mongo"
	"go.mongodb.org/mongo-driver/mongo/options"
	"golang.org/x/sync/errgroup"

	"github.com/afterimagedb/afterimage"
	"github.com/afterimagedb/afterimage/e2e/bench/workload"
	"github.com/afterimagedb/afterimage/e2e/harness"
	"github.com/afterimagedb/afterimage/listeners"
)

const (
	latencyRate = 365 // writes/s
	impactRate  = 500
	impactPairs = 5
	writers     = 8
)

// live measures what our tail costs while writes come in: from the acknowledgement of a write to the stream, and at the source.
func (b *bench) live(t *testing.T) {
	ctx := t.Context()
	set, err := harness.StartReplicaSet(ctx, harness.Options{Members: 3, CacheGB: .5})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := set.Stop(); err != nil {
			t.Error(err)
		}
	}()
	client, err := set.Client()
	if err != nil {
		t.Fatal(err)
	}
	w := &writing{coll: client.Database(workload.Database).Collection("orders"), g: workload.NewGenerator(seed)}
	if err := w.run(ctx, latencyRate, 200, nil); err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(b.dir, "live")
	l, err := newListening(ctx, orders{Source: "live", URI: set.URI(), Stream: filepath.Join(dir, "stream"), Scratch: filepath.Join(dir, "scratch")})
	if err != nil {
		t.Fatal(err)
	}
	handed := &handing{Publisher: l.lane}
	stop := l.start(ctx, handed)
	if err := l.ready(ctx); err != nil {
		t.Fatal(err)
	}
	seconds := int(min(30, max(8, 30*b.scale)))
	b.latency(t, set, w, l, handed, seconds)
	if err := errors.Join(stop(), l.bus.Close()); err != nil {
		t.Fatal(err)
	}
	b.impact(t, set, w, dir, max(5, seconds/3))
}

// start runs the listener; the function returned ends it.
func (l *listening) start(ctx context.Context, to listeners.Publisher) (stop func() error) {
	run, cancel := context.WithCancel(ctx)
	ended := make(chan error, 1)
	go func() { ended <- l.listener.Run(run, to) }()
	return func() error {
		cancel()
		if err := <-ended; !errors.Is(err, context.Canceled) {
			return err
		}
		return nil
	}
}

// ready waits for the first image of the little that there is.
func (l *listening) ready(ctx context.Context) error {
	select {
	case <-l.member.complete:
		return nil
	case <-time.After(30 * time.Second):
		return errors.New("the first image of the live set does not end")
	case <-ctx.Done():
		return ctx.Err()
	}
}

// handing notes when documents are handed to the stream.
type handing struct {
	listeners.Publisher
	to atomic.Pointer[moments]
}

// Publish notes them and hands them on.
func (h *handing) Publish(ctx context.Context, b *afterimage.Batch) error {
	if m := h.to.Load(); m != nil {
		m.noteAll(b)
	}
	return h.Publisher.Publish(ctx, b)
}

// writing inserts orders at a rate, each acknowledged by a majority.
type writing struct {
	coll *mongo.Collection
	g    *workload.Generator
	next int
}

// moments are times by document number.
type moments struct {
	first int
	at    []atomic.Int64 // nanoseconds since the Unix epoch; 0: not yet
}

func newMoments(first, n int) *moments { return &moments{first: first, at: make([]atomic.Int64, n)} }

func (m *moments) note(n int64) {
	if i := int(n) - m.first; i >= 0 && i < len(m.at) {
		m.at[i].CompareAndSwap(0, time.Now().UnixNano())
	}
}

func (m *moments) noteAll(b *afterimage.Batch) {
	for i := range b.Changes {
		if n, ok := bson.Raw(b.Changes[i].Body).Lookup("seq").Int64OK(); ok {
			m.note(n)
		}
	}
}

// run writes so many documents. Each has its time, whatever became of the one before.
func (w *writing) run(ctx context.Context, perSecond, n int, acknowledged *moments) error {
	type job struct {
		n   int
		doc bson.Raw
	}
	jobs := make(chan job, n)
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error {
		defer close(jobs)
		due := time.NewTimer(0)
		defer due.Stop()
		for began, i := time.Now(), 0; i < n; i++ {
			j := job{w.next, w.g.Order(w.next)}
			w.next++
			due.Reset(time.Until(began.Add(time.Duration(i) * time.Second / time.Duration(perSecond))))
			select {
			case <-due.C:
				jobs <- j
			case <-ctx.Done():
				return ctx.Err()
			}
		}
		return nil
	})
	for range writers {
		group.Go(func() error {
			for j := range jobs {
				if _, err := w.coll.InsertOne(ctx, j.doc); err != nil {
					return err
				}
				if acknowledged != nil {
					acknowledged.note(int64(j.n))
				}
			}
			return nil
		})
	}
	return group.Wait()
}

func (b *bench) latency(t *testing.T, set *harness.ReplicaSet, w *writing, l *listening, handed *handing, seconds int) {
	n := latencyRate * seconds
	published := newMoments(w.next, n)
	handed.to.Store(published)
	acknowledged, durable, seen := newMoments(w.next, n), newMoments(w.next, n), newMoments(w.next, n)
	watched := ""
	run, cancel := context.WithCancel(t.Context())
	defer cancel()
	var group errgroup.Group
	host := l.member.String()
	for _, m := range set.Members {
		if m.Addr() != host {
			continue
		}
		watched = host
		client, err := m.Client()
		if err != nil {
			t.Fatal(err)
		}
		cs, err := client.Watch(run, mongo.Pipeline{}, options.ChangeStream())
		if err != nil {
			t.Fatal(err)
		}
		group.Go(func() error {
			for cs.Next(run) {
				if n, ok := cs.Current.Lookup("fullDocument", "seq").Int64OK(); ok {
					seen.note(n)
				}
			}
			return cs.Err()
		})
	}
	if watched == "" {
		t.Fatalf("the listener reads %q, which is no member", host)
	}
	r, err := l.lane.Read(run, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	group.Go(func() error {
		for {
			batch, _, err := r.Next(run)
			if err != nil {
				return err
			}
			durable.noteAll(batch)
		}
	})
	loaded, calm := context.WithCancel(run)
	defer calm()
	var syncs []time.Duration
	group.Go(func() (err error) {
		syncs, err = syncTimes(loaded, b.dir, 20*time.Millisecond)
		return err
	})
	began := time.Now()
	if err := w.run(run, latencyRate, n, acknowledged); err != nil {
		t.Fatal(err)
	}
	reached := float64(n) / time.Since(began).Seconds()
	calm()
	wait, stopWait := context.WithTimeout(run, 10*time.Second)
	defer stopWait()
	err = harness.Poll(wait, func(context.Context) error {
		if durable.at[n-1].Load() == 0 || seen.at[n-1].Load() == 0 {
			return errors.New("the last write is not in the stream and the change stream yet")
		}
		return nil
	})
	cancel()
	if err := errors.Join(err, canceled(group.Wait())); err != nil {
		t.Fatal(err)
	}
	gathered := after(acknowledged, published)
	ours, theirs, missing := after(acknowledged, durable), after(acknowledged, seen), 0
	for i := range n {
		if durable.at[i].Load() == 0 {
			missing++
		}
	}
	if missing > 0 {
		t.Errorf("%d of %d writes are not in the stream", missing, n)
	}
	o99, t99 := quantile(ours, .99), quantile(theirs, .99)
	b.add(t, row{
		Claim: fmt.Sprintf("write acknowledged by a majority to durable in the stream, %.0f writes/s, p99", reached),
		Peer:  "raw change stream on the same member: " + ms(t99), Ours: ms(o99), Ratio: "+" + ms(o99-t99), Target: "at most 8 ms more",
		Met: o99-t99 <= 8*time.Millisecond,
		Note: fmt.Sprintf("p50 %s (change stream %s); handed to the stream after p50 %s, p99 %s, which acknowledges within %s; fdatasync of 4 KB meanwhile p50 %s, p99 %s; %d writes; what is durable was seen by a reader of the stream",
			ms(quantile(ours, .5)), ms(quantile(theirs, .5)), ms(quantile(gathered, .5)), ms(quantile(gathered, .99)), l.acknowledgements(), ms(quantile(syncs, .5)), ms(quantile(syncs, .99)), n),
	})
}

// acknowledgements says how long the stream took to acknowledge messages, to the upper bound of a bucket.
func (l *listening) acknowledgements() string {
	families, err := l.registry.Gather()
	if err != nil {
		return err.Error()
	}
	for _, f := range families {
		if f.GetName() != "afterimage_stream_ack_seconds" {
			continue
		}
		h := f.GetMetric()[0].GetHistogram()
		at := func(q float64) string {
			for _, b := range h.GetBucket() {
				if float64(b.GetCumulativeCount()) >= q*float64(h.GetSampleCount()) {
					return ms(time.Duration(b.GetUpperBound() * 1e9))
				}
			}
			return "more"
		}
		return fmt.Sprintf("%s (p50), %s (p99) of %d messages", at(.5), at(.99), h.GetSampleCount())
	}
	return "unknown"
}

func canceled(err error) error {
	if errors.Is(err, context.Canceled) {
		return nil
	}
	return err
}

// after is how much later than its acknowledgement each write was seen.
func after(acknowledged, seen *moments) []time.Duration {
	var out []time.Duration
	for i := range acknowledged.at {
		if a, s := acknowledged.at[i].Load(), seen.at[i].Load(); a != 0 && s != 0 {
			out = append(out, time.Duration(s-a))
		}
	}
	return out
}

// impact compares the CPU of the mongods with and without our tail, in pairs of windows whose order alternates.
func (b *bench) impact(t *testing.T, set *harness.ReplicaSet, w *writing, dir string, seconds int) {
	ctx := t.Context()
	tail := func() func() error {
		l, err := newListening(ctx, orders{Source: "live", URI: set.URI(), Stream: filepath.Join(dir, "stream"), Scratch: filepath.Join(dir, "scratch")})
		if err != nil {
			t.Fatal(err)
		}
		stop := l.start(ctx, l.lane)
		return func() error { return errors.Join(stop(), l.bus.Close()) }
	}
	var with, without, added []float64
	for pair := range impactPairs {
		var shares [2]float64 // without, with
		for i := range shares {
			tailing := (i + pair) % 2
			stop := func() error { return nil }
			if tailing == 1 {
				stop = tail()
			}
			share, err := w.share(ctx, set, seconds)
			if err := errors.Join(err, stop()); err != nil {
				t.Fatal(err)
			}
			shares[tailing] = share
		}
		without, with, added = append(without, shares[0]), append(with, shares[1]), append(added, shares[1]-shares[0])
	}
	same := func(x float64) float64 { return x }
	share, base := median(added, same), median(without, same)
	b.add(t, row{
		Claim: fmt.Sprintf("source impact live, %d writes/s: CPU of the mongods that our tail adds", impactRate),
		Peer:  fmt.Sprintf("the same writes without it: %.1f%% of a core", 100*base), Ours: fmt.Sprintf("%.1f%% of a core", 100*share),
		Ratio: ratio(base+share, base), Target: "under 15% of a core", Met: share < .15,
		Note: fmt.Sprintf("median of %d pairs of windows of %d s, which differ by %s; with it %s, without %s", impactPairs, seconds, percents(added), percents(with), percents(without)),
	})
}

// share is the share of a core that the mongods take while writes come in, after a second of them.
func (w *writing) share(ctx context.Context, set *harness.ReplicaSet, seconds int) (float64, error) {
	if err := w.run(ctx, impactRate, impactRate, nil); err != nil {
		return 0, err
	}
	m, err := startMeter(pidsOf(set)...)
	if err == nil {
		err = w.run(ctx, impactRate, impactRate*seconds, nil)
	}
	if err != nil {
		return 0, err
	}
	cpu, wall, err := m.read()
	return cpu.Seconds() / wall.Seconds(), err
}

func percents(xs []float64) string {
	s := slices.Clone(xs)
	slices.Sort(s)
	return fmt.Sprintf("%.1f%% to %.1f%%", 100*s[0], 100*s[len(s)-1])
}
