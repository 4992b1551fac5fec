package snapshotter

import (
	"context"
	"errors"
	"slices"
	"testing"

	"github.com/afterimagedb/afterimage"
	"github.com/afterimagedb/afterimage/dialect"
	"github.com/afterimagedb/afterimage/manifest"
)

// gappedFixture has two tables: 1 is known from 20 to 50 and from 80 on, 2 was never read whole and is dropped at 30.
// The log has a gap from 50 to 60, the catalog is known from 10 to 50 and from 70 on.
func gappedFixture(t *testing.T) *fixture {
	f := newFixture(t)
	a, b := tableNo(1), tableNo(2)
	f.state.Windows[afterimage.CatalogTable] = []interval{{From: 10, To: 50}, {From: 70}}
	f.image(10, afterimage.CatalogTable, string(a[:]), "db.a", string(b[:]), "db.b")
	f.image(70, afterimage.CatalogTable, string(a[:]), "db.a2")
	f.ddl(30, afterimage.OpDelete, b, "drop")
	f.state.Windows[a] = []interval{{From: 20, To: 50}, {From: 80}}
	f.state.Windows[b] = []interval{}
	f.state.Gaps = []gap{{From: 50, To: 60, Reason: "oplog rolled over"}}
	return f
}

// refused compares the error of a time that is not recoverable.
func refused(t *testing.T, err error, want afterimage.NotRecoverableError) {
	t.Helper()
	var e *afterimage.NotRecoverableError
	if !errors.As(err, &e) || *e != want {
		t.Errorf("error %+v (%v)\nwant %+v", e, err, want)
	}
}

func TestRecoverable(t *testing.T) {
	s, ctx := gappedFixture(t).snapshotter(), context.Background()
	for _, want := range []afterimage.NotRecoverableError{
		{At: 5, After: 30, Reason: "lies before the first image of the catalog, which is exact from 1970-01-01T00:00:00Z (0.10) on"},
		{At: 15, After: 30, Reason: "lies before the first image of db.a, which is exact from 1970-01-01T00:00:00Z (0.20) on; db.b was never read whole"},
		{At: 29, After: 30, Reason: "db.b was never read whole"},
		{At: 51, Before: 50, After: 80, Reason: "lies in a gap of lane rs0 from 1970-01-01T00:00:00Z (0.50) to 1970-01-01T00:00:00Z (0.60) (oplog rolled over)"},
		{At: 60, Before: 50, After: 80, Reason: "the catalog was read again after a gap, and is known anew from 1970-01-01T00:00:00Z (0.70) on"},
		{At: 75, Before: 50, After: 80, Reason: "db.a2 was read again after a gap, and is known anew from 1970-01-01T00:00:00Z (0.80) on"},
		{At: 101, Before: 100, Later: true, Reason: "lane rs0 is known up to 1970-01-01T00:00:00Z (0.100)"},
	} {
		refused(t, s.Recoverable(ctx, want.At), want)
	}
	for _, at := range []afterimage.Time{30, 50, 80, 100} {
		if err := s.Recoverable(ctx, at); err != nil {
			t.Errorf("time %d: %v", at, err)
		}
	}
	if got, want := s.Windows(), []interval{{From: 20, To: 50}, {From: 80}}; !slices.Equal(got, want) {
		t.Errorf("windows %v, want %v", got, want)
	}
}

func TestRecoverableTables(t *testing.T) {
	f := gappedFixture(t)
	s, ctx := f.snapshotter(), context.Background()
	a, b, late := dialect.Table{ID: tableNo(1)}, dialect.Table{ID: tableNo(2)}, dialect.Table{ID: tableNo(3)}
	for _, c := range []struct {
		at     afterimage.Time
		tables []dialect.Table
		good   bool
	}{
		{25, []dialect.Table{a}, true},
		{25, []dialect.Table{a, b}, false},
		{15, []dialect.Table{a}, false},
		{15, []dialect.Table{late}, true},
		{75, []dialect.Table{late}, true},
		{75, []dialect.Table{a, late}, false},
		{5, []dialect.Table{late}, false},
		{55, []dialect.Table{late}, false},
		{101, nil, false},
		{75, nil, true},
	} {
		if err := s.RecoverableTables(ctx, c.at, c.tables); (err == nil) != c.good {
			t.Errorf("time %d of %d tables: %v", c.at, len(c.tables), err)
		}
	}
	wantError(t, s.RecoverableTables(ctx, 25, []dialect.Table{b}),
		"time 1970-01-01T00:00:00Z (0.25) is not recoverable: db.b was never read whole; nearest good time after: 1970-01-01T00:00:00Z (0.30)")
}

