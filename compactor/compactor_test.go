package compactor

import (
	"cmp"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/goleak"

	"github.com/afterimagedb/afterimage"
	"github.com/afterimagedb/afterimage/bucket"
	"github.com/afterimagedb/afterimage/dialect"
	"github.com/afterimagedb/afterimage/manifest"
	"github.com/afterimagedb/afterimage/segment"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// tape is a lane's stream in memory.
type tape struct {
	mu      sync.Mutex
	batches []afterimage.Batch // sequence i+1
	trimmed uint64
	resets  int
	grown   chan struct{}
}

func newTape(batches ...afterimage.Batch) *tape {
	return &tape{batches: batches, grown: make(chan struct{})}
}

func (t *tape) Last(context.Context) (afterimage.Last, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	n := len(t.batches)
	if n == 0 {
		return afterimage.Last{}, nil
	}
	return afterimage.Last{BatchHeader: t.batches[n-1].BatchHeader, Seq: uint64(n)}, nil
}

func (t *tape) Read(_ context.Context, after uint64) (BatchReader, error) {
	return &tapeReader{t: t, next: max(after, t.trimmed)}, nil
}

func (t *tape) Trim(_ context.Context, seq uint64) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.trimmed = min(seq, uint64(len(t.batches))-1)
	return nil
}

func (t *tape) Reset(context.Context) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.resets++
	return nil
}

type tapeReader struct {
	t    *tape
	next uint64
}

func (r *tapeReader) Next(ctx context.Context) (*afterimage.Batch, uint64, error) {
	r.t.mu.Lock()
	defer r.t.mu.Unlock()
	if int(r.next) < len(r.t.batches) {
		r.next++
		b := r.t.batches[r.next-1]
		b.Changes = slices.Clone(b.Changes)
		return &b, r.next, nil
	}
	r.t.mu.Unlock()
	<-ctx.Done()
	r.t.mu.Lock()
	return nil, 0, ctx.Err()
}

func (r *tapeReader) Close() {}

// lastWrite is a dialect in which the last body wins and an empty body deletes.
type lastWrite struct{ dialect.Dialect }

func (lastWrite) NewFolder() dialect.Folder { return &lastFolder{} }

type lastFolder struct{ st dialect.State }

func (f *lastFolder) Reset(afterimage.TableID, []byte) { f.st = dialect.State{} }
func (f *lastFolder) Apply(c *afterimage.Change) error {
	f.st = dialect.State{Exists: c.Op != afterimage.OpDelete, Body: c.Body, Time: c.Time}
	return nil
}
func (f *lastFolder) State() (dialect.State, error) { return f.st, nil }

// faulty fails its nth write, before or after doing it.
type faulty struct {
	bucket.Bucket
	mu    sync.Mutex
	left  int
	after bool
}

var errInjected = errors.New("injected fault")

func (f *faulty) fail() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.left--
	return f.left == 0
}

func (f *faulty) write(do func() error) error {
	hit := f.fail()
	if hit && !f.after {
		return errInjected
	}
	err := do()
	if hit {
		return errInjected
	}
	return err
}

func (f *faulty) Put(ctx context.Context, name string, data []byte) error {
	return f.write(func() error { return f.Bucket.Put(ctx, name, data) })
}

func (f *faulty) Create(ctx context.Context, name string, data []byte) error {
	return f.write(func() error { return f.Bucket.Create(ctx, name, data) })
}

var users = afterimage.TableID{0: 0xaa}

// history makes batches of random changes: their header chain is unbroken.
func history(r *rand.Rand, batches int) ([]afterimage.Batch, []afterimage.Change) {
	var out []afterimage.Batch
	var all []afterimage.Change
	at := uint64(100)
	for i := range batches {
		b := afterimage.Batch{BatchHeader: afterimage.BatchHeader{Lane: "rs0", Incarnation: "x", Epoch: 1, From: afterimage.Position{Hi: at}}}
		if i == 0 {
			at++
			c := afterimage.Change{
				Time: afterimage.Time(at), Pos: afterimage.Position{Hi: at}, Op: afterimage.OpInsert,
				Table: afterimage.CatalogTable, Key: users[:], Body: []byte("users"),
			}
			b.Changes, all = append(b.Changes, c), append(all, c)
		}
		for range r.IntN(20) {
			at++
			c := afterimage.Change{
				Time: afterimage.Time(at), Pos: afterimage.Position{Hi: at}, Op: afterimage.OpPut, Table: users,
				Key: binary.BigEndian.AppendUint16(nil, uint16(r.IntN(50))), Body: fmt.Appendf(nil, "body %d", at),
			}
			if r.IntN(8) == 0 {
				c.Op, c.Body = afterimage.OpDelete, nil
			}
			b.Changes = append(b.Changes, c)
			all = append(all, c)
		}
		b.To, b.Horizon = afterimage.Position{Hi: at}, afterimage.Time(at)
		out = append(out, b)
	}
	return out, all
}

// compact runs a compactor until the lane is covered to goal and the background is idle, or the deadline comes.
func compact(t *testing.T, b bucket.Bucket, tp *tape, goal afterimage.Position, p Policy) error {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	store, err := manifest.Open(ctx, b, "s", "mongodb")
	if err != nil {
		return err
	}
	committer, err := manifest.NewCommitter(ctx, store)
	if err != nil {
		return err
	}
	c := New(Options{
		Source: "s", Bucket: b, Committer: committer, Dialect: lastWrite{}, Lanes: map[string]Lane{"rs0": tp}, Policy: p,
		LevelZeroBytes: 2000, CommitEvery: time.Millisecond, RetryAfter: time.Millisecond,
		Logger: slog.New(slog.DiscardHandler), Registerer: prometheus.NewRegistry(),
	})
	done := make(chan error, 1)
	run, stop := context.WithCancel(ctx)
	go func() { done <- c.Run(run) }()
	defer func() {
		stop()
		if err := <-done; !errors.Is(err, context.Canceled) {
			t.Errorf("the compactor ended with %v", err)
		}
	}()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		}
		s := committer.State()
		if l, ok := s.Lane("rs0"); ok && !l.Covered.Less(goal) && c.o.Policy.planMerge(s) == nil && c.o.Policy.planImage(s) == nil {
			return nil
		}
	}
}

