package oplog

import (
	"fmt"
	"slices"
	"testing"

	"go.mongodb.org/mongo-driver/bson"
	"go.mongodb.org/mongo-driver/bson/primitive"
	"pgregory.net/rapid"

	"github.com/afterimagedb/afterimage"
)

// same fails if two results differ.
func same(tb interface {
	Helper()
	Fatalf(string, ...any)
}, got, want *result,
) {
	tb.Helper()
	if len(got.changes) != len(want.changes) {
		tb.Fatalf("%d changes, want %d", len(got.changes), len(want.changes))
	}
	for i := range want.changes {
		if g, w := printChange(&got.changes[i]), printChange(&want.changes[i]); g != w {
			tb.Fatalf("change %d:\n%s\nwant\n%s", i, g, w)
		}
	}
	if fmt.Sprint(got.notes) != fmt.Sprint(want.notes) {
		tb.Fatalf("notes %v, want %v", got.notes, want.notes)
	}
}

// tsOf is the ts of an entry.
func tsOf(tb testing.TB, raw []byte) uint64 {
	tb.Helper()
	e, ok := lookup(raw, "ts")
	if !ok {
		tb.Fatal("no ts")
	}
	return e.timestamp()
}

// TestRestartAnywhere stops after every entry, and after every part of one, and goes on with a new decoder.
func TestRestartAnywhere(t *testing.T) {
	for name, entries := range captured(t) {
		t.Run(name, func(t *testing.T) {
			want := decode(t, NewDecoder(Options{}), entries)
			d := NewDecoder(Options{})
			got := &result{}
			check := func() {
				got.gather(d)
				next := NewDecoder(Options{MemoryBytesMax: 100, Scratch: memoryScratch})
				if err := next.Reset(d.To()); err != nil {
					t.Fatal(err)
				}
				from := slices.IndexFunc(entries, func(e []byte) bool { return tsOf(t, e) >= d.RestartFrom().Hi })
				if from < 0 {
					from = len(entries)
				}
				rest := decode(t, next, entries[from:])
				rest.changes = append(slices.Clone(got.changes), rest.changes...)
				rest.notes = append(slices.Clone(got.notes), rest.notes...)
				same(t, rest, want)
				if err := next.Close(); err != nil {
					t.Fatal(err)
				}
			}
			for _, e := range entries {
				if err := d.Add(e); err != nil {
					t.Fatal(err)
				}
				for d.Pending() {
					check()
					if err := d.Continue(); err != nil {
						t.Fatal(err)
					}
				}
				check()
			}
			same(t, got, want)
		})
	}
}

// memoryFile is a scratch file in memory.
type memoryFile struct {
	b      []byte
	closed bool
}

func memoryScratch() (ScratchFile, error) { return &memoryFile{}, nil }

func (f *memoryFile) WriteAt(p []byte, off int64) (int, error) {
	if f.closed {
		return 0, fmt.Errorf("closed")
	}
	f.b = append(f.b[:off], p...)
	return len(p), nil
}

func (f *memoryFile) ReadAt(p []byte, off int64) (int, error) {
	if f.closed {
		return 0, fmt.Errorf("closed")
	}
	return copy(p, f.b[off:]), nil
}

func (f *memoryFile) Close() error { f.closed = true; return nil }

// simTxn is a transaction of the simulated log.
type simTxn struct {
	session, number int
	ops             bson.A
	ids             []int
	chained         bool
	prepared        uint64
	last            uint64
}

// simulation writes a log as a server would, and knows what must come out.
type simulation struct {
	t        *rapid.T
	ts       uint64
	id       int
	number   int
	open     []*simTxn
	entries  [][]byte
	want     []simChange
	table    primitive.Binary
	prepared map[uint64]bool
}

// simChange is what a change must be.
type simChange struct {
	time  uint64
	order uint32
	id    int
	pos   uint64 // of the entry that makes it visible
}

func stamp(ts uint64) primitive.Timestamp {
	return primitive.Timestamp{T: uint32(ts >> 32), I: uint32(ts)}
}

func (s *simulation) log(e bson.D) uint64 {
	s.ts += uint64(rapid.IntRange(1, 3).Draw(s.t, "step"))
	e = append(e, bson.E{Key: "ts", Value: stamp(s.ts)}, bson.E{Key: "wall", Value: primitive.DateTime(s.ts)})
	raw, err := bson.Marshal(e)
	if err != nil {
		s.t.Fatal(err)
	}
	s.entries = append(s.entries, raw)
	return s.ts
}

func (s *simulation) insert() (bson.D, int) {
	s.id++
	return bson.D{{Key: "op", Value: "i"}, {Key: "ns", Value: "d.c"}, {Key: "ui", Value: s.table}, {Key: "o", Value: bson.D{{Key: "_id", Value: int32(s.id)}}}}, s.id
}

func (s *simulation) entry(x *simTxn, o bson.D) bson.D {
	return bson.D{
		{Key: "lsid", Value: bson.D{{Key: "id", Value: int32(x.session)}}},
		{Key: "txnNumber", Value: int64(x.number)},
		{Key: "op", Value: "c"},
		{Key: "ns", Value: "admin.$cmd"},
		{Key: "o", Value: o},
		{Key: "prevOpTime", Value: bson.D{{Key: "ts", Value: stamp(x.last)}, {Key: "t", Value: int64(1)}}},
	}
}

// expect says that the ids become visible.
func (s *simulation) expect(ids []int, time, pos uint64, order uint32) {
	for i, id := range ids {
		s.want = append(s.want, simChange{time: time, order: order + uint32(i), id: id, pos: pos})
	}
}

