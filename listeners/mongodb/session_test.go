package mongodb

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"testing"

	"go.mongodb.org/mongo-driver/bson"
	"go.mongodb.org/mongo-driver/bson/primitive"
	"go.uber.org/goleak"
	"pgregory.net/rapid"

	"github.com/afterimagedb/afterimage"
	"github.com/afterimagedb/afterimage/bucket"
	"github.com/afterimagedb/afterimage/listeners/mongodb/oplog"
	"github.com/afterimagedb/afterimage/manifest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func pos(sec uint32, lo uint64) afterimage.Position {
	return afterimage.Position{Hi: uint64(afterimage.MongoTime(sec, 0)), Lo: lo}
}

// TestResume checks that the lane goes on from what is further: the stream's last batch or the manifest.
func TestResume(t *testing.T) {
	id := Identity{Lane: "rs", Incarnation: "i1"}
	header := func(inc string, epoch uint32, to afterimage.Position) afterimage.BatchHeader {
		return afterimage.BatchHeader{Lane: "rs", Incarnation: inc, Epoch: epoch, To: to, RestartFrom: to}
	}
	lane := func(inc string, epoch uint32, covered afterimage.Position) *manifest.State {
		s := manifest.NewState()
		s.Lanes = []manifest.Lane{{Name: "rs", Incarnation: inc, Epoch: epoch, Covered: covered, RestartFrom: covered}}
		return s
	}
	for name, tc := range map[string]struct {
		last  afterimage.Last
		state *manifest.State
		want  afterimage.BatchHeader
		known bool
	}{
		"nothing":            {state: manifest.NewState()},
		"stream only":        {last: afterimage.Last{BatchHeader: header("i1", 0, pos(5, 0)), Seq: 1}, state: manifest.NewState(), want: header("i1", 0, pos(5, 0)), known: true},
		"manifest only":      {state: lane("i1", 2, pos(7, 0)), want: header("i1", 2, pos(7, 0)), known: true},
		"stream is further":  {last: afterimage.Last{BatchHeader: header("i1", 0, pos(9, 1)), Seq: 1}, state: lane("i1", 0, pos(9, 0)), want: header("i1", 0, pos(9, 1)), known: true},
		"stream was rewound": {last: afterimage.Last{BatchHeader: header("i1", 0, pos(5, 0)), Seq: 1}, state: lane("i1", 0, pos(9, 0)), want: header("i1", 0, pos(9, 0)), known: true},
		"newer epoch":        {last: afterimage.Last{BatchHeader: header("i1", 3, pos(5, 0)), Seq: 1}, state: lane("i1", 2, pos(9, 0)), want: header("i1", 3, pos(5, 0)), known: true},
		"another set":        {last: afterimage.Last{BatchHeader: header("i0", 3, pos(5, 0)), Seq: 1}, state: lane("i0", 2, pos(9, 0))},
	} {
		t.Run(name, func(t *testing.T) {
			got, known := resume(id, tc.last, tc.state)
			if known != tc.known || known && got != tc.want {
				t.Errorf("got %+v %v, want %+v %v", got, known, tc.want, tc.known)
			}
		})
	}
}

func TestNeeded(t *testing.T) {
	at := pos(9, 0)
	if got := needed(afterimage.BatchHeader{To: at, RestartFrom: at}); uint64(got) != at.Hi+1 {
		t.Errorf("nothing open: %s", got)
	}
	if got := needed(afterimage.BatchHeader{To: at, RestartFrom: pos(8, 0)}); uint64(got) != pos(8, 0).Hi {
		t.Errorf("a transaction is open: %s", got)
	}
}

// newSession returns a session that publishes to a lane in memory.
func newSession(t *testing.T, lane *memoryLane, o Options) *session {
	t.Helper()
	o.Source, o.URI, o.Bucket, o.State = "test", "mongodb://unused", bucket.NewMemory(), lane.State
	l, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	pub := &memoryPublisher{lane: lane}
	if _, err := pub.Last(t.Context()); err != nil {
		t.Fatal(err)
	}
	s := &session{l: l, pub: pub, dec: oplog.NewDecoder(oplog.Options{}), scanned: make(chan [][]byte)}
	s.head = afterimage.BatchHeader{Lane: "rs", Incarnation: "i", To: pos(1, 0), RestartFrom: pos(1, 0), Horizon: afterimage.Time(pos(1, 0).Hi)}
	if err := s.dec.Reset(s.head.To); err != nil {
		t.Fatal(err)
	}
	return s
}

