package mongodb_test

import (
	"bytes"
	"fmt"
	"strings"
	"testing"

	"go.mongodb.org/mongo-driver/bson"

	"github.com/afterimagedb/afterimage"
	"github.com/afterimagedb/afterimage/dialect"
	"github.com/afterimagedb/afterimage/dialect/mongodb"
)

var table = afterimage.TableID{5}

func TestFolder(t *testing.T) {
	row := func(js string) []byte { return doc(t, js) }
	patch := func(js string) []byte { return doc(t, `{"$v":2,"diff":`+js+`}`) }
	born := func(t afterimage.Time, order uint32) afterimage.Born { return afterimage.Born{Time: t, Order: order} }
	type change = afterimage.Change
	insert, put, patchOp, del := afterimage.OpInsert, afterimage.OpPut, afterimage.OpPatch, afterimage.OpDelete
	for _, c := range []struct {
		name    string
		changes []change
		want    dialect.State // Body as JSON
		body    string
		lost    bool
	}{
		{name: "nothing"},
		{
			name:    "insert, patch, patch",
			changes: []change{{Time: 1, Order: 3, Op: insert, Body: row(`{"_id":1}`)}, {Time: 2, Op: patchOp, Body: patch(`{"i":{"a":1}}`)}, {Time: 4, Op: patchOp, Body: patch(`{"u":{"a":2}}`)}},
			want:    dialect.State{Exists: true, Born: born(1, 3), Time: 4}, body: `{"_id":1,"a":2}`,
		},
		{
			name:    "put keeps the birth",
			changes: []change{{Time: 1, Op: insert, Body: row(`{"_id":1}`)}, {Time: 2, Op: put, Body: row(`{"_id":1,"a":1}`)}},
			want:    dialect.State{Exists: true, Born: born(1, 0), Time: 2}, body: `{"_id":1,"a":1}`,
		},
		{
			name:    "delete and insert",
			changes: []change{{Time: 1, Op: insert, Body: row(`{"_id":1}`)}, {Time: 2, Op: del}, {Time: 2, Order: 1, Op: insert, Body: row(`{"_id":1.0}`)}},
			want:    dialect.State{Exists: true, Born: born(2, 1), Time: 2}, body: `{"_id":1.0}`,
		},
		{
			name:    "delete",
			changes: []change{{Time: 1, Op: insert, Body: row(`{"_id":1}`)}, {Time: 2, Op: del}},
			want:    dialect.State{Time: 2},
		},
		{
			name:    "an image that says the same keeps the time",
			changes: []change{{Time: 1, Order: 2, Op: insert, Body: row(`{"_id":1}`)}, {Time: 5, Order: afterimage.OrderImage, Op: put, From: afterimage.FromImage, Body: row(`{"_id":1}`)}},
			want:    dialect.State{Exists: true, Born: born(1, 2), Time: 1}, body: `{"_id":1}`,
		},
		{
			name:    "an image that says the same puts in order",
			changes: []change{{Time: 1, Op: insert, Body: row(`{"_id":1}`)}, {Time: 5, Op: insert, From: afterimage.FromImage, Born: born(5, 7), Body: row(`{"_id":1}`)}},
			want:    dialect.State{Exists: true, Born: born(5, 7), Time: 1}, body: `{"_id":1}`,
		},
		{
			name:    "an image that says another thing",
			changes: []change{{Time: 1, Op: insert, Body: row(`{"_id":1}`)}, {Time: 5, Op: insert, From: afterimage.FromImage, Body: row(`{"_id":1,"a":1}`)}},
			want:    dialect.State{Exists: true, Born: born(1, 0), Time: 5}, body: `{"_id":1,"a":1}`,
		},
		{
			name:    "patch without a base",
			changes: []change{{Time: 1, Op: patchOp, Body: patch(`{"i":{"a":1}}`)}, {Time: 2, Op: patchOp, Body: patch(`{"i":{"a":1}}`)}},
			lost:    true,
		},
		{
			name:    "patch without a base, then an image",
			changes: []change{{Time: 1, Op: patchOp, Body: patch(`{"i":{"a":1}}`)}, {Time: 2, Op: insert, From: afterimage.FromImage, Born: born(2, 0), Body: row(`{"_id":1}`)}},
			want:    dialect.State{Exists: true, Born: born(2, 0), Time: 2}, body: `{"_id":1}`,
		},
		{
			name:    "patch without a base, then a delete",
			changes: []change{{Time: 1, Op: patchOp, Body: patch(`{"i":{"a":1}}`)}, {Time: 2, Op: del}},
			want:    dialect.State{Time: 2},
		},
		{
			name:    "patch after a delete",
			changes: []change{{Time: 1, Op: insert, Body: row(`{"_id":1}`)}, {Time: 2, Op: del}, {Time: 3, Op: patchOp, Body: patch(`{"i":{"a":1}}`)}},
			lost:    true,
		},
		{
			name:    "unknown",
			changes: []change{{Time: 1, Op: insert, Body: row(`{"_id":1}`)}, {Time: 2, Op: afterimage.OpUnknown, Body: row(`{"op":"xx"}`)}},
			want:    dialect.State{Exists: true, Born: born(1, 0), Time: 1}, body: `{"_id":1}`,
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			f := mongodb.New().NewFolder()
			for range 2 { // a folder used again must not remember
				f.Reset(table, nil)
				for i := range c.changes {
					if err := f.Apply(&c.changes[i]); err != nil {
						t.Fatal(err)
					}
				}
				got, err := f.State()
				if (err != nil) != c.lost {
					t.Fatalf("error %v, want one: %v", err, c.lost)
				}
				want := c.want
				if c.body != "" {
					want.Body = doc(t, c.body)
				}
				if got.Exists != want.Exists || got.Born != want.Born || got.Time != want.Time || !bytes.Equal(got.Body, want.Body) {
					t.Errorf("get %+v, want %+v", got, want)
				}
			}
		})
	}
}

