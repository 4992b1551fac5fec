package compactor

import (
	"errors"
	"log/slog"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/afterimagedb/afterimage"
	"github.com/afterimagedb/afterimage/bucket"
	"github.com/afterimagedb/afterimage/manifest"
	"github.com/afterimagedb/afterimage/segment"
)

// newIngest makes a lane's ingest that flushes only when told to.
func newIngest(t *testing.T, b bucket.Bucket, tp *tape) *ingest {
	t.Helper()
	store, err := manifest.Open(t.Context(), b, "s", "mongodb")
	if err != nil {
		t.Fatal(err)
	}
	committer, err := manifest.NewCommitter(t.Context(), store)
	if err != nil {
		t.Fatal(err)
	}
	c := New(Options{
		Source: "s", Bucket: b, Committer: committer, Dialect: lastWrite{}, CommitEvery: time.Hour,
		Logger: slog.New(slog.DiscardHandler), Registerer: prometheus.NewRegistry(),
	})
	return &ingest{c: c, name: "rs0", lane: tp}
}

func (in *ingest) take(t *testing.T, batches ...afterimage.Batch) {
	t.Helper()
	for i := range batches {
		if err := in.continues(t.Context(), &batches[i].BatchHeader); err != nil {
			t.Fatal(err)
		}
		in.add(&batches[i], uint64(i+1))
	}
}

func (in *ingest) mustFlush(t *testing.T) {
	t.Helper()
	if err := in.flush(t.Context()); err != nil {
		t.Fatal(err)
	}
}

// TestSequenceIsAHint makes the stream anew while the compactor is away, with more messages than the manifest's sequence:
// nothing is missing in it, so it must not be emptied.
func TestSequenceIsAHint(t *testing.T) {
	batches, all := history(rand.New(rand.NewPCG(3, 3)), 60)
	b := bucket.NewMemory()
	if err := compact(t, b, newTape(batches[:20]...), batches[19].To, small); err != nil {
		t.Fatal(err)
	}
	tp := newTape(batches[20:]...)
	if err := compact(t, b, tp, batches[59].To, small); err != nil {
		t.Fatal(err)
	}
	if tp.resets != 0 {
		t.Errorf("a stream in which nothing is missing was emptied %d times", tp.resets)
	}
	_, got := stored(t, b)
	checkStored(t, got, all)
}

// TestBrokenChainKeepsWhatCameBefore loses a batch: what came before it is committed before the stream is emptied.
func TestBrokenChainKeepsWhatCameBefore(t *testing.T) {
	batches, _ := history(rand.New(rand.NewPCG(4, 4)), 20)
	if batches[10].From == batches[10].To {
		t.Fatal("the batch to lose is empty")
	}
	in := newIngest(t, bucket.NewMemory(), newTape())
	in.take(t, batches[:10]...)
	if err := in.continues(t.Context(), &batches[11].BatchHeader); !errors.Is(err, manifest.ErrBroken) {
		t.Fatalf("a hole between batches: %v", err)
	}
	if l, ok := in.c.committer.State().Lane("rs0"); !ok || l.Covered != batches[9].To {
		t.Errorf("covered to %v, want %v", l.Covered, batches[9].To)
	}
}

