package stream

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/afterimagedb/afterimage"
)

func TestPublishAndRead(t *testing.T) {
	dir := t.TempDir()
	b, err := Open(testContext(t), Options{Dir: dir, Source: "shop"})
	if err != nil {
		t.Fatal(err)
	}
	l := openLane(t, b, "rs0")
	if last := mustLast(t, l); last.Seq != 0 || !last.To.IsZero() {
		t.Fatalf("last of an empty lane: %+v", last)
	}
	for i := range uint64(50) {
		mustPublish(t, l, batchAt(i*3, i*3+3, 200))
	}
	mustFlush(t, l)
	readChain(t, l, 0, 0, 150)
	if got := readChain(t, l, 10, 30, 150)[0]; got != 11 {
		t.Fatalf("first message after 10 is %d", got)
	}
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}

	b = openBus(t, Options{Dir: dir})
	l = openLane(t, b, "rs0")
	last := mustLast(t, l)
	if last.Seq != 50 || last.To.Hi != 150 || last.Lane != "rs0" || last.Horizon != 150 {
		t.Fatalf("last after a restart: %+v", last)
	}
	mustPublish(t, l, batchAt(150, 151, 1))
	mustFlush(t, l)
	readChain(t, l, 0, 0, 151)
}

func TestBatchMayBeUsedAgain(t *testing.T) {
	l := openLane(t, openBus(t, Options{}), "rs0")
	mustLast(t, l)
	for i := range uint64(40) {
		b := batchAt(i, i+1, 5000)
		mustPublish(t, l, b)
		clear(b.Changes[0].Body)
		clear(b.Changes[0].Key)
	}
	mustFlush(t, l)
	r, err := l.Read(testContext(t), 0)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	for i := range uint64(40) {
		got, _, err := r.Next(testContext(t))
		if err != nil {
			t.Fatal(err)
		}
		if want := batchAt(i, i+1, 5000); !bytes.Equal(got.Changes[0].Body, want.Changes[0].Body) {
			t.Fatalf("batch %d has another body", i)
		}
	}
}

func TestLargeBatchInParts(t *testing.T) {
	l := openLane(t, openBus(t, Options{}), "rs0")
	mustLast(t, l)
	want := batchAt(1, 2, 17<<20)
	mustPublish(t, l, batchAt(0, 1, 10), want, batchAt(2, 3, 10))
	mustFlush(t, l)
	r, err := l.Read(testContext(t), 1)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	got, seq, err := r.Next(testContext(t))
	if err != nil {
		t.Fatal(err)
	}
	if seq != 4 || !bytes.Equal(got.Changes[0].Body, want.Changes[0].Body) {
		t.Fatalf("batch in parts: message %d, %d bytes", seq, len(got.Changes[0].Body))
	}
	readChain(t, l, 0, 0, 3)
}

func TestLastAndTrimKeepTheLastBatchWhole(t *testing.T) {
	l := openLane(t, openBus(t, Options{}), "rs0")
	mustLast(t, l)
	mustPublish(t, l, batchAt(0, 1, 10), batchAt(1, 2, 9<<20))
	mustFlush(t, l)
	if last := mustLast(t, l); last.Seq != 3 || last.To.Hi != 2 {
		t.Fatalf("last: %+v", last)
	}
	if err := l.Trim(testContext(t), 3); err != nil {
		t.Fatal(err)
	}
	if last := mustLast(t, l); last.Seq != 3 || last.To.Hi != 2 {
		t.Fatalf("last after trim: %+v", last)
	}
	readChain(t, l, 0, 1, 2)
	if err := l.Trim(testContext(t), 0); err != nil {
		t.Fatal(err)
	}
	mustPublish(t, l, batchAt(2, 3, 10))
	mustFlush(t, l)
	if err := l.Trim(testContext(t), 4); err != nil {
		t.Fatal(err)
	}
	if got := readChain(t, l, 0, 2, 3); !slices.Equal(got, []uint64{4}) {
		t.Fatalf("left after trim: %v", got)
	}
}