// step writes one entry.
func (s *simulation) step() {
	if len(s.open) == 0 || rapid.IntRange(0, 2).Draw(s.t, "what") == 0 {
		if rapid.Bool().Draw(s.t, "plain") {
			e, id := s.insert()
			ts := s.log(e)
			s.expect([]int{id}, ts, ts, 0)
			return
		}
		s.number++
		s.open = append(s.open, &simTxn{session: s.number % 5, number: s.number})
		s.open = slices.DeleteFunc(s.open, func(x *simTxn) bool { // one per session
			return x.number != s.number && x.session == s.number%5
		})
	}
	i := rapid.IntRange(0, len(s.open)-1).Draw(s.t, "which")
	x := s.open[i]
	done := false
	if x.prepared == 0 {
		done = s.piece(x)
	} else {
		done = s.end(x)
	}
	if done {
		s.open = slices.Delete(s.open, i, i+1)
	}
}

// piece writes an applyOps; it reports whether that ends the transaction.
func (s *simulation) piece(x *simTxn) bool {
	var ops bson.A
	for range rapid.IntRange(1, 3).Draw(s.t, "ops") {
		op, id := s.insert()
		ops = append(ops, op)
		x.ids = append(x.ids, id)
	}
	o := bson.D{{Key: "applyOps", Value: ops}}
	kind := rapid.IntRange(0, 2).Draw(s.t, "kind")
	switch kind {
	case 0:
		o = append(o, bson.E{Key: "partialTxn", Value: true})
	case 1:
		o = append(o, bson.E{Key: "prepare", Value: true})
	}
	x.last = s.log(s.entry(x, o))
	switch kind {
	case 1:
		x.prepared = x.last
	case 2:
		s.expect(x.ids, x.last, x.last, 0)
		return true
	}
	return false
}

// end commits or aborts a prepared transaction.
func (s *simulation) end(x *simTxn) bool {
	if rapid.Bool().Draw(s.t, "abort") {
		s.log(s.entry(x, bson.D{{Key: "abortTransaction", Value: int32(1)}}))
		return true
	}
	at := x.prepared + uint64(rapid.IntRange(0, int(s.ts-x.prepared)).Draw(s.t, "commit"))
	pos := s.log(s.entry(x, bson.D{{Key: "commitTransaction", Value: int32(1)}, {Key: "commitTimestamp", Value: stamp(at)}}))
	s.expect(x.ids, at, pos, OrderPrepared)
	return true
}

// TestSimulatedLog writes logs with transactions that interleave, restarts at random places, and checks every change, that
// positions ascend and that nothing appears at or below a horizon.
func TestSimulatedLog(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := &simulation{t: t, ts: 1 << 32, table: primitive.Binary{Subtype: 4, Data: make([]byte, 16)}}
		for range rapid.IntRange(1, 60).Draw(t, "entries") {
			s.step()
		}
		opts := Options{MemoryBytesMax: rapid.Int64Range(1, 2000).Draw(t, "memory"), Scratch: memoryScratch}
		d := NewDecoder(opts)
		got := &result{}
		var horizon afterimage.Time
		var to, restart afterimage.Position // as a lane would say
		settle := func() {
			for _, c := range d.Changes() {
				if c.Time <= horizon {
					t.Fatalf("%s appears below the horizon %s", printChange(&c), horizon)
				}
			}
			got.gather(d)
			if d.To() == to {
				return
			}
			if h := d.Horizon(); h < horizon {
				t.Fatalf("the horizon falls from %s to %s", horizon, h)
			}
			horizon, to, restart = d.Horizon(), d.To(), d.RestartFrom()
		}
		crashes := rapid.IntRange(0, 10).Draw(t, "crashes")
		for i := 0; i < len(s.entries); i++ {
			if err := d.Add(s.entries[i]); err != nil {
				t.Fatal(err)
			}
			for d.Pending() {
				settle()
				if crashes > 0 && rapid.IntRange(0, 3).Draw(t, "crash within") == 0 {
					break
				}
				if err := d.Continue(); err != nil {
					t.Fatal(err)
				}
			}
			if !d.Pending() && (crashes == 0 || rapid.IntRange(0, 5).Draw(t, "crash") != 0) {
				continue
			}
			crashes--
			settle()
			next := NewDecoder(opts)
			if err := next.Reset(to); err != nil {
				t.Fatal(err)
			}
			d = next
			i = slices.IndexFunc(s.entries, func(e []byte) bool { f, _ := lookup(e, "ts"); return f.timestamp() >= restart.Hi }) - 1
		}
		settle()
		s.check(t, got)
	})
}

func (s *simulation) check(t *rapid.T, got *result) {
	if len(got.notes) != 0 || len(got.changes) != len(s.want) {
		t.Fatalf("%d changes and %d notes, want %d and none", len(got.changes), len(got.notes), len(s.want))
	}
	var before afterimage.Position
	for i, w := range s.want {
		c := got.changes[i]
		id := bson.Raw(c.Body).Lookup("_id").Int32()
		if uint64(c.Time) != w.time || c.Order != w.order || int(id) != w.id {
			t.Fatalf("change %d is %s, want time %d order %d id %d", i, printChange(&c), w.time, w.order, w.id)
		}
		if c.Pos.Less(before) || c.Pos.Hi != w.pos && (c.Pos.Hi != w.pos-1 || c.Pos.Lo == 0) {
			t.Fatalf("change %d is at %s after %s", i, position(c.Pos), position(before))
		}
		before = c.Pos
	}
}
