package mongodb

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"go.mongodb.org/mongo-driver/bson"
	"go.uber.org/goleak"
	"pgregory.net/rapid"

	"github.com/afterimagedb/afterimage"
	"github.com/afterimagedb/afterimage/dialect"
	"github.com/afterimagedb/afterimage/dialect/mongodb"
	"github.com/afterimagedb/afterimage/restorer"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func doc(t testing.TB, s string) bson.Raw {
	t.Helper()
	var d bson.Raw
	if err := bson.UnmarshalExtJSON([]byte(s), false, &d); err != nil {
		t.Fatalf("%s: %v", s, err)
	}
	return d
}

func TestPlaceholders(t *testing.T) {
	d := doc(t, `{"_id":{"$timestamp":{"t":0,"i":0}},"a":{"$timestamp":{"t":0,"i":0}},"b":{"$timestamp":{"t":0,"i":1}},
		"c":{"d":{"$timestamp":{"t":0,"i":0}}},"":{"$timestamp":{"t":0,"i":0}}}`)
	want := bytes.Clone(d)
	b := new(batch)
	b.begin(insertPrefix("x", false), 0)
	b.add(d)
	if !bytes.Equal(d, want) {
		t.Error("the caller's document was changed")
	}
	if len(b.fixes) != 1 || len(b.fixes[0].names) != 2 {
		t.Fatalf("fixes %+v", b.fixes)
	}
	if !bytes.Equal(b.original(0), want) || bytes.Equal(b.doc(0), want) {
		t.Error("placeholders can't be undone")
	}
	if got := bson.Raw(b.doc(0)).Lookup("a"); got.Type != bson.TypeTimestamp || got.Value[0] != 1 {
		t.Errorf("placeholder %v", got)
	}
}

func TestBatchIsOneValidCommand(t *testing.T) {
	b := new(batch)
	for round := range 2 {
		b.begin(insertPrefix("coll", true), int64(round))
		for i := range 12 {
			b.add(withField(i))
		}
		cmd := b.command()
		if err := cmd.Validate(); err != nil {
			t.Fatal(err)
		}
		docs, err := cmd.Lookup("documents").Array().Values()
		if err != nil || len(docs) != 12 || !bytes.Equal(docs[11].Value, withField(11)) {
			t.Fatalf("documents %v %v", docs, err)
		}
		if cmd.Lookup("insert").StringValue() != "coll" || !cmd.Lookup("ordered").Boolean() {
			t.Errorf("command %s", cmd)
		}
	}
}

func withField(i int) []byte { return newDocument().i32("_id", int32(i)).end() }

func TestTallyForgetsOrderButNotContents(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		n := rapid.IntRange(1, 40).Draw(t, "n")
		var docs [][]byte
		for i := range n {
			docs = append(docs, newDocument().i32("_id", int32(i)).i32("v", rapid.Int32().Draw(t, "v")).end())
		}
		var a, b tally
		for _, d := range docs {
			a.add(d)
		}
		for _, d := range rapid.Permutation(docs).Draw(t, "order") {
			b.add(d)
		}
		if a.parts != b.parts || a.count() != uint64(n) {
			t.Fatal("order matters")
		}
		i := rapid.IntRange(0, n-1).Draw(t, "damaged")
		damaged := bytes.Clone(docs[i])
		damaged[len(damaged)-2] ^= 1
		var c tally
		for k, d := range docs {
			if k == i {
				d = damaged
			}
			c.add(d)
		}
		if a.parts == c.parts {
			t.Fatal("a flipped bit is not seen")
		}
	})
}