// rawPublish stores messages as a publisher would that dies behind them.
func rawPublish(t *testing.T, l *Lane, msgs ...[]byte) {
	t.Helper()
	for _, m := range msgs {
		if _, err := l.bus.js.Publish(testContext(t), l.subject, m); err != nil {
			t.Fatal(err)
		}
	}
}

func TestUnfinishedBatchIsDropped(t *testing.T) {
	const limit = 1000
	l := openLane(t, openBus(t, Options{}), "rs0")
	encoded, err := EncodeBatch(batchAt(1, 2, 3500))
	if err != nil {
		t.Fatal(err)
	}
	n := partCount(encoded, limit)
	if n != 4 {
		t.Fatalf("%d parts", n)
	}
	rawPublish(t, l, appendPart(nil, encoded, 1, n, limit))
	if last := mustLast(t, l); last.Seq != 0 {
		t.Fatalf("last of a lane with one part: %+v", last)
	}
	if err := l.Trim(testContext(t), 1); err != nil {
		t.Fatal(err)
	}
	mustPublish(t, l, batchAt(0, 1, 10))
	mustFlush(t, l)
	rawPublish(t, l, appendPart(nil, encoded, 1, n, limit), appendPart(nil, encoded, 2, n, limit))
	rawPublish(t, l, appendPart(nil, encoded, 1, n, limit), appendPart(nil, encoded, 2, n, limit), appendPart(nil, encoded, 3, n, limit))
	if last := mustLast(t, l); last.Seq != 2 || last.To.Hi != 1 {
		t.Fatalf("last before unfinished parts: %+v", last)
	}
	if err := l.Trim(testContext(t), 7); err != nil {
		t.Fatal(err)
	}
	mustPublish(t, l, batchAt(1, 2, 10))
	mustFlush(t, l)
	readChain(t, l, 0, 0, 2)
	rawPublish(t, l, appendPart(nil, encoded, 4, n, limit)) // the end of nothing
	if _, err := l.Last(testContext(t)); !errors.Is(err, ErrCorrupt) {
		t.Fatalf("last of a batch whose beginning is missing: %v", err)
	}
}

func TestPublishNeedsLast(t *testing.T) {
	l := openLane(t, openBus(t, Options{}), "rs0")
	if err := l.Publish(testContext(t), batchAt(0, 1, 1)); !errors.Is(err, afterimage.ErrFenced) {
		t.Fatalf("publish before last: %v", err)
	}
}

func TestFencedUntilLast(t *testing.T) {
	b := openBus(t, Options{})
	one, two := openLane(t, b, "rs0"), openLane(t, b, "rs0")
	mustLast(t, one)
	mustLast(t, two)
	mustPublish(t, one, batchAt(0, 1, 1))
	mustFlush(t, one)
	for _, batch := range []*afterimage.Batch{batchAt(0, 2, 1), batchAt(2, 4, 1)} { // the refusal comes sooner or later
		if err := two.Publish(testContext(t), batch); err != nil && !errors.Is(err, afterimage.ErrFenced) {
			t.Fatal(err)
		}
	}
	if err := two.Flush(testContext(t)); !errors.Is(err, afterimage.ErrFenced) {
		t.Fatalf("flush of a fenced publisher: %v", err)
	}
	if err := two.Publish(testContext(t), batchAt(1, 2, 1)); !errors.Is(err, afterimage.ErrFenced) {
		t.Fatalf("publish of a fenced publisher: %v", err)
	}
	if last := mustLast(t, two); last.To.Hi != 1 {
		t.Fatalf("last: %+v", last)
	}
	mustPublish(t, two, batchAt(1, 2, 1))
	mustFlush(t, two)
	readChain(t, one, 0, 0, 2)
}