// TestOvertakenByAnotherCompactor lets another process commit what is gathered, and then the background learn of it: the
// gathered changes were cut by a coverage that no longer holds, so they must not be stored.
func TestOvertakenByAnotherCompactor(t *testing.T) {
	batches, all := history(rand.New(rand.NewPCG(5, 5)), 10)
	b := bucket.NewMemory()
	ours, theirs := newIngest(t, b, newTape(batches...)), newIngest(t, b, newTape(batches...))
	ours.take(t, batches...)
	theirs.take(t, batches...)
	theirs.mustFlush(t)
	_, err := ours.c.committer.Commit(t.Context(), func(s *manifest.State) (manifest.Edit, error) {
		return manifest.Edit{SetBoundaries: []afterimage.Bound{{Table: users}}}, nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := ours.flush(t.Context()); !errors.Is(err, errOvertaken) {
		t.Errorf("flush: %v", err)
	}
	_, got := stored(t, b)
	checkStored(t, got, all)
}

// TestEpochThatIsOverComesAgain reads a stream that was rewound behind a gap.
func TestEpochThatIsOverComesAgain(t *testing.T) {
	batches, _ := history(rand.New(rand.NewPCG(6, 6)), 5)
	in := newIngest(t, bucket.NewMemory(), newTape())
	in.take(t, batches...)
	in.mustFlush(t)
	next := batches[4].BatchHeader
	next.Epoch, next.From.Hi, next.To.Hi = 2, next.To.Hi+100, next.To.Hi+200
	in.take(t, afterimage.Batch{BatchHeader: next})
	in.mustFlush(t)
	in.take(t, batches...)
	if in.table.len() != 0 {
		t.Errorf("%d changes of an epoch that is over were taken in again", in.table.len())
	}
	in.mustFlush(t)
}

// TestReplacedSetKeepsItsRowsLane writes changes of a replica set that took another's place: its first image bears the
// lane's first number, so its changes must, or rows would not fold with their image.
func TestReplacedSetKeepsItsRowsLane(t *testing.T) {
	batches, _ := history(rand.New(rand.NewPCG(7, 7)), 6)
	b := bucket.NewMemory()
	in := newIngest(t, b, newTape())
	for i, batch := range batches {
		if i > 1 {
			batch.Incarnation = "y"
		}
		in.take(t, batch)
		in.mustFlush(t)
	}
	s, got := stored(t, b)
	if len(s.Lanes) != 2 {
		t.Fatalf("%d lanes", len(s.Lanes))
	}
	for _, c := range got {
		if c.Lane != 0 {
			t.Fatalf("change at %s of lane %d", c.Time, c.Lane)
		}
	}
}

// TestMassDeleteComesAgain fails the flush that would have raised an event.
func TestMassDeleteComesAgain(t *testing.T) {
	var m memtable
	for i := range massDeleteMin {
		m.add(&afterimage.Change{Time: afterimage.Time(i + 1), Wall: time.Hour.Milliseconds(), Op: afterimage.OpDelete, Table: users, Key: []byte{byte(i >> 8), byte(i)}})
	}
	var w deleteWatch
	for range 2 {
		if n := len(w.events(&m)); n != 1 {
			t.Fatalf("%d events before any is committed, want 1", n)
		}
	}
	w.committed()
	if n := len(w.events(&m)); n != 0 {
		t.Errorf("%d events right after one was committed, want none", n)
	}
}

// TestNoImageBeforeTheFirst waits until the horizon has reached a first image: before that updates have no base.
func TestNoImageBeforeTheFirst(t *testing.T) {
	s := manifest.NewState()
	s.Lanes = []manifest.Lane{{Name: "rs0", Horizon: 19}}
	row := afterimage.Bound{Table: users}
	s.Segments["log"] = segment.Meta{ID: "log", Kind: segment.Changes, First: row, Last: row, MinTime: 5, MaxTime: 19, Bytes: 1 << 30}
	s.Segments["image"] = segment.Meta{ID: "image", Kind: segment.Image, First: row, Last: row, MinTime: 18, MaxTime: 20, Bytes: 1}
	s.Images = []manifest.Image{{ID: "first", Range: afterimage.TableRange(users), MinTime: 18, Time: 20, Segments: []string{"image"}}}
	var p Policy
	p.defaults()
	if j := p.planImage(s); j != nil {
		t.Errorf("an image at %d is planned before the first image, of %d", j.at, s.Images[0].Time)
	}
	s.Lanes[0].Horizon = 20
	if p.planImage(s) == nil {
		t.Error("no image is planned although the changes outweigh it")
	}
}
