package snapshotter

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sync/errgroup"

	"github.com/afterimagedb/afterimage"
	"github.com/afterimagedb/afterimage/dialect"
	"github.com/afterimagedb/afterimage/manifest"
)

func TestSelector(t *testing.T) {
	for _, c := range []struct {
		include, exclude string
		match, miss      string
	}{
		{"", "", "shop.orders x.y", ""},
		{"shop.*", "", "shop.orders shop.a.b shop.", "shops.orders sho shop x.shop.a"},
		{"shop", "", "shop.orders", "shops.orders shop"},
		{"shop.orders", "", "shop.orders", "shop.orders2 shop.order"},
		{"*", "", "a.b c.d.e", ""},
		{"*.tmp_*", "", "a.tmp_ a.tmp_x b.c.tmp_y", "a.tmp a.xtmp_"},
		{"a*b*c.*", "", "abc.x axbxbxc.y", "acb.x abc"},
		{"a*a.x", "", "aa.x aba.x", "a.x"},
		{"a.*bc*bcd", "", "a.bcbcd a.xbcbcbcd", "a.bcd"},
		{"shop,crm.x", "*.tmp", "shop.a crm.x", "shop.tmp crm.y"},
		{"", "shop", "crm.x", "shop.a"},
	} {
		s := Selector{Include: split(c.include), Exclude: split(c.exclude)}
		for ns := range strings.FieldsSeq(c.match) {
			if !s.Match(ns) {
				t.Errorf("%+v must match %s", s, ns)
			}
		}
		for ns := range strings.FieldsSeq(c.miss) {
			if s.Match(ns) {
				t.Errorf("%+v must not match %s", s, ns)
			}
		}
	}
}

func split(s string) []string {
	if s == "" {
		return nil
	}
	return strings.Split(s, ",")
}

func TestView(t *testing.T) {
	f := newFixture(t)
	a, b := tableNo(1), tableNo(2)
	f.ddl(10, afterimage.OpInsert, b, "db.a")
	f.ddl(10, afterimage.OpInsert, a, "db.tmp")
	f.changes(afterimage.Change{Time: 20, Op: afterimage.OpInsert, Table: b, Key: []byte("k"), Body: []byte("v")})
	f.changes(afterimage.Change{Time: 21, Op: afterimage.OpPatch, Table: b, Key: []byte("k"), Body: []byte("2")})
	ctx := context.Background()
	v := f.snapshotter().At(20, Selector{Exclude: []string{"*.tmp"}})
	tables, err := v.Tables(ctx)
	if err != nil || len(tables) != 1 || tables[0].ID != b || v.Time() != 20 {
		t.Fatalf("tables %+v, %v", tables, err)
	}
	rows, err := v.Rows(ctx, tables[0])
	if err != nil {
		t.Fatal(err)
	}
	if !rows.Next() || string(rows.Key()) != "k" || string(rows.Body()) != "v" || rows.Born() != (afterimage.Born{Time: 20}) || rows.Next() || rows.Err() != nil {
		t.Errorf("rows of %s: %v", tables[0].Namespace, rows.Err())
	}
	for range 2 {
		if err := rows.Close(); err != nil {
			t.Error(err)
		}
	}
	if row, err := v.Row(ctx, tables[0], []byte("k")); err != nil || string(row) != "v" {
		t.Errorf("row %q, %v", row, err)
	}
	if row, err := v.Row(ctx, tables[0], []byte("x")); err != nil || row != nil {
		t.Errorf("row that is not there: %q, %v", row, err)
	}
}