// A rival's message takes the place of the first flight, so that the sequence that the second expects is there.
func TestSecondFlightDoesNotLandBehindARival(t *testing.T) {
	b := openBus(t, Options{})
	one, two := openLane(t, b, "rs0"), openLane(t, b, "rs0")
	mustLast(t, one)
	mustLast(t, two)
	mustPublish(t, two, batchAt(0, 1, 1))
	mustFlush(t, two)
	one.pub.flights = append(one.pub.flights, &flight{data: []byte("first")}, &flight{data: []byte("second")})
	one.pub.send(0)
	one.pub.send(1)
	if err := one.Flush(testContext(t)); !errors.Is(err, afterimage.ErrFenced) {
		t.Fatalf("flush: %v", err)
	}
	if last := mustLast(t, one); last.Seq != 1 || last.To.Hi != 1 {
		t.Fatalf("last: %+v", last)
	}
}

// raceTo publishes random batches until position to is in the stream.
func raceTo(ctx context.Context, l *Lane, to uint64, step func() uint64) error {
	for {
		last, err := l.Last(ctx)
		if err != nil {
			return err
		}
		at := last.To.Hi
		for err == nil && at < to {
			next := min(at+step(), to)
			size := 10
			if step() == 5 {
				size = 40_000 // several parts at the smallest message size
			}
			err = l.Publish(ctx, batchAt(at, next, size))
			at = next
		}
		if err == nil {
			err = l.Flush(ctx)
		}
		if err == nil {
			return nil
		}
		if !errors.Is(err, afterimage.ErrFenced) {
			return err
		}
	}
}

func TestPublishersMakeOneChain(t *testing.T) {
	url := startServer(t, func(o *server.Options) { o.MaxPayload = minPayloadBytes })
	t.Run("external", func(t *testing.T) {
		raceLanes(t, openBus(t, Options{URL: url}), openBus(t, Options{URL: url}), openBus(t, Options{URL: url}))
	})
	t.Run("embedded", func(t *testing.T) {
		b := openBus(t, Options{})
		raceLanes(t, b, b, b)
	})
}