func TestRecoverableAtTheStart(t *testing.T) {
	ctx := context.Background()
	s := New(Options{State: manifest.NewState(), Bucket: newObjects(), Dialect: plain{}})
	wantError(t, s.Recoverable(ctx, 5), "time 1970-01-01T00:00:00Z (0.5) is not recoverable yet: nothing has been captured yet: is `afterimage serve` running")
	if w := s.Windows(); len(w) != 0 {
		t.Errorf("windows of nothing: %v", w)
	}

	f := newFixture(t)
	f.state.Windows[afterimage.CatalogTable] = []interval{}
	f.state.Scans[afterimage.CatalogTable] = manifest.Scan{}
	wantError(t, f.snapshotter().Recoverable(ctx, 5), "time 1970-01-01T00:00:00Z (0.5) is not recoverable: the first image of the catalog is under way; times from its end on will be recoverable")

	f = newFixture(t)
	delete(f.state.Windows, afterimage.CatalogTable)
	wantError(t, f.snapshotter().Recoverable(ctx, 5), "time 1970-01-01T00:00:00Z (0.5) is not recoverable: the catalog was never read whole")

	f = newFixture(t)
	var rows []string
	for n := range byte(5) {
		id := tableNo(n + 1)
		rows = append(rows, string(id[:]), "db.t"+string('1'+rune(n)))
		f.state.Windows[id] = []interval{}
		f.state.Scans[id] = manifest.Scan{}
	}
	f.image(2, afterimage.CatalogTable, rows...)
	scan := func(n string) string {
		return "the first image of db.t" + n + " is under way; times from its end on will be recoverable; "
	}
	s = f.snapshotter()
	wantError(t, s.Recoverable(ctx, 5), "time 1970-01-01T00:00:00Z (0.5) is not recoverable: "+scan("1")+scan("2")+scan("3")+"and 2 more tables")
	if w := s.Windows(); len(w) != 0 {
		t.Errorf("windows while scans are under way: %v", w)
	}
}

func TestHorizonIsTheSlowestLane(t *testing.T) {
	f := newFixture(t)
	f.state.Lanes = []manifest.Lane{{Name: "rs0", Horizon: 100}, {ID: 1, Name: "rs1", Horizon: 40}}
	refused(t, f.snapshotter().Recoverable(context.Background(), 41),
		afterimage.NotRecoverableError{At: 41, Before: 40, Later: true, Reason: "lane rs1 is known up to 1970-01-01T00:00:00Z (0.40)"})
}

func TestWarnings(t *testing.T) {
	f := newFixture(t)
	f.state.Windows[tableNo(1)] = []interval{{From: 5, To: 20}, {From: 40}}
	f.state.Uncertified = []manifest.Uncertified{
		{Table: tableNo(1), Time: 10, Reason: "op xx"},
		{Time: 30, Reason: "op yy"},
	}
	one := "not certified: an entry of lane rs0 at 1970-01-01T00:00:00Z (0.10) was not understood (op xx); table 70000000-0000-0000-0000-000000000001 may differ from the server's from then on"
	all := "not certified: an entry of lane rs0 at 1970-01-01T00:00:00Z (0.30) was not understood (op yy); the source may differ from the server's from then on"
	for at, want := range map[afterimage.Time][]string{9: nil, 10: {one}, 39: {one, all}, 40: {all}} {
		if got := f.snapshotter().Warnings(at); !slices.Equal(got, want) {
			t.Errorf("warnings at %d: %q, want %q", at, got, want)
		}
	}
	f.state.Windows[afterimage.CatalogTable] = []interval{{From: 35}} // everything was read after both entries
	for at, want := range map[afterimage.Time][]string{34: {one, all}, 35: {one}, 40: nil} {
		if got := f.snapshotter().Warnings(at); !slices.Equal(got, want) {
			t.Errorf("the catalog read at 35: warnings at %d: %q, want %q", at, got, want)
		}
	}
}