// TestLanes reads a table whose rows lie on two lanes: they are united, and each folds on its own.
func TestLanes(t *testing.T) {
	f := newFixture(t)
	id := tableNo(1)
	f.state.Lanes = []manifest.Lane{{Name: "rs0", Horizon: 100}, {ID: 1, Name: "rs1", Horizon: 100}}
	change := func(at afterimage.Time, lane afterimage.LaneID, op afterimage.Op, table afterimage.TableID, key, body string) {
		f.changes(afterimage.Change{Time: at, Lane: lane, Op: op, Table: table, Key: []byte(key), Body: []byte(body)})
	}
	change(3, 0, afterimage.OpInsert, afterimage.CatalogTable, string(id[:]), "db.t")
	change(4, 1, afterimage.OpInsert, afterimage.CatalogTable, string(id[:]), "db.t")
	change(10, 0, afterimage.OpInsert, id, "k", "a")
	change(11, 1, afterimage.OpInsert, id, "k", "b")
	change(12, 0, afterimage.OpPatch, id, "k", "1")
	change(13, 1, afterimage.OpDelete, id, "k", "")
	change(14, 1, afterimage.OpDelete, afterimage.CatalogTable, string(id[:]), "")
	s, ctx := f.snapshotter(), context.Background()
	for at, want := range map[afterimage.Time]string{11: "0a 1b", 12: "0a1 1b", 13: "0a1"} {
		tables, err := s.Catalog(ctx, at)
		if err != nil || len(tables) != 1 {
			t.Fatalf("tables at %d: %+v, %v", at, tables, err)
		}
		rows, err := s.Rows(ctx, tables[0], at, afterimage.Range{})
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for rows.Next() {
			got = append(got, fmt.Sprintf("%d%s", rows.Lane(), rows.Body()))
		}
		if text := strings.Join(got, " "); rows.Err() != nil || text != want {
			t.Errorf("rows at %d: %s, %v, want %s", at, text, rows.Err(), want)
		}
		discard(rows)
	}
	d, err := s.Diff(ctx, dialect.Table{ID: id}, 11, 13)
	if err != nil {
		t.Fatal(err)
	}
	defer discard(d)
	var got []string
	for d.Next() {
		got = append(got, fmt.Sprintf("%q to %q", d.Before(), d.After()))
	}
	if text := strings.Join(got, ", "); text != `"a" to "a1", "b" to ""` || d.Err() != nil {
		t.Errorf("difference: %s, %v", text, d.Err())
	}
	history, err := s.catalogHistory(ctx)
	if err != nil || !slices.Equal(history.lives(id), spans{{3, afterimage.MaxTime}}) {
		t.Errorf("lives %v, %v", history.lives(id), err)
	}
}

// TestRowsErrors shows that damage is said, with the table's name, and never skipped.
func TestRowsErrors(t *testing.T) {
	f := newFixture(t)
	id := tableNo(1)
	table := dialect.Table{ID: id, Namespace: "db.t"}
	f.changes(afterimage.Change{Time: 20, Op: afterimage.OpPatch, Table: id, Key: []byte("k"), Body: []byte("v")})
	read := func(ordered bool) error {
		table.Ordered = ordered
		rows, err := f.snapshotter().Rows(context.Background(), table, 50, afterimage.Range{})
		if err != nil {
			return err
		}
		defer discard(rows)
		for rows.Next() {
			t.Error("a row out of a patch without its base")
		}
		return rows.Err()
	}
	orphan := fmt.Sprintf("table %s, key 6b: a patch has no version before it: run `afterimage verify`", id)
	wantError(t, read(false), "db.t: "+orphan)
	wantError(t, read(true), "db.t at 0.50: "+orphan)
	f.bucket.fail["segments/changes1.parquet"] = context.DeadlineExceeded
	wantError(t, read(false), "db.t at 0.50: segment changes1: key index: context deadline exceeded")

	f = newFixture(t)
	f.changes(afterimage.Change{Time: 20, Op: afterimage.OpInsert, Table: afterimage.CatalogTable, Key: []byte("k"), Body: []byte("v")})
	_, err := f.snapshotter().Catalog(context.Background(), 20)
	wantError(t, err, "catalog at 0.20: key 6b is not that of a table: run `afterimage verify`")
	f = newFixture(t)
	f.ddl(20, afterimage.OpInsert, id, "")
	_, err = f.snapshotter().Catalog(context.Background(), 20)
	wantError(t, err, "catalog at 0.20: table "+id.String()+" has no name")
}

func TestPlan(t *testing.T) {
	f := newFixture(t)
	a, b := tableNo(1), tableNo(2)
	f.image(10, a, "k", "v", "l", "w")
	f.changes(afterimage.Change{Time: 20, Op: afterimage.OpDelete, Table: a, Key: []byte("k")})
	f.changes(afterimage.Change{Time: 30, Op: afterimage.OpDelete, Table: b, Key: []byte("k")})
	s := f.snapshotter()
	p := s.Plan(25, []afterimage.Range{afterimage.TableRange(a)})
	if p.Segments != 2 || p.Images != 1 || p.Rows != 3 || len(p.Pieces) != 1 {
		t.Errorf("plan: %+v", p)
	}
	want := fmt.Sprintf("at 0.25: at most %s of 2 segments (1 of images), 5 B in 3 rows before folding\n"+
		"  %s .. %s: image of 1 segments (%s), 1 segments of changes after 0.10 (%s)\n",
		size(p.Bytes), a, b, size(f.state.Segments["image1"].Bytes), size(f.state.Segments["changes2"].Bytes))
	if got := p.String(); got != want {
		t.Errorf("got %s\nwant %s", got, want)
	}
	if p := s.Plan(30, nil); p.Segments != 3 || f.bucket.reads != 0 {
		t.Errorf("whole plan: %+v, %d reads", p, f.bucket.reads)
	}
	if p := s.Plan(5, []afterimage.Range{afterimage.KeyRange(a, []byte("k"))}); p.Segments != 0 || p.String() != "at 0.5: at most 0 B of 0 segments (0 of images), 0 B in 0 rows before folding\n" {
		t.Errorf("plan of nothing: %s", p)
	}
}