// raceLanes lets a publisher on each bus publish to the same lane.
func raceLanes(t *testing.T, buses ...*Bus) {
	const to = 600
	ctx := testContext(t)
	var wg sync.WaitGroup
	for i, b := range buses {
		l := openLane(t, b, "rs0")
		n := uint64(i)
		wg.Go(func() {
			err := raceTo(ctx, l, to, func() uint64 { n = n*7 + 3; return 1 + n%6 })
			if err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	readChain(t, openLane(t, buses[0], "rs0"), 0, 0, to)
}

func TestFullStreamWaitsForTrim(t *testing.T) {
	b := openBus(t, Options{MaxBytes: 1 << 20})
	l := openLane(t, b, "rs0")
	mustLast(t, l)
	ctx := testContext(t)
	done := make(chan error, 1)
	go func() {
		for i := range uint64(40) {
			if err := l.Publish(ctx, batchAt(i, i+1, 100_000)); err != nil {
				done <- err
				return
			}
		}
		done <- l.Flush(ctx)
	}()
	reader := openLane(t, b, "rs0")
	r, err := reader.Read(ctx, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	for i := range uint64(40) {
		got, seq, err := r.Next(ctx)
		if err != nil {
			t.Fatal(err)
		}
		if got.From.Hi != i || seq != i+1 {
			t.Fatalf("batch %d: message %d from %d", i, seq, got.From.Hi)
		}
		if i%8 == 7 || i > 30 {
			if err := reader.Trim(ctx, seq); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := <-done; err != nil {
		t.Fatal(err)
	}
}

func messages(t *testing.T, l *Lane) uint64 {
	t.Helper()
	info, err := l.stream.Info(testContext(t))
	if err != nil {
		t.Fatal(err)
	}
	return info.State.Msgs
}

// TestCompactorBeginsWhileThePublisherWaits fills the stream and begins the compactor's side anew (as after a failed
// commit): on a lane of its own it must not wait for the publisher, who waits for it to make room.
func TestCompactorBeginsWhileThePublisherWaits(t *testing.T) {
	b := openBus(t, Options{MaxBytes: 1 << 20})
	l := openLane(t, b, "rs0")
	mustLast(t, l)
	ctx := testContext(t)
	done := make(chan error, 1)
	go func() {
		for i := range uint64(40) {
			if err := l.Publish(ctx, batchAt(i, i+1, 100_000)); err != nil {
				done <- err
				return
			}
		}
		done <- l.Flush(ctx)
	}()
	own := openLane(t, b, "rs0")
	for messages(t, own) < 9 { // of some ten that fit
		if err := pause(ctx, 0); err != nil {
			t.Fatal(err)
		}
	}
	began := make(chan afterimage.Last, 1)
	go func() {
		last, err := own.Last(ctx)
		if err != nil {
			t.Error(err)
		}
		began <- last
	}()
	select {
	case last := <-began:
		if last.Seq == 0 {
			t.Error("nothing in a full stream")
		}
	case <-time.After(10 * time.Second):
		t.Fatal("Last waits for a publisher that waits for room")
	}
	r, err := own.Read(ctx, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	for i := range uint64(40) {
		got, seq, err := r.Next(ctx)
		if err != nil {
			t.Fatal(err)
		}
		if got.From.Hi != i {
			t.Fatalf("message %d: batch from %d, want %d", seq, got.From.Hi, i)
		}
		if err := own.Trim(ctx, seq); err != nil {
			t.Fatal(err)
		}
	}
	if err := <-done; err != nil {
		t.Fatal(err)
	}
}

func TestBatchLargerThanTheStreamHalts(t *testing.T) {
	l := openLane(t, openBus(t, Options{MaxBytes: 1 << 20}), "rs0")
	mustLast(t, l)
	if err := l.Publish(testContext(t), batchAt(0, 1, 600_000)); !errors.Is(err, afterimage.ErrHalt) {
		t.Fatalf("got %v", err)
	}
}

func TestLostAcknowledgement(t *testing.T) {
	b := openBus(t, Options{})
	l := openLane(t, b, "rs0")
	mustLast(t, l)
	// Answers go nowhere: every message looks lost after the timeout.
	l.pub.timeout = 20 * time.Millisecond
	if err := l.pub.sub.Unsubscribe(); err != nil {
		t.Fatal(err)
	}
	for i := range uint64(40) {
		mustPublish(t, l, batchAt(i, i+1, 10))
	}
	mustFlush(t, l)
	if got := readChain(t, l, 0, 0, 40); len(got) != 40 {
		t.Fatalf("%d messages", len(got))
	}
}

func TestSecondProcessIsRefused(t *testing.T) {
	dir := t.TempDir()
	openBus(t, Options{Dir: dir})
	_, err := Open(testContext(t), Options{Dir: dir, Source: "shop"})
	if err == nil || !strings.Contains(err.Error(), "in use by another afterimage process") {
		t.Fatalf("second open: %v", err)
	}
}

func TestLanes(t *testing.T) {
	b := openBus(t, Options{Source: "a b"})
	other, err := newBusOn(b, "a_20b")
	if err != nil {
		t.Fatal(err)
	}
	names := []string{"rs0", "rs.0", "rs_2E0", "é", "rs*", "rs>"}
	for _, n := range names {
		openLane(t, b, n)
	}
	openLane(t, other, "rs0")
	got, err := b.Lanes(testContext(t))
	if err != nil {
		t.Fatal(err)
	}
	slices.Sort(got)
	slices.Sort(names)
	if !slices.Equal(got, names) {
		t.Fatalf("lanes %q", got)
	}
	if _, err := b.Lane(testContext(t), strings.Repeat("x", 101)); err == nil {
		t.Fatal("a name that is too long was taken")
	}
}

// newBusOn makes a bus of another source on the same connection.
func newBusOn(b *Bus, source string) (*Bus, error) {
	c := *b
	c.opts.Source = source
	_, err := cleanName("source", source)
	return &c, err
}

// startServer starts a JetStream server that listens on this machine, as an external one.
func startServer(t testing.TB, change func(*server.Options)) string {
	t.Helper()
	o := serverOptions(t.TempDir(), 0)
	o.DontListen, o.Host, o.Port = false, "127.0.0.1", -1
	o.MaxPayload = 1 << 20
	if change != nil {
		change(o)
	}
	s, err := server.NewServer(o)
	if err != nil {
		t.Fatal(err)
	}
	s.SetLoggerV2(&serverLog{slog.New(slog.DiscardHandler)}, false, false, false)
	s.Start()
	t.Cleanup(func() {
		s.Shutdown()
		s.WaitForShutdown()
	})
	if !s.ReadyForConnections(10 * time.Second) {
		t.Fatal("server did not start")
	}
	return s.ClientURL()
}

func TestExternalServer(t *testing.T) {
	url := startServer(t, func(o *server.Options) { o.Username, o.Password = "u", "secret" })
	_, err := Open(testContext(t), Options{URL: strings.Replace(url, "nats://", "nats://u:wrong@", 1), Source: "shop"})
	if !errors.Is(err, nats.ErrAuthorization) || strings.Contains(err.Error(), "wrong") {
		t.Fatalf("wrong password: %v", err)
	}
	b := openBus(t, Options{URL: url, User: "u", Password: "secret"})
	l := openLane(t, b, "rs0")
	mustLast(t, l)
	mustPublish(t, l, batchAt(0, 3, 100), batchAt(3, 4, 3<<20), batchAt(4, 5, 10))
	mustFlush(t, l)
	readChain(t, l, 0, 0, 5)
	if last := mustLast(t, l); last.To.Hi != 5 || last.Seq != 6 {
		t.Fatalf("last: %+v", last)
	}
}

func TestStreamThatDropsIsRefused(t *testing.T) {
	b := openBus(t, Options{})
	openLane(t, b, "rs0")
	name, _, err := streamNames("shop", "rs0")
	if err != nil {
		t.Fatal(err)
	}
	s, err := b.js.Stream(testContext(t), name)
	if err != nil {
		t.Fatal(err)
	}
	cfg := s.CachedInfo().Config
	cfg.MaxAge = time.Hour
	if _, err := b.js.UpdateStream(testContext(t), cfg); err != nil {
		t.Fatal(err)
	}
	if _, err := b.Lane(testContext(t), "rs0"); !errors.Is(err, afterimage.ErrHalt) {
		t.Fatalf("a stream with a maximum age: %v", err)
	}
}

func TestRedact(t *testing.T) {
	for in, want := range map[string]string{
		"nats://h:1":                      "nats://h:1",
		"nats://u:p@h:1,nats://token@h:2": "nats://xxxxx@h:1,nats://xxxxx@h:2",
		"":                                "embedded",
		"nats://u:%zz@h":                  "(a URL that can't be parsed)",
	} {
		if got := redact(in); got != want {
			t.Errorf("redact(%q) = %q, want %q", in, got, want)
		}
	}
}

// The server switches JetStream off when a write fails for want of space.
func TestServerThatStoppedIsStartedAgain(t *testing.T) {
	t.Parallel()
	b := openBus(t, Options{})
	l := openLane(t, b, "rs0")
	mustLast(t, l)
	mustPublish(t, l, batchAt(0, 1, 10))
	mustFlush(t, l)
	ctx := testContext(t)
	r, err := l.Read(ctx, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	for i := uint64(1); i < 4; i++ {
		if err := b.server.current().ShutdownJetStream(); err != nil {
			t.Fatal(err)
		}
		mustPublish(t, l, batchAt(i, i+1, 10))
		mustFlush(t, l)
	}
	readChain(t, l, 0, 0, 4)
	for i := range uint64(4) {
		got, _, err := r.Next(ctx)
		if err != nil {
			t.Fatal(err)
		}
		if got.From.Hi != i {
			t.Fatalf("batch %d begins at %d", i, got.From.Hi)
		}
	}
}

// A stream does not answer any more once a write failed: the publisher gives up after a time and begins anew.
func TestServerThatDoesNotAnswerIsStartedAgain(t *testing.T) {
	b := openBus(t, Options{})
	l := openLane(t, b, "rs0")
	mustLast(t, l)
	old := b.server.current()
	p := l.pub
	p.patience, p.stalls, p.stalled = time.Millisecond, 1, time.Now().Add(-time.Second)
	p.flights = append(p.flights, &flight{sent: time.Now(), answer: answer{kind: answerLost, text: "silence"}})
	if err := l.Flush(testContext(t)); err == nil || !strings.Contains(err.Error(), "silence") {
		t.Fatalf("flush: %v", err)
	}
	if b.server.current() == old {
		t.Fatal("the server was not started again")
	}
	ctx := testContext(t)
	for { // the connection comes back in its own time
		if _, err := l.Last(ctx); err == nil {
			break
		} else if ctx.Err() != nil {
			t.Fatal(err)
		}
	}
	mustPublish(t, l, batchAt(0, 1, 10))
	mustFlush(t, l)
}

func TestMetrics(t *testing.T) {
	reg := prometheus.NewRegistry()
	l := openLane(t, openBus(t, Options{Registerer: reg}), "rs0")
	openBus(t, Options{Registerer: reg, Source: "another"}) // may share the registry
	rival := openLane(t, l.bus, "rs0")
	mustLast(t, l)
	mustLast(t, rival)
	mustPublish(t, l, batchAt(0, 1, 10_000), batchAt(1, 2, 9<<20))
	mustFlush(t, l)
	mustPublish(t, rival, batchAt(0, 1, 1))
	if err := rival.Flush(testContext(t)); !errors.Is(err, afterimage.ErrFenced) {
		t.Fatalf("rival: %v", err)
	}
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]float64{}
	for _, f := range families {
		m := f.GetMetric()[0]
		got[f.GetName()] = m.GetCounter().GetValue() + m.GetGauge().GetValue() + float64(m.GetHistogram().GetSampleCount())
	}
	for name, want := range map[string]float64{
		"afterimage_stream_published_batches_total": 2,
		"afterimage_stream_fenced_total":            1,
		"afterimage_stream_ack_seconds":             4,
		"afterimage_stream_pending_messages":        0,
		"afterimage_stream_full":                    0,
	} {
		if got[name] != want {
			t.Errorf("%s is %v, want %v", name, got[name], want)
		}
	}
	if raw, stored := got["afterimage_stream_published_raw_bytes_total"], got["afterimage_stream_stored_bytes"]; raw < 9<<20 || stored < 9<<20 {
		t.Errorf("raw bytes %v, stored bytes %v", raw, stored)
	}
}

func TestResetFencesAndGoesOn(t *testing.T) {
	b := openBus(t, Options{})
	l, rival := openLane(t, b, "rs0"), openLane(t, b, "rs0")
	mustLast(t, l)
	mustPublish(t, l, batchAt(0, 1, 1), batchAt(1, 2, 1))
	mustFlush(t, l)
	rival.pub.chained = false // as with an external server
	mustLast(t, rival)
	if err := l.Reset(testContext(t)); err != nil {
		t.Fatal(err)
	}
	if last := mustLast(t, l); last.Seq != 0 {
		t.Fatalf("last after a reset: %+v", last)
	}
	mustPublish(t, l, batchAt(0, 1, 1), batchAt(1, 2, 1))
	mustFlush(t, l)
	mustPublish(t, rival, batchAt(2, 3, 1))
	if err := rival.Flush(testContext(t)); !errors.Is(err, afterimage.ErrFenced) {
		t.Fatalf("a publisher from before the reset: %v", err)
	}
	if got := readChain(t, openLane(t, b, "rs0"), 2, 0, 2); got[0] <= 2 {
		t.Fatalf("sequences after a reset: %v", got)
	}
}
