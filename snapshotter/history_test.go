package snapshotter

import (
	"context"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"github.com/afterimagedb/afterimage"
	"github.com/afterimagedb/afterimage/dialect"
	"github.com/afterimagedb/afterimage/segment"
)

// allKeys are the keys that worlds use, and one that they don't.
func allKeys() []string { return []string{"", "a", "a\x00", "b", "c", "cc", "d", "none"} }

// TestHistoryTellsTheTruth replays the versions of every row, whole and between random times.
func TestHistoryTellsTheTruth(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		w := newWorld(rt)
		s := w.snapshotter()
		from := afterimage.Time(rapid.IntRange(1, int(w.last)).Draw(rt, "from"))
		to := w.draw("to", from, 40)
		for n := range w.tables {
			for _, key := range allKeys() {
				w.checkHistory(s, tableNo(n+1), key, 0, w.last)
				w.checkHistory(s, tableNo(n+1), key, from, to)
			}
		}
	})
}

func (w *world) checkHistory(s *Snapshotter, id afterimage.TableID, key string, from, to afterimage.Time) {
	w.rt.Helper()
	versions, err := s.History(context.Background(), dialect.Table{ID: id}, []byte(key), from, to)
	if err != nil {
		w.rt.Fatal(err)
	}
	var logged, told []afterimage.Change
	for _, c := range w.log {
		if c.Table == id && string(c.Key) == key && from < c.Time && c.Time <= to {
			logged = append(logged, afterimage.Change{Time: c.Time, Order: c.Order, Op: c.Op, Wall: c.Wall})
		}
	}
	for i, v := range versions {
		if !v.Since {
			told = append(told, afterimage.Change{Time: v.Time, Order: v.Order, Op: v.Op, Wall: v.Wall})
		}
		if i > 0 && v.Since && versions[i-1].Known && string(versions[i-1].Body) == string(v.Body) && versions[i-1].Exists == v.Exists {
			w.rt.Fatalf("version %d of %s %q repeats the one before: %+v", i, id, key, versions)
		}
	}
	if !slices.EqualFunc(logged, told, func(a, b afterimage.Change) bool {
		return a.Compare(&b) == 0 && a.Op == b.Op && a.Wall == b.Wall
	}) {
		w.rt.Fatalf("versions of %s %q in (%d, %d]: %+v, logged %+v", id, key, from, to, versions, logged)
	}
	for at := max(from, 1); at <= to; at++ {
		if !w.good(at) || from != 0 && !w.knows(id, at) || !w.at[at].has(id) {
			continue
		}
		row, exists := w.at[at][rowAt{id, key}]
		var v Version
		for i := range versions {
			if versions[i].Time <= at {
				v = versions[i]
			}
		}
		if v.Exists != exists || string(v.Body) != row.body || exists && !v.Known {
			w.rt.Fatalf("%s %q at %d is %v %q, the versions in (%d, %d] say %+v of %+v", id, key, at, exists, row.body, from, to, v, versions)
		}
	}
}

// TestHistoryForms shows the forms of versions on one row.
func TestHistoryForms(t *testing.T) {
	f := newFixture(t)
	id, key := tableNo(1), []byte("k")
	change := func(at afterimage.Time, op afterimage.Op, body string) afterimage.Change {
		return afterimage.Change{Time: at, Wall: int64(at) * 10, Op: op, Table: id, Key: key, Body: []byte(body)}
	}
	f.changes(
		change(5, afterimage.OpPatch, "?"), // before the first image: what it made is not known
		change(30, afterimage.OpPatch, "2"), change(40, afterimage.OpDelete, "k"),
		change(70, afterimage.OpPatch, "3"), // behind a gap in which it came again
	)
	f.image(20, id, "k", "v1")
	f.image(80, id, "k", "v03")
	f.state.Windows[id] = []interval{{From: 20, To: 50}, {From: 80}}
	f.state.Gaps = []gap{{From: 50, To: 60, Reason: "rolled over"}}
	got, err := f.snapshotter().History(context.Background(), dialect.Table{ID: id}, key, 0, 100)
	if err != nil {
		t.Fatal(err)
	}
	want := []Version{
		{Time: 5, Wall: 50, Op: afterimage.OpPatch},
		{Time: 20, Order: afterimage.OrderImage, Op: afterimage.OpPut, Since: true, Known: true, Exists: true, Body: []byte("v1")},
		{Time: 30, Wall: 300, Op: afterimage.OpPatch, Known: true, Exists: true, Body: []byte("v12"), Fields: []string{"2"}},
		{Time: 40, Wall: 400, Op: afterimage.OpDelete, Known: true, Fields: []string{"0", "1", "2"}},
		{Time: 70, Wall: 700, Op: afterimage.OpPatch},
		{Time: 80, Order: afterimage.OrderImage, Op: afterimage.OpPut, Since: true, Known: true, Exists: true, Body: []byte("v03")},
	}
	equalJSON(t, got, want)
	got, err = f.snapshotter().History(context.Background(), dialect.Table{ID: id}, key, 25, 35)
	if err != nil {
		t.Fatal(err)
	}
	want = []Version{want[1], want[2]}
	want[0].Time = 25
	equalJSON(t, got, want)
}

