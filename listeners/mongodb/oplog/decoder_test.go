package oplog

import (
	"errors"
	"fmt"
	"testing"

	"go.mongodb.org/mongo-driver/bson"
	"go.mongodb.org/mongo-driver/bson/primitive"

	"github.com/afterimagedb/afterimage"
)

func raw(tb testing.TB, json string) []byte {
	tb.Helper()
	var d bson.D
	if err := bson.UnmarshalExtJSON([]byte(json), false, &d); err != nil {
		tb.Fatal(json, err)
	}
	b, err := bson.Marshal(d)
	if err != nil {
		tb.Fatal(err)
	}
	return b
}

const (
	ts = `"ts":{"$timestamp":{"t":100,"i":7}}`
	ui = `"ui":{"$binary":{"base64":"AQIDBAUGBwgJCgsMDQ4PEA==","subType":"04"}}`
)

// TestUnknown checks that what is not understood is kept and told of, and what is bookkeeping is not.
func TestUnknown(t *testing.T) {
	for name, tc := range map[string]struct {
		entry   string
		unknown bool
	}{
		"container insert":     {`{"op":"ci","ns":"a.b",` + ui + `,"o":{"_id":1},` + ts + `}`, true},
		"global index key":     {`{"op":"xi","ns":"a.b",` + ui + `,"o":{"_id":1},` + ts + `}`, true},
		"km":                   {`{"op":"km","ns":"",` + ts + `,"o":{}}`, true},
		"no kind":              {`{` + ts + `,"o":{}}`, true},
		"kind in config":       {`{"op":"ci","ns":"config.transactions","o":{"_id":1},` + ts + `}`, false},
		"new command":          {`{"op":"c","ns":"a.$cmd","o":{"dropIdent":"x"},` + ts + `}`, true},
		"empty command":        {`{"op":"c","ns":"a.$cmd","o":{},` + ts + `}`, true},
		"no uuid":              {`{"op":"i","ns":"a.b","o":{"_id":1},` + ts + `}`, true},
		"create without uuid":  {`{"op":"c","ns":"a.$cmd","o":{"create":"b"},` + ts + `}`, true},
		"update of nothing":    {`{"op":"u","ns":"a.b",` + ui + `,"o":{"$v":2,"diff":{}},` + ts + `}`, true},
		"future diff":          {`{"op":"u","ns":"a.b",` + ui + `,"o2":{"_id":1},"o":{"$v":3,"diff":{}},` + ts + `}`, true},
		"commit of unknown":    {`{"op":"c","ns":"admin.$cmd","lsid":{"id":1},"txnNumber":1,"o":{"commitTransaction":1,"commitTimestamp":{"$timestamp":{"t":99,"i":1}}},` + ts + `}`, true},
		"rename over a name":   {`{"op":"c","ns":"a.$cmd",` + ui + `,"o":{"renameCollection":"a.b","to":"a.c","dropTarget":true},` + ts + `}`, true},
		"abort of unknown":     {`{"op":"c","ns":"admin.$cmd","lsid":{"id":1},"txnNumber":1,"o":{"abortTransaction":1},` + ts + `}`, false},
		"no-op":                {`{"op":"n","ns":"","o":{"msg":"x"},` + ts + `}`, false},
		"session bookkeeping":  {`{"op":"i","ns":"config.transactions",` + ui + `,"o":{"_id":1},` + ts + `}`, false},
		"retry image":          {`{"op":"u","ns":"config.image_collection",` + ui + `,"o2":{"_id":1},"o":{"_id":1},` + ts + `}`, false},
		"system version":       {`{"op":"u","ns":"admin.system.version",` + ui + `,"o2":{"_id":1},"o":{"_id":1},` + ts + `}`, false},
		"ddl of bookkeeping":   {`{"op":"c","ns":"config.$cmd",` + ui + `,"o":{"create":"transactions"},` + ts + `}`, false},
		"drop of the database": {`{"op":"c","ns":"a.$cmd","o":{"dropDatabase":1},` + ts + `}`, false},
	} {
		t.Run(name, func(t *testing.T) {
			d := NewDecoder(Options{})
			entry := raw(t, tc.entry)
			if err := d.Add(entry); err != nil {
				t.Fatal(err)
			}
			want := 0
			if tc.unknown {
				want = 1
			}
			if len(d.Changes()) != want || len(d.Notes()) != want {
				t.Fatalf("%d changes and %d notes, want %d", len(d.Changes()), len(d.Notes()), want)
			}
			if tc.unknown {
				c := d.Changes()[0]
				if c.Op != afterimage.OpUnknown || string(c.Body) != string(entry) || d.Notes()[0].Time != c.Time {
					t.Errorf("got %s", printChange(&c))
				}
			}
			if d.To().Hi != uint64(afterimage.MongoTime(100, 7)) {
				t.Error("the position did not advance")
			}
		})
	}
}