func TestMasks(t *testing.T) {
	d := doc(t, `{"_id":1,"mail":"a@b","list":[{"mail":"c"},{"x":1},[{"mail":"d"}],5],"sub":{"mail":"e","keep":2},"mail":"again"}`)
	for _, c := range []struct{ mask, want string }{
		{"shop:mail=null", `{"_id":1,"mail":null,"list":[{"mail":"c"},{"x":1},[{"mail":"d"}],5],"sub":{"mail":"e","keep":2},"mail":null}`},
		{"shop.*:list.mail=null", `{"_id":1,"mail":"a@b","list":[{"mail":null},{"x":1},[{"mail":null}],5],"sub":{"mail":"e","keep":2},"mail":"again"}`},
		{"shop:list.0.mail=constant:{\"a\":1}", `{"_id":1,"mail":"a@b","list":[{"mail":{"a":1}},{"x":1},[{"mail":{"a":1}}],5],"sub":{"mail":"e","keep":2},"mail":"again"}`},
		{"shop:sub=constant:7", `{"_id":1,"mail":"a@b","list":[{"mail":"c"},{"x":1},[{"mail":"d"}],5],"sub":7,"mail":"again"}`},
		{"shop:none.such=null", string(jsonOf(d))},
		{"other:mail=null", string(jsonOf(d))},
	} {
		m, err := ParseMask(c.mask)
		if err != nil {
			t.Errorf("%s: %v", c.mask, err)
			continue
		}
		var buf []byte
		got, err := chooseMasks([]Mask{m}, "shop.customers").apply(&buf, d)
		if err != nil || !bytes.Equal(got, doc(t, c.want)) {
			t.Errorf("%s: %v\n%s", c.mask, err, jsonOf(got))
		}
	}
	two := chooseMasks([]Mask{{"shop", "sub.mail", MaskHash, "salt", bson.RawValue{}}, {"shop", "list", MaskNull, "", bson.RawValue{}}}, "shop.x")
	var buf []byte
	got, err := two.apply(&buf, d)
	if err != nil || bson.Raw(got).Validate() != nil || len(bson.Raw(got).Lookup("sub", "mail").StringValue()) != 32 || bson.Raw(got).Lookup("list").Type != bson.TypeNull {
		t.Errorf("two masks: %v %s", err, jsonOf(got))
	}
	for _, bad := range []string{"", "x", "a:b", "a:b=c", "a:_id=null", "a:b=constant", "a:b=constant:{", "a:b=hash:1", ":b=null"} {
		if _, err := ParseMask(bad); err == nil {
			t.Errorf("mask %q was taken", bad)
		}
	}
}

func TestParseIDAgreesWithTheDialect(t *testing.T) {
	for _, text := range []string{
		"1", "1.5", "abc", `"1"`, "507f1f77bcf86cd799439011", "8bab1795-b2f4-492c-aebb-799ff309c447", `{"a":1}`, "true", `{"$numberLong":"5"}`, "null",
	} {
		keys, err := mongodb.New().ParseKey(text)
		if err != nil {
			t.Fatal(err)
		}
		id, err := ParseID(text)
		if err != nil || len(id) != len(keys) {
			t.Errorf("%s: %v, %v; the dialect has %d", text, id, err, len(keys))
			continue
		}
		for i, v := range id {
			if key, err := mongodb.AppendValueKey(nil, byte(v.Type), v.Value); err != nil || !bytes.Equal(key, keys[i]) {
				t.Errorf("%s: meaning %d is another", text, i)
			}
		}
	}
	for text, n := range map[string]int{
		`{"_id":1}`: 1, `{"_id":{"$in":[1,"a",{"b":1}]}}`: 3, `{"_id":{"a":1}}`: 1, `{"_id":{"$gt":1}}`: 0, `{"a":1}`: 0, `{"_id":1,"a":1}`: 0, `x`: 0,
		`{"_id":{"$in":1}}`: 0, `{"_id":{"$in":[1],"$gt":0}}`: 0,
	} {
		if ids, err := ParseQuery(text); len(ids) != n || (err == nil) != (n > 0) {
			t.Errorf("%s: %v %v", text, ids, err)
		}
	}
}

func planned(ns string) *plannedTable {
	return &plannedTable{collection: collection{table: dialect.Table{ID: afterimage.TableID{1}}}, shown: ns}
}

