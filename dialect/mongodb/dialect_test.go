package mongodb_test

import (
	"bytes"
	"errors"
	"testing"

	"go.mongodb.org/mongo-driver/bson"
	"go.mongodb.org/mongo-driver/bson/primitive"

	"github.com/afterimagedb/afterimage"
	"github.com/afterimagedb/afterimage/dialect/mongodb"
)

func TestParseKey(t *testing.T) {
	oid, _ := primitive.ObjectIDFromHex("64a1b2c3d4e5f60718293a4b")
	uuid := primitive.Binary{Subtype: 4, Data: []byte{0: 0x12, 15: 0xFF}}
	for text, want := range map[string][]any{
		`64a1b2c3d4e5f60718293a4b`:             {oid, "64a1b2c3d4e5f60718293a4b"},
		`{"$oid":"64a1b2c3d4e5f60718293a4b"}`:  {oid},
		`7`:                                    {int32(7), "7"},
		`1.5`:                                  {1.5, "1.5"},
		`{"$numberLong":"7"}`:                  {int64(7)},
		`"7"`:                                  {"7"},
		` user:5 `:                             {"user:5"},
		`{"a":1,"b":{"$numberLong":"2"}}`:      {bson.D{{Key: "a", Value: 1}, {Key: "b", Value: 2}}},
		`12000000-0000-0000-0000-0000000000ff`: {uuid, "12000000-0000-0000-0000-0000000000ff"},
		`true`:                                 {true, "true"},
		`1, "x": 2`:                            {`1, "x": 2`},
	} {
		got, err := mongodb.New().ParseKey(text)
		if err != nil || len(got) != len(want) {
			t.Errorf("%s: %x, %v", text, got, err)
			continue
		}
		for i, v := range want {
			if !bytes.Equal(got[i], keyOf(t, marshal(v))) {
				t.Errorf("%s: candidate %d is %x, want %v", text, i, got[i], v)
			}
		}
	}
	for _, text := range []string{`{"a":`, `"open`, `[1`, `{"a":1}}`} {
		var usage *afterimage.UsageError
		if got, err := mongodb.New().ParseKey(text); !errors.As(err, &usage) {
			t.Errorf("%s: %x, %v", text, got, err)
		}
	}
}

func TestFormatKey(t *testing.T) {
	for js, want := range map[string]string{
		`{"_id":{"$oid":"64a1b2c3d4e5f60718293a4b"},"a":1}`: `{"$oid":"64a1b2c3d4e5f60718293a4b"}`,
		`{"a":1,"_id":5}`:               `{"$numberInt":"5"}`,
		`{"_id":{"a":1}}`:               `{"a":{"$numberInt":"1"}}`,
		`{"_id":"x"}`:                   `"x"`,
		`{"$v":2,"diff":{"i":{"a":1}}}`: "",
	} {
		got := mongodb.New().FormatKey(doc(t, js))
		if got != want {
			t.Errorf("%s: %s, want %s", js, got, want)
		}
		if want != "" {
			key, err := mongodb.AppendDocKey(nil, doc(t, js))
			if back, perr := mongodb.New().ParseKey(got); err != nil || perr != nil || !bytes.Equal(back[0], key) {
				t.Errorf("%s: does not read back: %x %v %v", got, back, err, perr)
			}
		}
	}
	if got := mongodb.New().FormatKey([]byte("junk")); got != "" {
		t.Errorf("junk: %s", got)
	}
}

func TestTable(t *testing.T) {
	row, err := mongodb.CatalogCreate("shop.$cmd", doc(t, `{"create":"log.2024","capped":true,"size":4096,"idIndex":{"v":2,"key":{"_id":1},"name":"_id_"}}`))
	if err != nil {
		t.Fatal(err)
	}
	tab, err := mongodb.New().Table(table, row)
	if err != nil || tab.ID != table || tab.Namespace != "shop.log.2024" || !tab.Ordered || !bytes.Equal(tab.Row, row) {
		t.Errorf("%+v, %v", tab, err)
	}
	if _, err := mongodb.New().Table(table, doc(t, `{"ns":"x"}`)); err == nil {
		t.Error("a row without options was taken")
	}
}

func TestListingLeavesOut(t *testing.T) {
	uuid := `{"$binary":{"base64":"EgAAAAAAAAAAAAAAAAAA/w==","subType":"04"}}`
	id, row, err := mongodb.CatalogListing(doc(t, `{"db":"d","name":"c","type":"collection","md":{"ns":"d.c","options":{"uuid":`+uuid+`,"temp":true},"indexes":[{"spec":{"v":2,"key":{"_id":1},"name":"_id_"},"ready":true},{"spec":{"v":2,"key":{"a":1},"name":"a_1"},"ready":false}]}}`))
	if err != nil || id != (afterimage.TableID{0: 0x12, 15: 0xFF}) {
		t.Fatalf("%v %v", id, err)
	}
	if r, err := mongodb.ParseCatalog(row); err != nil || len(r.Indexes) != 1 || r.Namespace != "d.c" || !bytes.Equal(r.Options, doc(t, `{"temp":true}`)) {
		t.Errorf("%+v %v", r, err)
	}
	for _, js := range []string{`{"db":"d","name":"v","type":"view","viewOn":"c"}`, `{"db":"d","name":"ts","type":"timeseries","viewOn":"system.buckets.ts"}`} {
		if _, row, err := mongodb.CatalogListing(doc(t, js)); row != nil || err != nil {
			t.Errorf("%s: %s %v", js, bson.Raw(row), err)
		}
	}
	_, row, err = mongodb.CatalogListCollections("d", doc(t, `{"name":"c","type":"collection","options":{},"info":{"uuid":`+uuid+`}}`), [][]byte{
		doc(t, `{"v":2,"key":{"_id":1},"name":"_id_"}`), doc(t, `{"v":2,"key":{"a":1},"name":"a_1","buildUUID":`+uuid+`}`), doc(t, `{"spec":{"v":2,"key":{"a":1},"name":"b_1"},"buildUUID":`+uuid+`}`),
		doc(t, `{"v":2,"key":{"_id":1},"name":"_id_","unique":true,"clustered":true}`),
	})
	if r, perr := mongodb.ParseCatalog(row); err != nil || perr != nil || len(r.Indexes) != 1 {
		t.Errorf("%+v %v %v", r, err, perr)
	}
}