func entryOf(t *testing.T, op string, ts uint32, o any) []byte {
	t.Helper()
	b, err := bson.Marshal(bson.D{
		{Key: "op", Value: op},
		{Key: "ns", Value: "d.c"},
		{Key: "ui", Value: primitive.Binary{Subtype: 4, Data: make([]byte, 16)}},
		{Key: "o", Value: o},
		{Key: "ts", Value: primitive.Timestamp{T: ts}},
	})
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// TestBatchesAreCut checks that a chunk becomes a chain of batches of bounded size, and no-ops none.
func TestBatchesAreCut(t *testing.T) {
	lane := newMemoryLane()
	s := newSession(t, lane, Options{BatchBytesMax: 1000})
	c := &chunk{}
	for i := range uint32(50) {
		c.add(entryOf(t, "i", 10+i, bson.D{{Key: "_id", Value: int32(i)}, {Key: "pad", Value: string(make([]byte, 300))}}))
	}
	c.add(entryOf(t, "n", 99, bson.D{}))
	if err := s.chunk(t.Context(), c); err != nil {
		t.Fatal(err)
	}
	at := pos(1, 0)
	for i, b := range lane.batches {
		size := 0
		for _, ch := range b.Changes {
			size += len(ch.Key) + len(ch.Body)
		}
		if b.From != at || size > 1400 || len(b.Changes) == 0 {
			t.Errorf("batch %d: %+v with %d bytes", i, b.BatchHeader, size)
		}
		at = b.To
	}
	if n := len(lane.changes()); n != 50 || at != pos(99, 0) {
		t.Errorf("%d changes up to %s", n, at)
	}
	before := len(lane.batches)
	c.reset()
	c.add(entryOf(t, "n", 120, bson.D{}))
	if err := s.chunk(t.Context(), c); err != nil {
		t.Fatal(err)
	}
	if len(lane.batches) != before || s.dec.To() != pos(120, 0) {
		t.Error("a no-op alone must wait for the idle batch")
	}
}

// TestIdleHorizon checks that a horizon moved by a no-op is published soon, on its own.
func TestIdleHorizon(t *testing.T) {
	lane := newMemoryLane()
	s := newSession(t, lane, Options{})
	r := newReader(nil, 0, 0)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- s.publishLoop(ctx, r) }()
	c := <-r.free
	c.add(entryOf(t, "n", 50, bson.D{}))
	r.full <- c
	<-r.free
	<-r.free
	<-r.free
	<-r.free // the chunk is back: it has been decoded
	for lane.last().Horizon != afterimage.Time(pos(50, 0).Hi) {
		if err := sleep(ctx, idlePublish/50); err != nil {
			t.Fatal(err)
		}
	}
	cancel()
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	if n := len(lane.batches); n != 1 {
		t.Errorf("%d batches", n)
	}
}

func TestUnknownEntryIsNoted(t *testing.T) {
	lane := newMemoryLane()
	s := newSession(t, lane, Options{})
	c := &chunk{}
	c.add(entryOf(t, "zz", 50, bson.D{}))
	if err := s.chunk(t.Context(), c); err != nil {
		t.Fatal(err)
	}
	notes := lane.notes(manifest.NoteUncertified)
	if len(notes) != 1 || notes[0].Time != afterimage.Time(pos(50, 0).Hi) || len(lane.changes()) != 1 {
		t.Errorf("notes %+v", notes)
	}
}

// TestRowBuffer checks that rows come out in ascending order of keys, the last read of equal ones, whatever the input.
func TestRowBuffer(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var b rowBuffer
		for range 2 {
			b.reset()
			newest := map[string]string{}
			for i, k := range rapid.SliceOfN(rapid.StringN(0, 3, 3), 0, 20).Draw(t, "keys") {
				newest[k] = fmt.Sprint(i)
				b.add([]byte(k), []byte(newest[k]))
			}
			var before []byte
			n := 0
			for r := range b.sorted() {
				if n > 0 && bytes.Compare(before, r.key) >= 0 {
					t.Fatalf("%q after %q", r.key, before)
				}
				if newest[string(r.key)] != string(r.body) || fmt.Sprint(r.ordinal) != string(r.body) {
					t.Fatalf("%q is %q (%d), want %q", r.key, r.body, r.ordinal, newest[string(r.key)])
				}
				before = r.key
				n++
			}
			if n != len(newest) {
				t.Fatalf("%d rows, want %d", n, len(newest))
			}
		}
	})
}

func TestOptions(t *testing.T) {
	var usage *afterimage.UsageError
	if _, err := New(Options{Source: "x"}); !errors.As(err, &usage) {
		t.Error(err)
	}
	l, err := New(Options{URI: "mongodb://user:secret@host/?bad=%zz", Bucket: bucket.NewMemory(), State: newMemoryLane().State})
	if err != nil {
		t.Fatal(err)
	}
	err = l.Run(t.Context(), &memoryPublisher{lane: newMemoryLane()})
	if !errors.As(err, &usage) || bytes.Contains([]byte(err.Error()), []byte("secret")) {
		t.Errorf("a bad uri: %v", err)
	}
}
