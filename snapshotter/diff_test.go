package snapshotter

import (
	"context"
	"fmt"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"github.com/afterimagedb/afterimage"
	"github.com/afterimagedb/afterimage/dialect"
)

// TestDiffTellsTheTruth compares every table at random pairs of times.
func TestDiffTellsTheTruth(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		w := newWorld(rt)
		s := w.snapshotter()
		good := w.goodTimes()
		if len(good) == 0 {
			return
		}
		for range 6 {
			from, to := rapid.SampledFrom(good).Draw(rt, "from"), rapid.SampledFrom(good).Draw(rt, "to")
			for n := range w.tables {
				w.checkDiff(s, tableNo(n+1), min(from, to), max(from, to))
			}
		}
	})
}

func (w *world) checkDiff(s *Snapshotter, id afterimage.TableID, from, to afterimage.Time) {
	w.rt.Helper()
	type change struct{ key, before, after string }
	var want, got []change
	for _, key := range allKeys() {
		b, hadB := w.at[from][rowAt{id, key}]
		a, hasA := w.at[to][rowAt{id, key}]
		if hadB != hasA || b.body != a.body {
			want = append(want, change{key, fmt.Sprint(hadB, b.body), fmt.Sprint(hasA, a.body)})
		}
	}
	d, err := s.Diff(context.Background(), dialect.Table{ID: id}, from, to)
	if err != nil {
		w.rt.Fatal(err)
	}
	defer discard(d)
	for d.Next() {
		got = append(got, change{string(d.Key()), fmt.Sprint(d.Before() != nil, string(d.Before())), fmt.Sprint(d.After() != nil, string(d.After()))})
	}
	if err := d.Err(); err != nil {
		w.rt.Fatal(err)
	}
	if !slices.Equal(got, want) {
		w.rt.Fatalf("difference of %s between %d and %d: %q, want %q", id, from, to, got, want)
	}
}

// TestDiffReadsLittle compares a large table with few changes, and with many.
func TestDiffReadsLittle(t *testing.T) {
	f := newFixture(t)
	id := tableNo(1)
	f.many(id, 12000, 800)
	f.ddl(3, afterimage.OpInsert, id, "db.t")
	f.state.Windows[id] = []interval{{From: 50}}
	f.changes(
		afterimage.Change{Time: 55, Op: afterimage.OpPatch, Table: id, Key: manyKey(300), Body: []byte("-")},
		afterimage.Change{Time: 60, Op: afterimage.OpPatch, Table: id, Key: manyKey(300), Body: []byte("+")},
		afterimage.Change{Time: 61, Op: afterimage.OpDelete, Table: id, Key: manyKey(11000)},
		afterimage.Change{Time: 62, Op: afterimage.OpPut, Table: id, Key: manyKey(500), Body: []byte("same")},
		afterimage.Change{Time: 70, Op: afterimage.OpPatch, Table: id, Key: manyKey(400), Body: []byte("+")},
	)
	f.bucket.reads, f.bucket.bytes = 0, 0
	if got := f.diff(t, id, 57, 65); !slices.Equal(got, []string{"300: 801 to 802", "500: 800 to 4", "11000: 800 to -1"}) {
		t.Errorf("differences: %q", got)
	}
	if total := f.state.Segments["many"].Bytes; f.bucket.reads > 12 || f.bucket.bytes > total*2/3 {
		t.Errorf("%d reads of %d bytes; the image has %d", f.bucket.reads, f.bucket.bytes, total)
	}
	var many []afterimage.Change
	for i := 0; i < 12000; i += 3 {
		many = append(many, afterimage.Change{Time: 80, Op: afterimage.OpPatch, Table: id, Key: manyKey(i), Body: []byte("+")})
	}
	f.changes(many...)
	if got := f.diff(t, id, 75, 85); len(got) != len(many) || got[1] != "3: 800 to 801" {
		t.Errorf("%d differences of %d: %q", len(got), len(many), got[:3])
	}
}

func (f *fixture) diff(t *testing.T, id afterimage.TableID, from, to afterimage.Time) []string {
	t.Helper()
	d, err := f.snapshotter().Diff(context.Background(), dialect.Table{ID: id}, from, to)
	if err != nil {
		t.Fatal(err)
	}
	defer discard(d)
	var out []string
	length := func(b []byte) int {
		if b == nil {
			return -1
		}
		return len(b)
	}
	for d.Next() {
		var n int
		if _, err := fmt.Sscanf(string(d.Key()), "key%d", &n); err != nil {
			t.Fatal(err)
		}
		out = append(out, fmt.Sprintf("%d: %d to %d", n, length(d.Before()), length(d.After())))
	}
	if err := d.Err(); err != nil {
		t.Fatal(err)
	}
	return out
}

func TestDiffErrors(t *testing.T) {
	f := newFixture(t)
	id := tableNo(1)
	f.ddl(3, afterimage.OpInsert, id, "db.t")
	f.changes(afterimage.Change{Time: 5, Op: afterimage.OpPatch, Table: id, Key: []byte("k"), Body: []byte("1")})
	table := dialect.Table{ID: id, Namespace: "db.t"}
	_, err := f.snapshotter().Diff(context.Background(), table, 6, 5)
	wantError(t, err, "diff from 0.6 to 0.5: the first lies after the second")
	for _, from := range []afterimage.Time{2, 3} { // read whole, and by changes
		d, err := f.snapshotter().Diff(context.Background(), table, from, 10)
		if err != nil {
			t.Fatal(err)
		}
		if d.Next() {
			t.Error("a row out of a patch without its base")
		}
		wantError(t, d.Err(), fmt.Sprintf("difference of db.t between 0.%d and 0.10: table %s, key 6b: a patch has no version before it: run `afterimage verify`", from, id))
		discard(d)
	}
}