func TestEvents(t *testing.T) {
	row, err := mongodb.CatalogCreate("d.$cmd", doc(t, `{"create":"c","idIndex":{"v":2,"key":{"_id":1},"name":"_id_"}}`))
	if err != nil {
		t.Fatal(err)
	}
	patch := func(js string) []byte { return mongodb.CatalogPatch("d.$cmd", doc(t, js), nil) }
	insert, patchOp, del := afterimage.OpInsert, afterimage.OpPatch, afterimage.OpDelete
	for _, c := range []struct {
		op               afterimage.Op
		body, before     []byte
		kind, ns, detail string
		destructive      bool
	}{
		{insert, row, nil, "create", "d.c", "", false},
		{del, mongodb.CatalogDelete("d.$cmd", doc(t, `{"drop":"c"}`)), row, "drop", "d.c", "", true},
		{del, mongodb.CatalogDelete("d.$cmd", doc(t, `{"drop":"c"}`)), nil, "drop", "d.c", "", true},
		{del, mongodb.CatalogDelete("d.$cmd", doc(t, `{"renameCollection":"d.x","to":"d.c"}`)), row, "drop", "d.c", "replaced by the rename of d.x", true},
		{del, mongodb.CatalogDelete("d.$cmd", doc(t, `{"renameCollection":"d.x","to":"d.c"}`)), nil, "drop", "d.c", "replaced by the rename of d.x", true},
		{patchOp, patch(`{"renameCollection":"d.c","to":"d.e"}`), row, "rename", "d.c", "to d.e", false},
		{patchOp, patch(`{"renameCollection":"d.c","to":"d.e"}`), nil, "rename", "d.c", "to d.e", false},
		{patchOp, patch(`{"createIndexes":"c","v":2,"key":{"a":1},"name":"a_1"}`), row, "createIndexes", "d.c", "a_1", false},
		{patchOp, patch(`{"commitIndexBuild":"c","indexes":[{"name":"a_1"},{"name":"b_1"}]}`), row, "createIndexes", "d.c", "a_1, b_1", false},
		{patchOp, patch(`{"startIndexBuild":"c"}`), row, "", "d.c", "", false},
		{patchOp, patch(`{"deleteIndexes":"c","index":"a_1"}`), row, "dropIndexes", "d.c", "a_1", false},
		{patchOp, patch(`{"collMod":"c","index":{"name":"a_1","hidden":true},"validator":{}}`), row, "collMod", "d.c", "index a_1 hidden, validator", false},
		{patchOp, patch(`{"emptycapped":"c"}`), row, "emptycapped", "d.c", "", true},
	} {
		kind, ns, detail, destructive := mongodb.EventOf(c.op, c.body, c.before)
		if kind != c.kind || ns != c.ns || detail != c.detail || destructive != c.destructive {
			t.Errorf("%v %s: %q %q %q %v", c.op, bson.Raw(c.body), kind, ns, detail, destructive)
		}
	}
}

func TestTimeseriesIndex(t *testing.T) {
	ts := doc(t, `{"timeField":"t","metaField":"m"}`)
	for in, want := range map[string]string{
		`{"v":2,"key":{"meta.a":1,"control.max.t":-1,"control.min.t":-1},"name":"n"}`:      `{"v":2,"key":{"m.a":1,"t":-1},"name":"n"}`,
		`{"v":2,"key":{"control.min.t":1,"control.max.t":1,"meta":1.0},"name":"n"}`:        `{"v":2,"key":{"t":1,"m":1.0},"name":"n"}`,
		`{"v":2,"key":{"data.loc":"2dsphere_bucket"},"name":"n"}`:                          `{"v":2,"key":{"loc":"2dsphere"},"name":"n"}`,
		`{"v":2,"key":{"x":1},"name":"n","originalSpec":{"key":{"y":1},"name":"n","v":2}}`: `{"key":{"y":1},"name":"n","v":2}`,
		`{"v":2,"key":{"control.max.t":1,"control.min.t":1},"name":"n"}`:                   "",
		`{"v":2,"key":{"control.min.t":-1,"control.max.t":-1},"name":"n"}`:                 "",
		`{"v":2,"key":{"control.min.t":1,"control.max.t":-1},"name":"n"}`:                  "",
		`{"v":2,"key":{"control.min.t":1,"control.max.u":1},"name":"n"}`:                   "",
		`{"v":2,"key":{"control.min.t":1},"name":"n"}`:                                     "",
		`{"v":2,"key":{"other":1},"name":"n"}`:                                             "",
	} {
		got, ok := mongodb.TimeseriesIndex(doc(t, in), ts)
		if ok != (want != "") || ok && !bytes.Equal(got, doc(t, want)) {
			t.Errorf("%s: %s %v, want %s", in, bson.Raw(got), ok, want)
		}
	}
	if _, ok := mongodb.TimeseriesIndex(doc(t, `{"v":2,"key":{"meta":1},"name":"n"}`), doc(t, `{"timeField":"t"}`)); ok {
		t.Error("meta without a meta field was taken")
	}
}
