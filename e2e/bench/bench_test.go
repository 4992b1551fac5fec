//go:build bench

package bench

import (
	"context"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"github.com/afterimagedb/afterimage/e2e/harness"
	"github.com/afterimagedb/afterimage/e2e/product"
)

func TestMain(m *testing.M) {
	if text := os.Getenv(childVariable); text != "" {
		if err := beChild(text); err != nil {
			fmt.Fprintln(os.Stderr, "listening process:", err)
			os.Exit(1)
		}
		return
	}
	flag.Parse()
	os.Exit(m.Run())
}

// bench is a run: its rows share what they can.
type bench struct {
	sizes
	report *report
	dir    string
	binary string

	main    *protected
	image   *image
	ops     *operations
	backlog *backlog
}

func TestBench(t *testing.T) {
	b := &bench{sizes: sizesFromEnvironment(t), dir: t.TempDir()}
	b.report = newReport(b.scale)
	var err error
	if b.binary, err = product.Build(t.Context(), b.dir); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if b.main != nil {
			if err := b.main.stop(); err != nil {
				t.Error(err)
			}
		}
		t.Log("\n" + b.report.markdown())
		if len(b.report.Rows) > 0 {
			if err := b.report.write(filepath.Join("..", "..")); err != nil {
				t.Error(err)
			}
		}
	})
	t.Run("Live", b.live)
	t.Run("Stored", b.stored)
	t.Run("Image", b.firstImage)
	t.Run("Backlog", b.readBacklog)
	t.Run("History", b.history)
	t.Run("Snapshot", b.snapshot)
	t.Run("Restore", b.restore)
}

func sizesFromEnvironment(t *testing.T) sizes {
	s := sizes{scale: 1}
	if text := os.Getenv("AFTERIMAGE_BENCH_SCALE"); text != "" {
		var err error
		if s.scale, err = strconv.ParseFloat(text, 64); err != nil || s.scale <= 0 {
			t.Fatalf("AFTERIMAGE_BENCH_SCALE=%q: want a number above 0, such as 0.1", text)
		}
	}
	s.docs, s.ops = int(300_000*s.scale), int(500_000*s.scale)
	return s
}

func (b *bench) add(t *testing.T, r row) {
	t.Helper()
	b.report.Rows = append(b.report.Rows, r)
	t.Log("\n" + tableHead + r.String())
}

// scaled is a target that shrinks with the work.
func (b *bench) scaled(d time.Duration) time.Duration { return time.Duration(float64(d) * b.scale) }

// imaged is the main set with its first image.
func (b *bench) imaged(t *testing.T) *image {
	if b.image != nil {
		return b.image
	}
	if b.main != nil {
		t.Skip("the first image failed before")
	}
	ctx := context.WithoutCancel(t.Context()) // the sets outlive the row
	var err error
	if b.main, err = protect(ctx, b.binary, filepath.Join(b.dir, "main"), harness.Options{Members: 3, CacheGB: 1, OplogMB: 4096}); err != nil {
		t.Fatal(err)
	}
	bound, cancel := context.WithTimeout(ctx, 15*time.Minute)
	defer cancel()
	began := time.Now()
	m, err := b.main.firstImage(bound, b.sizes)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("step image: %s", time.Since(began).Round(time.Second))
	b.image = &m
	return b.image
}

// operated is the main set after the operations, not yet read.
func (b *bench) operated(t *testing.T) *operations {
	b.imaged(t)
	if b.ops == nil {
		bound, cancel := context.WithTimeout(t.Context(), 20*time.Minute)
		defer cancel()
		o, err := b.main.operate(bound, b.sizes)
		if err != nil {
			t.Fatal(err)
		}
		t.Logf("step operations: %s", o.wall.Round(time.Second))
		b.ops = &o
	}
	return b.ops
}

// caughtUp is the main set with everything in the bucket.
func (b *bench) caughtUp(t *testing.T) *backlog {
	o := b.operated(t)
	if b.backlog == nil {
		bound, cancel := context.WithTimeout(t.Context(), 15*time.Minute)
		defer cancel()
		began := time.Now()
		l, err := b.main.catchUp(bound, *o)
		if err != nil {
			t.Fatal(err)
		}
		t.Logf("step backlog: %s", time.Since(began).Round(time.Second))
		b.backlog = &l
	}
	return b.backlog
}