// TestManySmallTables reads tables that share segments: what was read for one is not fetched again for the next.
func TestManySmallTables(t *testing.T) {
	f := newFixture(t)
	var changes []afterimage.Change
	for n := range byte(100) {
		f.state.Windows[tableNo(n)] = nil
		changes = append(changes, afterimage.Change{Time: 20, Op: afterimage.OpInsert, Table: tableNo(n), Key: []byte("k"), Body: []byte{n}})
	}
	f.changes(changes...)
	s := f.snapshotter()
	for n := range byte(100) {
		rows, err := s.Rows(context.Background(), dialect.Table{ID: tableNo(n)}, 20, afterimage.Range{})
		if err != nil {
			t.Fatal(err)
		}
		if !rows.Next() || !slices.Equal(rows.Body(), []byte{n}) || rows.Next() {
			t.Errorf("table %d: %v", n, rows.Err())
		}
		discard(rows)
	}
	if f.bucket.reads > 3 {
		t.Errorf("%d reads of one segment", f.bucket.reads)
	}
}

// TestConcurrentReads uses one snapshotter from many goroutines at two times.
func TestConcurrentReads(t *testing.T) {
	f := newFixture(t)
	for n := range byte(8) {
		id := tableNo(n)
		f.ddl(3, afterimage.OpInsert, id, "!db.t"+string('0'+rune(n)))
		f.changes(
			afterimage.Change{Time: 20, Op: afterimage.OpInsert, Table: id, Key: []byte("k"), Body: []byte("v")},
			afterimage.Change{Time: 30, Op: afterimage.OpPatch, Table: id, Key: []byte("k"), Body: []byte("w")},
		)
	}
	s := f.snapshotter()
	g, ctx := errgroup.WithContext(context.Background())
	for n := range byte(16) {
		g.Go(func() error {
			at, want := afterimage.Time(25), "v"
			if n >= 8 {
				at, want = 35, "vw"
			}
			if err := s.Recoverable(ctx, at); err != nil {
				return err
			}
			v := s.At(at, Selector{})
			tables, err := v.Tables(ctx)
			if err != nil || len(tables) != 8 {
				return fmt.Errorf("%d tables: %w", len(tables), err)
			}
			row, err := v.Row(ctx, tables[n%8], []byte("k"))
			if err != nil || string(row) != want {
				return fmt.Errorf("row %q: %w", row, err)
			}
			rows, err := v.Rows(ctx, tables[n%8])
			if err != nil {
				return err
			}
			defer discard(rows)
			if !rows.Next() || string(rows.Body()) != want || rows.Next() {
				return fmt.Errorf("rows of %s: %w", tables[n%8].Namespace, rows.Err())
			}
			_, err = s.Events(ctx, 0, at)
			return err
		})
	}
	if err := g.Wait(); err != nil {
		t.Error(err)
	}
}

func TestCacheIsBounded(t *testing.T) {
	o := newObjects()
	o.data["x"] = make([]byte, 80<<20)
	c := newCache(o)
	for i := range int64(80) {
		if _, err := c.GetRange(context.Background(), "x", i<<20, 1<<20); err != nil {
			t.Fatal(err)
		}
	}
	if c.bytes > cacheBytesMax || len(c.known) != c.order.Len() || c.bytes != len(c.known)<<20 {
		t.Errorf("holds %d bytes in %d and %d entries", c.bytes, len(c.known), c.order.Len())
	}
	o.reads = 0
	for _, i := range []int64{79, 0, 79} {
		if _, err := c.GetRange(context.Background(), "x", i<<20, 1<<20); err != nil {
			t.Fatal(err)
		}
	}
	if o.reads != 1 {
		t.Errorf("%d reads, want one of what had been dropped", o.reads)
	}
}