func TestVectoredInsert(t *testing.T) {
	d := NewDecoder(Options{})
	if err := d.Add(raw(t, `{"op":"i","ns":"a.b",`+ui+`,"o":[{"_id":1},{"_id":2},{"x":1}],`+ts+`}`)); err != nil {
		t.Fatal(err)
	}
	if len(d.Changes()) != 3 || len(d.Notes()) != 0 {
		t.Fatalf("%d changes, %d notes", len(d.Changes()), len(d.Notes()))
	}
	for i, c := range d.Changes() {
		if c.Op != afterimage.OpInsert || c.Order != uint32(i) || len(c.Key) == 0 {
			t.Error(printChange(&c))
		}
	}
}

// TestChainWithoutSession links the pieces of a batched write by prevOpTime alone.
func TestChainWithoutSession(t *testing.T) {
	op := func(id string) string { return `{"op":"d","ns":"a.b",` + ui + `,"o":{"_id":` + id + `}}` }
	d := NewDecoder(Options{})
	r := decode(t, d, [][]byte{
		raw(t, `{"op":"c","ns":"admin.$cmd","o":{"applyOps":[`+op("1")+`],"partialTxn":true},"ts":{"$timestamp":{"t":100,"i":1}},"prevOpTime":{"ts":{"$timestamp":{"t":0,"i":0}},"t":-1}}`),
		raw(t, `{"op":"c","ns":"admin.$cmd","o":{"applyOps":[`+op("2")+`]},"ts":{"$timestamp":{"t":100,"i":2}}}`), // somebody else's
		raw(t, `{"op":"c","ns":"admin.$cmd","o":{"applyOps":[`+op("3")+`],"count":2},"ts":{"$timestamp":{"t":100,"i":3}},"prevOpTime":{"ts":{"$timestamp":{"t":100,"i":1}},"t":1}}`),
	})
	var ids []int32
	for _, c := range r.changes {
		ids = append(ids, bson.Raw(c.Body).Lookup("_id").Int32())
	}
	if len(ids) != 3 || ids[0] != 2 || ids[1] != 1 || ids[2] != 3 || d.OpenTransactions() != 0 {
		t.Errorf("ids %v, %d open", ids, d.OpenTransactions())
	}
}

// TestHeadlessTransaction begins in the middle of transactions: what remains of one must not pass for the whole.
func TestHeadlessTransaction(t *testing.T) {
	entry := func(i int, o string) []byte {
		return raw(t, fmt.Sprintf(`{"op":"c","ns":"admin.$cmd","lsid":{"id":1},"txnNumber":1,"o":{%s},"ts":{"$timestamp":{"t":100,"i":%d}},"prevOpTime":{"ts":{"$timestamp":{"t":100,"i":%d}},"t":1}}`, o, i, i-1))
	}
	ops := `"applyOps":[{"op":"i","ns":"a.b",` + ui + `,"o":{"_id":1}}]`
	for name, entries := range map[string][][]byte{
		"last entry":          {entry(7, ops+`,"count":3`)},
		"last two entries":    {entry(6, ops+`,"partialTxn":true`), entry(7, ops+`,"count":3`)},
		"prepared, last":      {entry(6, ops+`,"prepare":true,"count":3`), entry(7, `"commitTransaction":1,"commitTimestamp":{"$timestamp":{"t":100,"i":6}}`)},
		"prepared, last two":  {entry(5, ops+`,"partialTxn":true`), entry(6, ops+`,"prepare":true,"count":3`), entry(7, `"commitTransaction":1,"commitTimestamp":{"$timestamp":{"t":100,"i":6}}`)},
		"prepared, then over": {entry(7, `"commitTransaction":1,"commitTimestamp":{"$timestamp":{"t":100,"i":6}}`)},
	} {
		t.Run(name, func(t *testing.T) {
			d := NewDecoder(Options{})
			r := decode(t, d, entries)
			if len(r.changes) != 1 || r.changes[0].Op != afterimage.OpUnknown || d.OpenTransactions() != 0 {
				t.Errorf("changes %+v, %d open", r.changes, d.OpenTransactions())
			}
		})
	}
}

