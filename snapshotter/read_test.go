package snapshotter

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"github.com/afterimagedb/afterimage"
	"github.com/afterimagedb/afterimage/dialect"
)

func (w *world) snapshotter() *Snapshotter {
	return New(Options{State: w.state, Bucket: w.bucket, Dialect: plain{}})
}

// TestEveryTime reads every time of random histories and compares with what the server held.
func TestEveryTime(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		w := newWorld(rt)
		s := w.snapshotter()
		good := w.goodTimes()
		for at := afterimage.Time(1); at <= w.last+2; at++ {
			err := s.Recoverable(context.Background(), at)
			w.checkVerdict(at, good, err)
			if err == nil {
				w.checkTables(s, at)
			}
		}
		w.checkWindows(spansOf(s.Windows()))
	})
}

// checkWindows compares the windows of the manifest alone with the truth: they may differ only where a table was gone.
func (w *world) checkWindows(windows spans) {
	w.rt.Helper()
	for at := afterimage.Time(1); at <= w.last; at++ {
		excused := false
		for id, iv := range w.state.Windows {
			growing := len(iv) > 0 && iv[len(iv)-1].To == 0
			excused = excused || !w.knows(id, at) && growing != w.at[at].has(id)
		}
		if windows.has(at) != w.good(at) && !excused {
			w.rt.Fatalf("windows %v and time %d, which is good: %v", windows, at, w.good(at))
		}
	}
}

// checkVerdict compares a verdict and its nearest times with a look at every time.
func (w *world) checkVerdict(at afterimage.Time, good []afterimage.Time, err error) {
	w.rt.Helper()
	if w.good(at) {
		if err != nil {
			w.rt.Fatalf("time %d: %v", at, err)
		}
		return
	}
	var e *afterimage.NotRecoverableError
	if !errors.As(err, &e) {
		w.rt.Fatalf("time %d must be refused, got %v", at, err)
	}
	want := afterimage.NotRecoverableError{At: at, Reason: e.Reason, Later: at > w.last}
	for _, g := range good {
		if g < at {
			want.Before = g
		}
		if g > at && want.After == 0 {
			want.After = g
		}
	}
	if *e != want || e.Reason == "" {
		w.rt.Fatalf("refusal of %d: %+v, want %+v", at, *e, want)
	}
}

// checkTables compares catalog and rows with the truth.
func (w *world) checkTables(s *Snapshotter, at afterimage.Time) {
	w.rt.Helper()
	ctx := context.Background()
	tables, err := s.Catalog(ctx, at)
	if err != nil {
		w.rt.Fatal(err)
	}
	want := w.at[at].tables()
	if len(tables) != len(want) || !slices.IsSortedFunc(tables, func(a, b dialect.Table) int { return cmp.Compare(a.Namespace, b.Namespace) }) {
		w.rt.Fatalf("time %d: tables %v, want %v", at, tables, want)
	}
	if err := s.RecoverableTables(ctx, at, tables); err != nil {
		w.rt.Fatalf("all tables of a good time: %v", err)
	}
	for _, table := range tables {
		if row := w.at[at][rowAt{afterimage.CatalogTable, string(table.ID[:])}]; row.body != string(table.Row) {
			w.rt.Fatalf("time %d: catalog row %q, want %q", at, table.Row, row.body)
		}
		w.checkRows(s, table, at, afterimage.Range{})
	}
	if len(tables) > 0 {
		table := rapid.SampledFrom(tables).Draw(w.rt, "narrow")
		w.checkRows(s, table, at, afterimage.Range{From: afterimage.Bound{Table: table.ID, Key: []byte("a\x00")}, To: afterimage.Bound{Table: table.ID, Key: []byte("cc")}})
		key := rapid.SampledFrom([]string{"", "a", "c", "e"}).Draw(w.rt, "one")
		row, exists := w.at[at][rowAt{table.ID, key}]
		st, err := s.Row(ctx, table, []byte(key), at)
		if err != nil || st.Exists != exists || string(st.Body) != row.body {
			w.rt.Fatalf("row %q of %s at %d: %+v, %v, want %v %q", key, table.Namespace, at, st, err, exists, row.body)
		}
	}
}

func (w *world) checkRows(s *Snapshotter, table dialect.Table, at afterimage.Time, r afterimage.Range) {
	w.rt.Helper()
	in := r
	if in.From.Compare(in.To) == 0 {
		in = afterimage.TableRange(table.ID)
	}
	want := w.at[at].keys(in)
	if table.Ordered {
		slices.SortFunc(want, func(a, b rowAt) int { return cmp.Compare(w.at[at][a].seq, w.at[at][b].seq) })
	}
	rows, err := s.Rows(context.Background(), table, at, r)
	if err != nil {
		w.rt.Fatal(err)
	}
	defer discard(rows)
	for i := 0; rows.Next(); i++ {
		if i >= len(want) || string(rows.Key()) != want[i].key || string(rows.Body()) != w.at[at][want[i]].body {
			w.rt.Fatalf("time %d, %s, row %d: %q %q, want %v of %v", at, table.Namespace, i, rows.Key(), rows.Body(), want[min(i, len(want)-1):], w.at[at])
		}
		if rows.Time() > at {
			w.rt.Fatalf("row of time %s in a read at %s", rows.Time(), at)
		}
		if i == len(want)-1 {
			want = nil
			if rows.Next() {
				w.rt.Fatalf("time %d, %s: a row too many: %q", at, table.Namespace, rows.Key())
			}
		}
	}
	if err := rows.Err(); err != nil || len(want) > 0 {
		w.rt.Fatalf("time %d, %s: %v, still want %v", at, table.Namespace, err, want)
	}
}