func TestFolderKeepsBodies(t *testing.T) {
	base := doc(t, `{"_id":1,"a":1}`)
	before := bytes.Clone(base)
	catalog, err := mongodb.CatalogCreate("d.$cmd", doc(t, `{"create":"c"}`))
	if err != nil {
		t.Fatal(err)
	}
	f := mongodb.New().NewFolder()
	start := mongodb.CatalogPatch("d.$cmd", doc(t, `{"startIndexBuild":"c"}`), nil)
	catalogBefore := bytes.Clone(catalog)
	for i := range 20 {
		f.Reset(afterimage.CatalogTable, nil)
		for _, c := range []afterimage.Change{{Op: afterimage.OpInsert, Body: catalog}, {Op: afterimage.OpPatch, Body: start}, {Op: afterimage.OpPatch, Body: start}} {
			if err := f.Apply(&c); err != nil {
				t.Fatal(err)
			}
		}
		f.Reset(table, nil)
		for _, c := range []afterimage.Change{{Op: afterimage.OpPut, Body: base}, {Op: afterimage.OpPatch, Body: doc(t, fmt.Sprintf(`{"$v":2,"diff":{"u":{"a":%d}}}`, i))}, {Op: afterimage.OpPatch, Body: doc(t, `{"$v":2,"diff":{"i":{"b":1}}}`)}} {
			if err := f.Apply(&c); err != nil {
				t.Fatal(err)
			}
		}
		if s, _ := f.State(); !bytes.Equal(s.Body, doc(t, fmt.Sprintf(`{"_id":1,"a":%d,"b":1}`, i))) {
			t.Fatalf("%s", bson.Raw(s.Body))
		}
	}
	if !bytes.Equal(base, before) || !bytes.Equal(catalog, catalogBefore) {
		t.Error("a borrowed body was written to")
	}
}

func TestFolderRefuses(t *testing.T) {
	f := mongodb.New().NewFolder()
	f.Reset(table, nil)
	if err := f.Apply(&afterimage.Change{Op: afterimage.OpPut, Body: doc(t, `{"_id":1}`)}); err != nil {
		t.Fatal(err)
	}
	if err := f.Apply(&afterimage.Change{Op: afterimage.OpPatch, Body: doc(t, `{"$v":5}`)}); err == nil || !strings.Contains(err.Error(), "version 5") {
		t.Errorf("error %v", err)
	}
}

func FuzzCatalog(f *testing.F) {
	row, err := mongodb.CatalogCreate("d.c", doc(f, `{"create":"c","capped":true,"size":5,"idIndex":{"v":2,"key":{"_id":1},"name":"_id_"}}`))
	if err != nil {
		f.Fatal(err)
	}
	for _, js := range []string{
		`{"collMod":"c","index":{"name":"_id_","hidden":true},"cappedSize":1,"timeseries":{"granularity":"hours"}}`,
		`{"collMod":"c","index":{"keyPattern":{"_id":1},"expireAfterSeconds":1},"validator":{}}`,
		`{"createIndexes":"c","v":2,"key":{"a":1},"name":"a_1"}`,
		`{"commitIndexBuild":"c","indexes":[{"v":2,"key":{"a":1},"name":"a_1"}]}`,
		`{"dropIndexes":"c","index":["a","b"]}`,
		`{"renameCollection":"d.c","to":"d.e"}`,
		`{"convertToCapped":"c","size":1}`,
	} {
		f.Add(row, doc(f, js))
	}
	f.Fuzz(func(t *testing.T, row, o []byte) {
		patch := mongodb.CatalogPatch("d.$cmd", o, o)
		folder := mongodb.New().NewFolder()
		folder.Reset(afterimage.CatalogTable, nil)
		_ = folder.Apply(&afterimage.Change{Op: afterimage.OpInsert, Body: row})
		if folder.Apply(&afterimage.Change{Op: afterimage.OpPatch, Body: patch}) == nil {
			if s, err := folder.State(); err != nil {
				t.Fatal(err)
			} else if _, err := mongodb.ParseCatalog(s.Body); err != nil {
				t.Fatal(err)
			}
		}
		for _, op := range []afterimage.Op{afterimage.OpInsert, afterimage.OpPatch, afterimage.OpDelete} {
			_, _, _, _ = mongodb.EventOf(op, patch, row)
			_, _, _, _ = mongodb.EventOf(op, row, o)
		}
		_, _ = mongodb.CatalogCreate("d.$cmd", o)
		_, _, _ = mongodb.CatalogListing(o)
		_, _, _ = mongodb.CatalogListCollections("d", o, [][]byte{row})
		_, _ = mongodb.TimeseriesIndex(o, row)
	})
}

func BenchmarkFolder(b *testing.B) {
	base, _ := bson.Marshal(order())
	changes := []afterimage.Change{{Op: afterimage.OpInsert, Body: base}}
	for i := range 9 {
		changes = append(changes, afterimage.Change{Time: afterimage.Time(i), Op: afterimage.OpPatch, Body: doc(b, fmt.Sprintf(`{"$v":2,"diff":{"u":{"field_c":"value %d"}}}`, i))})
	}
	f := mongodb.New().NewFolder()
	b.ReportAllocs()
	for b.Loop() {
		f.Reset(table, nil)
		for i := range changes {
			if err := f.Apply(&changes[i]); err != nil {
				b.Fatal(err)
			}
		}
		if _, err := f.State(); err != nil {
			b.Fatal(err)
		}
	}
}