func TestJournal(t *testing.T) {
	o := Options{StateDir: filepath.Join(t.TempDir(), "state"), At: afterimage.MongoTime(5, 6)}
	open := func(target string) *journal {
		t.Helper()
		j, err := openJournal(o, target)
		if err != nil {
			t.Fatal(err)
		}
		return j
	}
	j := open("a")
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	must(j.begin(o.At, "a"))
	p, q := planned("x.p"), planned("x.q")
	must(errors.Join(j.creating(p, "old"), j.created(p, "u1"), j.written(p, []byte{1}), j.written(p, []byte{2, 0, 255})))
	must(errors.Join(j.creating(q, ""), j.view("x.v")))
	j.close()
	f, err := os.OpenFile(j.path, os.O_APPEND|os.O_WRONLY, 0)
	must(err)
	_, err = f.WriteString(`{"event":"done","table":"x`) // torn
	must(errors.Join(err, f.Close()))

	k := open("a")
	if got := k.table(p); !k.resumed || got.uuid != "u1" || !bytes.Equal(got.key, []byte{2, 0, 255}) || got.done != nil || got.replaces != "old" {
		t.Errorf("read back %+v", got)
	}
	if got := k.table(q); !got.creating || got.uuid != "" || !k.viewDone("x.v") || k.viewDone("x.w") {
		t.Errorf("read back %+v", got)
	}
	must(k.begin(o.At, "a"))
	must(k.done(p, &restorer.NamespaceReport{Documents: 3}))
	k.close()
	if got := open("a").table(p).done; got == nil || got.Documents != 3 {
		t.Errorf("the line after a torn one was lost: %+v", got)
	}
	if other := open("b"); other.resumed || other.path == j.path {
		t.Error("another target has the same journal")
	}
	must(k.finish())
	if open("a").resumed {
		t.Error("a finished journal is still there")
	}
}

func TestPlanNamesAndRefusals(t *testing.T) {
	m := newMemory()
	for _, ns := range []string{"shop.a", "shop.b", "config.x", "local.y", "admin.system.version", "admin.system.users", "shop.system.profile", "shop.system.js", "admin.mine"} {
		m.table(t, ns)
	}
	m.table(t, "shop.system.views", newDocument().str("_id", "shop.v").str("viewOn", "a").array("pipeline").end(),
		newDocument().str("_id", "shop.ts").str("viewOn", "system.buckets.ts").array("pipeline").end())
	row := mongodb.CatalogRow{Namespace: "shop.system.buckets.ts", Type: "collection", Options: doc(t, `{"timeseries":{"timeField":"t"}}`)}
	m.add(t, afterimage.TableID{2}, row.Append(nil))
	plan := func(o Options) (*plan, error) {
		o.Source = m
		r := &run{opts: o, target: &target{}, journal: &journal{}}
		p := newPlan(t, r)
		return p, r.checkSelection(p)
	}
	p, err := plan(Options{Rename: restorer.Rules{{From: "shop", To: "copy"}}})
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]string{}
	for _, n := range p.names() {
		got[n.source] = n.target
	}
	want := map[string]string{"shop.a": "copy.a", "shop.b": "copy.b", "shop.system.js": "copy.system.js", "admin.mine": "admin.mine", "shop.ts": "copy.ts", "shop.v": "copy.v"}
	if len(got) != len(want) || len(p.names()) != len(want) {
		t.Errorf("planned %v", got)
	}
	for k, v := range want {
		if got[k] != v {
			t.Errorf("%s becomes %q, want %q", k, got[k], v)
		}
	}
	for _, bad := range []restorer.Rules{{{From: "shop.a", To: "shop.b"}}, {{From: "shop.a", To: "local.a"}}, {{From: "shop.a", To: "sh$op.a"}}, {{From: "shop.v", To: "shop.ts"}}} {
		var usage *afterimage.UsageError
		if _, err := plan(Options{Rename: bad}); !errors.As(err, &usage) {
			t.Errorf("%v was taken: %v", bad, err)
		}
	}
	p, err = plan(Options{Rename: restorer.Rules{{From: "shop.a", To: "shop.a2"}}, Select: restorer.Selection{Include: []string{"shop.v"}}})
	if err != nil || len(p.names()) != 1 || p.views[0].row.Lookup("viewOn").StringValue() != "a2" {
		t.Errorf("%v %+v", err, p)
	}
	var usage *afterimage.UsageError
	if _, err := plan(Options{Select: restorer.Selection{Include: []string{"shop.v", "shop.nosuch"}}}); !errors.As(err, &usage) || !strings.Contains(err.Error(), "shop.nosuch") {
		t.Errorf("a pattern that matches nothing: %v", err)
	}
}