func (b *bench) firstImage(t *testing.T) {
	m := b.imaged(t)
	target, size := b.scaled(4*time.Second), int64(82e6*b.scale)
	b.add(t, row{
		Claim: fmt.Sprintf("first image of %d documents while writes go on, CPU", b.docs), Peer: "mongodump --gzip: " + secs(m.dump.cpu), Ours: secs(m.cpu),
		Ratio: ratio(m.cpu.Seconds(), m.dump.cpu.Seconds()), Target: "under " + secs(target), Met: m.cpu < target,
		Note: fmt.Sprintf("whole process from its start, %d writes meanwhile; took %s (mongodump %s), %s of memory (mongodump %s)", m.writes, secs(m.wall), secs(m.dump.wall), mb(m.peak), mb(m.dump.peak)),
	})
	b.add(t, row{
		Claim: "first image, stored bytes", Peer: "mongodump --gzip: " + mb(m.dumpBytes), Ours: mb(m.stored),
		Ratio: ratio(float64(m.stored), float64(m.dumpBytes)), Target: "at most " + mb(size), Met: m.stored <= size,
	})
}

func (b *bench) readBacklog(t *testing.T) {
	l := b.caughtUp(t)
	raw := median(l.raw, reading.perSecond)
	changes := median(l.changes, reading.perSecond)
	rate := func(o outcome) float64 { return float64(raw.entries) / o.wall.Seconds() }
	whole, alone := median(l.whole, rate), median(l.alone, rate)
	bytes := func(r float64) string { return fmt.Sprintf("%.0f MB/s", r*float64(raw.bytes)/float64(raw.entries)/1e6) }
	note := func(o outcome) string {
		return fmt.Sprintf("%s from the start of the process, %s of CPU; %s as %.0f messages in the stream, each synced; runs %s", secs(o.wall), secs(o.CPU),
			mb(int64(o.Published["stream_published_bytes_total"])), o.Published["stream_published_batches_total"], walls(l.whole, l.alone, o))
	}
	b.add(t, row{
		Claim: fmt.Sprintf("backlog of %d entries, %s, oplog to durable in the stream, whole process with its compactor", raw.entries, mb(raw.bytes)),
		Peer:  fmt.Sprintf("raw read by the driver: %.0f/s, %s", raw.perSecond(), bytes(raw.perSecond())),
		Ours:  fmt.Sprintf("%.0f/s, %s", rate(whole), bytes(rate(whole))), Ratio: ratio(rate(whole), raw.perSecond()),
		Target: "at least 0.25", Met: rate(whole) >= raw.perSecond()/4, Note: note(whole),
	})
	b.add(t, row{
		Claim: "same, beside a change stream", Peer: fmt.Sprintf("raw change stream: %.0f events/s", changes.perSecond()),
		Ours:  fmt.Sprintf("%.0f/s = %.0f changes/s", rate(whole), rate(whole)*float64(changes.entries)/float64(raw.entries)),
		Ratio: ratio(rate(whole), changes.perSecond()), Target: "at least 2", Met: rate(whole) >= 2*changes.perSecond(),
		Note: "our entries beside its events, though an entry of a transaction holds four",
	})
	b.add(t, row{
		Claim: "same, listener and stream without a compactor beside them", Peer: fmt.Sprintf("raw read: %.0f/s", raw.perSecond()),
		Ours: fmt.Sprintf("%.0f/s, %s", rate(alone), bytes(rate(alone))), Ratio: ratio(rate(alone), raw.perSecond()),
		Target: "at least 0.25", Met: rate(alone) >= raw.perSecond()/4, Note: note(alone),
	})
	peak := max(l.peak, peakOf(l.whole))
	b.add(t, row{
		Claim: "same, memory", Peer: "", Ours: mb(peak), Target: "under 200 MB", Met: peak < 200e6,
		Note: fmt.Sprintf("the most of %d runs with a compactor, of which `serve` %s; listener and stream alone %s; `serve` until the bucket has it all %s and %s of CPU, until the compactor rests %s and %s",
			len(l.whole)+1, mb(l.peak), mb(peakOf(l.alone)), secs(l.covered), secs(l.coveredCPU), secs(l.settled), secs(l.settledCPU)),
	})
	cpu := median(l.aloneCPU, time.Duration.Seconds)
	target := b.scaled(600 * time.Millisecond)
	b.add(t, row{
		Claim: "source impact of the backlog, CPU of the mongods", Peer: fmt.Sprintf("change stream: %s; raw read: %s", secs(l.changesCPU), secs(l.rawCPU)), Ours: secs(cpu),
		Ratio: ratio(cpu.Seconds(), l.changesCPU.Seconds()), Target: "under " + secs(target), Met: cpu < target,
		Note: fmt.Sprintf("less what the idle set takes, %.1f%% of a core", 100*l.idle),
	})
}

func walls(whole, alone []outcome, o outcome) string {
	all := alone
	for _, w := range whole {
		if w.Durable == o.Durable {
			all = whole
		}
	}
	out := ""
	for _, x := range all {
		out += " " + secs(x.wall)
	}
	return out[1:]
}

func peakOf(os []outcome) int64 {
	var most int64
	for _, o := range os {
		most = max(most, o.Peak)
	}
	return most
}

func ratio(a, b float64) string {
	if b == 0 {
		return ""
	}
	return fmt.Sprintf("%.2f", a/b)
}