// stored reads every change out of the live segments, each segment once.
func stored(t *testing.T, b bucket.Bucket) (*manifest.State, []afterimage.Change) {
	t.Helper()
	store, err := manifest.Open(t.Context(), b, "s", "")
	if err != nil {
		t.Fatal(err)
	}
	s, err := store.Load(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	var out []afterimage.Change
	for _, m := range s.Segments {
		if m.Kind != segment.Changes {
			continue
		}
		it, err := segment.Open(t.Context(), b, m, segment.ReadOptions{})
		if err != nil {
			t.Fatal(err)
		}
		for it.Next() {
			c := *it.Change()
			c.Key, c.Body = slices.Clone(c.Key), slices.Clone(c.Body)
			out = append(out, c)
		}
		if err := it.Err(); err != nil {
			t.Fatal(err)
		}
		it.Close()
	}
	slices.SortFunc(out, func(a, b afterimage.Change) int { return cmp.Compare(a.Time, b.Time) })
	return s, out
}

func checkStored(t *testing.T, got, want []afterimage.Change) {
	t.Helper()
	if len(got) != len(want) {
		t.Fatalf("%d changes stored, want %d", len(got), len(want))
	}
	for i := range got {
		if got[i].Compare(&want[i]) != 0 || string(got[i].Body) != string(want[i].Body) {
			t.Fatalf("change %d: %v %q, want %v %q", i, got[i].Time, got[i].Body, want[i].Time, want[i].Body)
		}
	}
}

var small = Policy{FanIn: 3, SegmentBytes: 1 << 10, ImageFraction: 0.5, ImageMinBytes: 1}

// TestEveryFault fails each write of the bucket in turn, before or after it happened: every change is stored once.
func TestEveryFault(t *testing.T) {
	batches, all := history(rand.New(rand.NewPCG(1, 2)), 30)
	goal := batches[len(batches)-1].To
	for _, after := range []bool{false, true} {
		for n := 1; n < 40; n += 3 {
			b := &faulty{Bucket: bucket.NewMemory(), left: n, after: after}
			if err := compact(t, b, newTape(batches...), goal, small); err != nil && !errors.Is(err, errInjected) {
				t.Fatalf("fault %d (after %v): %v", n, after, err)
			} else if err != nil { // in opening: the next start goes on
				if err := compact(t, b, newTape(batches...), goal, small); err != nil {
					t.Fatal(err)
				}
			}
			_, got := stored(t, b)
			checkStored(t, got, all)
		}
	}
}

// TestRestarts kills the compactor at random coverage, restarts it on the same stream, and rewinds the stream at times.
func TestRestarts(t *testing.T) {
	for seed := range uint64(10) {
		r := rand.New(rand.NewPCG(seed, 7))
		batches, all := history(r, 40)
		b := bucket.NewMemory()
		for _, upTo := range []int{5 + r.IntN(10), 20 + r.IntN(10), len(batches)} {
			tp := newTape(batches[:upTo]...) // never trimmed before this run: everything comes again
			if err := compact(t, b, tp, batches[upTo-1].To, small); err != nil {
				t.Fatalf("seed %d: %v", seed, err)
			}
		}
		_, got := stored(t, b)
		checkStored(t, got, all)
	}
}

// TestImagesEqualModel checks that reading any time after the first image through the images equals the model.
func TestImagesEqualModel(t *testing.T) {
	for seed := range uint64(5) {
		batches, all := history(rand.New(rand.NewPCG(seed, 9)), 60)
		b := bucket.NewMemory()
		if err := compact(t, b, newTape(batches...), batches[len(batches)-1].To, small); err != nil {
			t.Fatal(err)
		}
		s, _ := stored(t, b)
		if len(s.Images) == 0 {
			t.Fatal("no image was built: the test shows nothing")
		}
		for at := afterimage.Time(100); at <= all[len(all)-1].Time; at += 7 {
			model := map[string]string{}
			for _, c := range all {
				if c.Time > at {
					break
				}
				if c.Table != users {
					continue
				}
				model[string(c.Key)] = string(c.Body)
				if c.Op == afterimage.OpDelete {
					delete(model, string(c.Key))
				}
			}
			checkRows(t, b, s, at, model)
		}
	}
}

func checkRows(t *testing.T, b bucket.Bucket, s *manifest.State, at afterimage.Time, model map[string]string) {
	t.Helper()
	got := map[string]string{}
	for _, p := range s.Cover(afterimage.TableRange(users), at) {
		it, err := p.Open(t.Context(), b, at)
		if err != nil {
			t.Fatal(err)
		}
		for it.Next() {
			c := it.Change()
			got[string(c.Key)] = string(c.Body)
			if c.Op == afterimage.OpDelete {
				delete(got, string(c.Key))
			}
		}
		if err := it.Err(); err != nil {
			t.Fatal(err)
		}
		it.Close()
	}
	if fmt.Sprint(got) != fmt.Sprint(model) {
		t.Fatalf("at %d:\n%v\nwant\n%v", at, got, model)
	}
}