// TestHistoryFromWithinGap begins where nothing is known, between two times at which the row was the same.
func TestHistoryFromWithinGap(t *testing.T) {
	f := newFixture(t)
	id := tableNo(1)
	f.image(20, id, "k", "v")
	f.image(80, id, "k", "v")
	f.state.Windows[id] = []interval{{From: 20, To: 50}, {From: 80}}
	for from, want := range map[afterimage.Time][]afterimage.Time{0: {20}, 30: {30}, 50: {50}, 60: {80}, 80: {80}, 90: {90}} {
		got, err := f.snapshotter().History(context.Background(), dialect.Table{ID: id}, []byte("k"), from, 100)
		if err != nil {
			t.Fatal(err)
		}
		var times []afterimage.Time
		for _, v := range got {
			times = append(times, v.Time)
			if !v.Since || string(v.Body) != "v" {
				t.Errorf("version %+v", v)
			}
		}
		if !slices.Equal(times, want) {
			t.Errorf("history from %d begins at %v, want %v", from, times, want)
		}
	}
}

// TestHistoryBeginsNearItsStart does not read what an image makes needless.
func TestHistoryBeginsNearItsStart(t *testing.T) {
	f := newFixture(t)
	id := tableNo(1)
	f.image(20, id, "k", "v")
	f.changes(afterimage.Change{Time: 30, Op: afterimage.OpPatch, Table: id, Key: []byte("k"), Body: []byte("1")})
	f.image(40, id, "k", "v1")
	f.changes(afterimage.Change{Time: 50, Op: afterimage.OpPatch, Table: id, Key: []byte("k"), Body: []byte("2")})
	f.state.Windows[id] = []interval{{From: 20}}
	for _, needless := range []string{"image1", "changes2"} {
		delete(f.bucket.data, segment.ObjectName(needless))
	}
	got, err := f.snapshotter().History(context.Background(), dialect.Table{ID: id}, []byte("k"), 45, 100)
	if err != nil || len(got) != 2 || string(got[0].Body) != "v1" || string(got[1].Body) != "v12" {
		t.Errorf("%+v, %v", got, err)
	}
}

// TestHistoryOfHotRow keeps the memory of a row that changes all the time bounded, and its versions right.
func TestHistoryOfHotRow(t *testing.T) {
	f := newFixture(t)
	id := tableNo(1)
	var changes []afterimage.Change
	body := make([]byte, 300<<10)
	for i := range 40 {
		c := afterimage.Change{Time: afterimage.Time(10 + i), Op: afterimage.OpPatch, Table: id, Key: []byte("k"), Body: []byte{byte('a' + i)}}
		if i%8 == 0 {
			c.Op, c.Body = afterimage.OpPut, append(slices.Clone(body), byte(i))
		}
		changes = append(changes, c)
	}
	f.changes(changes...)
	n, size := 0, 0
	err := f.snapshotter().EachVersion(context.Background(), dialect.Table{ID: id}, []byte("k"), 0, 100, func(v *Version) error {
		if n%8 == 0 {
			size = len(body)
		}
		size++
		if !v.Known || len(v.Body) != size {
			t.Fatalf("version %d has %d bytes, want %d: known %v", n, len(v.Body), size, v.Known)
		}
		n++
		return nil
	})
	if err != nil || n != len(changes) {
		t.Fatalf("%d versions of %d: %v", n, len(changes), err)
	}
}

// TestHistoryReadsLittle counts the reads of one row's history among many rows.
func TestHistoryReadsLittle(t *testing.T) {
	f := newFixture(t)
	id := tableNo(1)
	f.many(id, 20000, 600)
	key := manyKey(777)
	f.changes(
		afterimage.Change{Time: 60, Op: afterimage.OpPatch, Table: id, Key: key, Body: []byte("+")},
		afterimage.Change{Time: 61, Op: afterimage.OpPatch, Table: id, Key: manyKey(12000), Body: []byte("+")},
	)
	f.state.Windows[id] = []interval{{From: 50}}
	f.bucket.reads, f.bucket.bytes = 0, 0
	v, err := f.snapshotter().History(context.Background(), dialect.Table{ID: id}, key, 0, 100)
	if err != nil || len(v) != 2 || len(v[1].Body) != len(v[0].Body)+1 {
		t.Fatalf("%d versions, %v", len(v), err)
	}
	total := f.state.Segments["many"].Bytes
	if f.bucket.reads > 6 || f.bucket.bytes > total/4 {
		t.Errorf("%d reads of %d bytes; the image has %d", f.bucket.reads, f.bucket.bytes, total)
	}
}

func TestHistoryErrors(t *testing.T) {
	f := newFixture(t)
	id := tableNo(1)
	f.changes(
		afterimage.Change{Time: 5, Op: afterimage.OpInsert, Table: id, Key: []byte("k"), Body: []byte("1")},
		afterimage.Change{Time: 6, Op: afterimage.OpPatch, Table: id, Key: []byte("k"), Body: []byte("bad")},
	)
	s, ctx, table := f.snapshotter(), context.Background(), dialect.Table{ID: id, Namespace: "db.t"}
	_, err := s.History(ctx, table, []byte("k"), 0, 10)
	wantError(t, err, "history of key 6b in db.t: table 70000000-0000-0000-0000-000000000001, key 6b, change at 0.6 order 0: a bad patch: run `afterimage verify`")
	_, err = s.History(ctx, table, []byte("k"), 10, 9)
	wantError(t, err, "history from 0.10 to 0.9: the first lies after the second")
	_, err = s.Row(ctx, table, []byte("k"), 10)
	wantError(t, err, "db.t: table 70000000-0000-0000-0000-000000000001, key 6b, change at 0.6 order 0: a bad patch: run `afterimage verify`")
	f.bucket.fail["segments/changes1.parquet"] = context.DeadlineExceeded
	_, err = f.snapshotter().History(ctx, table, []byte("k"), 0, 10)
	wantError(t, err, "history of key 6b in db.t: segment changes1: key index: context deadline exceeded")
}