func TestMalformed(t *testing.T) {
	good := raw(t, `{"op":"i","ns":"a.b",`+ui+`,"o":{"_id":1},`+ts+`}`)
	for n := range good {
		d := NewDecoder(Options{})
		if err := d.Add(good[:n]); !errors.Is(err, ErrMalformed) {
			t.Fatalf("cut at %d: %v", n, err)
		}
	}
	noTS, err := bson.Marshal(bson.D{{Key: "op", Value: "n"}, {Key: "ts", Value: primitive.Timestamp{}}})
	if err != nil {
		t.Fatal(err)
	}
	if err := NewDecoder(Options{}).Add(noTS); !errors.Is(err, ErrMalformed) {
		t.Error(err)
	}
}

func TestKept(t *testing.T) {
	for ns, want := range map[string]bool{
		"shop.orders": true, "admin.system.users": true, "admin.system.roles": true, "admin.mine": true, "a.system.views": true,
		"a.system.js": true, "a.system.buckets.t": true, "configs.a": true, "locals.b": true, "a.config.b": true,
		"config.transactions": false, "local.oplog.rs": false, "admin.system.version": false, "admin.system.keys": false,
		"a.system.profile": false, "": false, "nodot": false, ".x": false,
	} {
		if Kept(ns) != want {
			t.Errorf("Kept(%q) is %v", ns, !want)
		}
	}
}

func FuzzDecoder(f *testing.F) {
	for _, entries := range captured(f) {
		for _, e := range entries {
			f.Add(e, e)
		}
	}
	f.Fuzz(func(t *testing.T, a, b []byte) {
		d := NewDecoder(Options{MemoryBytesMax: 64, Scratch: memoryScratch})
		for _, e := range [][]byte{a, b} {
			if err := d.Add(e); err != nil {
				return
			}
			for d.Pending() {
				d.Clear()
				if err := d.Continue(); err != nil {
					return
				}
			}
			for _, c := range d.Changes() {
				if len(c.Key) == 0 || c.Op == 0 {
					t.Fatal("a change without key or kind")
				}
			}
		}
		if d.RestartFrom().Hi > d.To().Hi || uint64(d.Horizon()) > d.To().Hi {
			t.Fatal("horizon or restart position beyond the end")
		}
	})
}

// BenchmarkDecode decodes inserts, diffs, deletes and small transactions of about 600 bytes an entry.
func BenchmarkDecode(b *testing.B) {
	pad := string(make([]byte, 400))
	var entries [][]byte
	size := 0
	for i := range 1000 {
		op := bson.D{
			{Key: "op", Value: "u"},
			{Key: "ns", Value: "shop.orders"},
			{Key: "ui", Value: primitive.Binary{Subtype: 4, Data: make([]byte, 16)}},
			{Key: "o", Value: bson.D{{Key: "$v", Value: int32(2)}, {Key: "diff", Value: bson.D{{Key: "u", Value: bson.D{{Key: "text", Value: pad}}}}}}},
			{Key: "o2", Value: bson.D{{Key: "_id", Value: primitive.NewObjectID()}}},
		}
		if i%10 == 0 {
			op[0].Value, op[3].Value = "i", bson.D{{Key: "_id", Value: primitive.NewObjectID()}, {Key: "text", Value: pad}}
		}
		e := bson.D{{Key: "lsid", Value: bson.D{{Key: "id", Value: primitive.Binary{Subtype: 4, Data: make([]byte, 16)}}, {Key: "uid", Value: primitive.Binary{Data: make([]byte, 32)}}}}, {Key: "txnNumber", Value: int64(i)}}
		if i%20 == 0 {
			e = append(e, bson.E{Key: "op", Value: "c"}, bson.E{Key: "ns", Value: "admin.$cmd"}, bson.E{Key: "o", Value: bson.D{{Key: "applyOps", Value: bson.A{op, op, op}}}})
		} else {
			e = append(e, op...)
		}
		e = append(e, bson.E{Key: "stmtId", Value: int32(0)}, bson.E{Key: "ts", Value: primitive.Timestamp{T: 100, I: uint32(i + 1)}}, bson.E{Key: "t", Value: int64(1)},
			bson.E{Key: "v", Value: int64(2)}, bson.E{Key: "wall", Value: primitive.DateTime(1)}, bson.E{Key: "prevOpTime", Value: bson.D{{Key: "ts", Value: primitive.Timestamp{}}, {Key: "t", Value: int64(-1)}}})
		raw, err := bson.Marshal(e)
		if err != nil {
			b.Fatal(err)
		}
		entries = append(entries, raw)
		size += len(raw)
	}
	d := NewDecoder(Options{})
	b.SetBytes(int64(size))
	b.ReportAllocs()
	for b.Loop() {
		for _, e := range entries {
			if err := d.Add(e); err != nil {
				b.Fatal(err)
			}
		}
		d.Clear()
	}
	b.ReportMetric(float64(len(entries)*b.N)/b.Elapsed().Seconds(), "entries/s")
}