func newPlan(t *testing.T, r *run) *plan {
	t.Helper()
	p := &plan{}
	tables, _ := r.opts.Source.Tables(context.Background())
	if err := r.planTables(context.Background(), p, tables); err != nil {
		t.Fatal(err)
	}
	return p
}

func TestOddDocumentsCanBePrinted(t *testing.T) {
	for _, d := range []bson.Raw{
		newDocument().value("b", 0x05, []byte{0, 0, 0, 0, 2}).end(), newDocument().value("b", 0x05, []byte{4, 0, 0, 0, 2, 0, 0, 0, 0}).end(),
		newDocument().value("u", 0x06, nil).value("d", 0x13, bytes.Repeat([]byte{0x5f}, 16)).end(),
		newDocument().value("s", typeString, []byte("\x03\x00\x00\x00\xff\xfe\x00")).value("a", typeArray, newDocument().i32("x", 1).end()).end(),
	} {
		if s := jsonOf(d); s[0] != '{' {
			t.Errorf("%x prints as %s", d, s)
		}
	}
	if jsonOf([]byte{5, 0, 0, 0}) != "(not a document)" || jsonOf(newDocument().value("x", 0x44, nil).end()) != "(not a document)" {
		t.Error("what is no document was printed")
	}
}

func TestOptionsAreChecked(t *testing.T) {
	var usage *afterimage.UsageError
	for _, o := range []Options{{}, {Source: newMemory(), TTL: "never"}, {Source: newMemory(), URI: "mongodb://user:secret@:x"}} {
		_, err := Restore(context.Background(), o)
		if !errors.As(err, &usage) || bytes.Contains([]byte(err.Error()), []byte("secret")) {
			t.Errorf("%+v: %v", o, err)
		}
	}
}

func FuzzWalk(f *testing.F) {
	f.Add([]byte{5, 0, 0, 0, 0})
	f.Add([]byte(newDocument().value("_id", 0x0F, []byte("\x10\x00\x00\x00\x03\x00\x00\x00ab\x00\x05\x00\x00\x00\x00")).end()))
	f.Add([]byte(newDocument().i32("_id", 1).value("t", typeTimestamp, make([]byte, 8)).end()))
	f.Fuzz(func(t *testing.T, doc []byte) {
		if err := walk(doc, func(e element) bool { return e.end < len(doc) && e.value <= e.end }); err != nil && sound(doc, 0) {
			t.Errorf("sound and refused: %v", err)
		}
		c := bytes.Clone(doc)
		clearPlaceholders(c, setPlaceholders(c))
		if !bytes.Equal(c, doc) {
			t.Error("placeholders can't be undone")
		}
		partition(doc)
		_ = jsonOf(doc) + idText(doc)
		for _, how := range []string{MaskNull, MaskHash} {
			var buf []byte
			// Bad input is an error or a result, never a panic.
			_, _ = chooseMasks([]Mask{{Namespace: "*", Path: "a.b", How: how}}, "a.b").apply(&buf, doc)
		}
	})
}

func BenchmarkBatch(b *testing.B) {
	doc := newDocument().i32("_id", 1).str("text", string(bytes.Repeat([]byte("x"), 900))).end()
	prefix := insertPrefix("coll", false)
	x := new(batch)
	var sum tally
	b.SetBytes(int64(len(doc)))
	x.begin(prefix, 0)
	for b.Loop() {
		if x.full(len(doc)) {
			x.command()
			x.begin(prefix, 0)
		}
		sum.add(doc)
		x.add(doc)
	}
}
