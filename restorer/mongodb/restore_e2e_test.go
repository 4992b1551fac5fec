//go:build e2e

package mongodb

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"strings"
	"testing"

	"go.mongodb.org/mongo-driver/mongo"

	"github.com/afterimagedb/afterimage/e2e/harness"
	"github.com/afterimagedb/afterimage/restorer"
)

func int32Value(n int32) []byte { return binary.LittleEndian.AppendUint32(nil, uint32(n)) }

func withID(n int32) command { return newDocument().i32("_id", n) }

func nested(levels int) []byte {
	d := newDocument().end()
	for range levels {
		d = newDocument().doc("a", d).end()
	}
	return d
}

// oddDocuments are what a server can hold and a driver or an insert would change or refuse.
func oddDocuments() [][]byte {
	zero, one := make([]byte, 8), []byte{1, 0, 0, 0, 0, 0, 0, 0}
	big := withID(20)
	big = big.str("s", strings.Repeat("y", 16<<20-len(big.str("s", "").end())))
	return [][]byte{
		withID(1).value("t", typeTimestamp, zero).value("one", typeTimestamp, one).value("u", typeTimestamp, zero).end(),
		withID(2).value("", typeTimestamp, zero).value("a.b", typeTimestamp, zero).value("$x", typeTimestamp, zero).end(),
		newDocument().value("_id", typeTimestamp, zero).value("t", typeTimestamp, one).end(),
		withID(3).doc("nested", newDocument().value("t", typeTimestamp, zero).end()).end(),
		withID(4).value("empty2", 0x05, []byte{0, 0, 0, 0, 2}).value("two", 0x05, []byte{5, 0, 0, 0, 2, 1, 0, 0, 0, 'x'}).end(),
		withID(5).value("arr", typeArray, newDocument().i32("7", 1).i32("x", 2).end()).end(),
		withID(6).i32("dup", 1).i32("dup", 2).end(),
		withID(7).i32("", 1).i32("a.b", 2).i32("$set", 3).i32("$x", 4).end(),
		withID(8).value("undef", 0x06, nil).value("ptr", 0x0C, append([]byte("\x02\x00\x00\x00a\x00"), make([]byte, 12)...)).
			value("sym", 0x0E, []byte("\x02\x00\x00\x00y\x00")).value("min", 0xFF, nil).value("max", 0x7F, nil).end(),
		withID(9).value("bad", typeString, []byte("\x03\x00\x00\x00\xff\xfe\x00")).value("re", 0x0B, []byte("a\x00xi\x00")).end(),
		withID(10).doc("deep", nested(179)).end(),
		withID(11).doc("deeper", nested(190)).end(), // insert refuses more than 180 levels, an oplog entry does not
		newDocument().value("_id", typeArray, newDocument().i32("0", 1).end()).end(),
		newDocument().value("_id", 0x0B, []byte("a\x00i\x00")).end(),
		withID(12).i32("x", 1).i32("_id", 13).end(), // two of the name _id
		newDocument().doc("_id", newDocument().i32("a.b", 1).end()).end(),
		newDocument().value("_id", typeDouble, make([]byte, 8)).doc("scope", newDocument().end()).end(),
		withID(14).value("dec", 0x13, bytes.Repeat([]byte{0x5f}, 16)).value("nan", typeDouble, []byte{1, 0, 0, 0, 0, 0, 0xf8, 0x7f}).end(),
		big.end(),
	}
}

func TestRestoreOddDocuments(t *testing.T) {
	for _, o := range []harness.Options{{}, {Standalone: true}} {
		t.Run(fmt.Sprintf("standalone=%v", o.Standalone), func(t *testing.T) {
			uri, client := server(t, o)
			m := newMemory()
			m.table(t, "odd.docs", oddDocuments()...)
			rep, err := Restore(context.Background(), Options{URI: uri, Source: m, At: at()})
			if err != nil {
				t.Fatalf("%v\n%+v", err, rep)
			}
			same(t, "odd.docs", m.rows["odd.docs"], read(t, client, "odd").rows["odd.docs"], false)
			n := rep.Namespaces[0]
			if !n.Verified || n.Documents != int64(len(oddDocuments())) || n.Exact < 6 {
				t.Errorf("report %+v", n)
			}
		})
	}
}

// catalogOf fills a database with every kind of collection, index and view that the server takes.
func catalogOf(t *testing.T, c *mongo.Client, version string) {
	t.Helper()
	run := func(s string) { t.Helper(); command1(t, c, "kinds", ext(t, s)) }
	run(`{"create":"plain"}`)
	run(`{"create":"empty"}`)
	run(`{"create":"valid","validator":{"$jsonSchema":{"required":["must"]}},"validationLevel":"moderate","validationAction":"warn"}`)
	run(`{"create":"strict","validator":{"a":{"$gt":1}}}`)
	run(`{"insert":"strict","documents":[{"_id":1,"a":0}],"bypassDocumentValidation":true}`)
	run(`{"create":"ci","collation":{"locale":"en","strength":2}}`)
	run(`{"insert":"ci","documents":[{"_id":"A"},{"_id":"b"}]}`)
	run(`{"create":"v1","idIndex":{"v":1,"key":{"_id":1},"name":"_id_"}}`)
	run(`{"create":"cap","capped":true,"size":65536,"max":40}`)
	for i := range 60 {
		run(fmt.Sprintf(`{"insert":"cap","documents":[{"_id":%d,"t":{"$timestamp":{"t":0,"i":0}}}]}`, i*37%60))
	}
	run(`{"update":"cap","updates":[{"q":{"_id":37},"u":{"$set":{"t":{"$timestamp":{"t":0,"i":0}}}}}]}`)
	run(`{"insert":"system.js","documents":[{"_id":"f","value":{"$code":"function(){}"}}]}`)
	run(`{"insert":"plain","documents":[{"_id":1,"a":1,"b":[1,2],"loc":[1,1]},{"_id":2,"a":2},{"_id":{"$numberLong":"3"}},{"_id":4.5}]}`)
	run(`{"createIndexes":"plain","indexes":[
		{"key":{"a":1},"name":"a_1","unique":true,"sparse":true},{"key":{"b":-1},"name":"hidden","hidden":true},
		{"key":{"c":1},"name":"ttl","expireAfterSeconds":3600},{"key":{"d":"hashed"},"name":"hashed"},
		{"key":{"t":"text","u":"text"},"name":"text","weights":{"t":3},"default_language":"german"},
		{"key":{"$**":1},"name":"wild","wildcardProjection":{"x":1}},{"key":{"loc":"2d"},"name":"2d","bits":20,"min":-10.0,"max":10.0},
		{"key":{"g":"2dsphere"},"name":"sphere"},{"key":{"e":1},"name":"partial","partialFilterExpression":{"e":{"$gt":1}}},
		{"key":{"s":1},"name":"coll","collation":{"locale":"fr"}},{"key":{"o":1.0},"name":"old","v":1},
		{"key":{"bg":1},"name":"bg","background":true}]}`)
	run(`{"create":"view","viewOn":"plain","pipeline":[{"$match":{"a":{"$gt":0}}}]}`)
	run(`{"create":"view2","viewOn":"view","pipeline":[]}`)
	run(`{"create":"view3","viewOn":"plain","pipeline":[],"collation":{"locale":"en"}}`)
	if major(version) < 5 {
		return
	}
	run(`{"create":"ts","timeseries":{"timeField":"t","metaField":"m"},"expireAfterSeconds":86400}`)
	run(`{"insert":"ts","documents":[{"t":{"$date":"2026-01-01T00:00:00Z"},"m":1,"v":1},{"t":{"$date":"2026-01-01T00:01:00Z"},"m":2,"v":2}]}`)
	run(`{"createIndexes":"ts","indexes":[{"key":{"m":1,"t":-1},"name":"mt"}]}`)
	if major(version) < 6 {
		return
	}
	run(`{"createIndexes":"ts","indexes":[{"key":{"v":1},"name":"v"}]}`)
	run(`{"collMod":"ts","timeseries":{"granularity":"minutes"}}`)
	run(`{"create":"clu","clusteredIndex":{"key":{"_id":1},"unique":true,"name":"cl"},"expireAfterSeconds":{"$numberLong":"7200"}}`)
	run(`{"insert":"clu","documents":[{"_id":1},{"_id":"x"}]}`)
	run(`{"create":"pre","changeStreamPreAndPostImages":{"enabled":true}}`)
	run(`{"createIndexes":"pre","indexes":[{"key":{"p":1},"name":"prep","prepareUnique":true}]}`)
	run(`{"create":"shrunk","capped":true,"size":65536}`)
	for i := range 30 {
		run(fmt.Sprintf(`{"insert":"shrunk","documents":[{"_id":%d,"s":"%s"}]}`, 30-i, strings.Repeat("s", 100)))
	}
	run(`{"collMod":"shrunk","cappedSize":2048,"cappedMax":10}`)
}

func TestRestoreKinds(t *testing.T) {
	for _, v := range versions(t) {
		for _, standalone := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s standalone=%v", v, standalone), func(t *testing.T) {
				_, src := server(t, harness.Options{Version: v})
				catalogOf(t, src, v)
				want := read(t, src, "kinds")
				uri, dst := server(t, harness.Options{Version: v, Standalone: standalone, Name: "target"})
				rep, err := Restore(context.Background(), Options{URI: uri, Source: want, At: at(), TTL: TTLKeep})
				if err != nil {
					t.Fatalf("%v\n%+v", err, rep)
				}
				equal(t, want, read(t, dst, "kinds"), itself)
				sameViews(t, want.rows["kinds.system.views"], documents(t, dst, "kinds", "system.views"))
				for _, n := range rep.Namespaces {
					if !n.Verified {
						t.Errorf("not verified: %+v", n)
					}
				}
				if len(rep.Warnings) > 0 {
					t.Errorf("warnings %q", rep.Warnings)
				}
			})
		}
	}
}

func sameViews(t *testing.T, want []memoryRow, got [][]byte) {
	t.Helper()
	if len(want) != len(got) {
		t.Errorf("%d views, restored %d", len(want), len(got))
	}
	for _, w := range want {
		found := false
		for _, g := range got {
			found = found || bytes.Equal(w.body, g)
		}
		if !found {
			t.Errorf("view %s is not in the target as it was", jsonOf(w.body))
		}
	}
}

func TestRestoreRenameHoldAndRefuse(t *testing.T) {
	uri, client := server(t, harness.Options{})
	catalogOf(t, client, harness.Mongo60)
	want := read(t, client, "kinds")
	ctx := context.Background()
	o := Options{URI: uri, Source: want, At: at(), Rename: restorer.Rules{{From: "kinds.*", To: "again.x_*"}}}
	if _, err := Restore(ctx, Options{URI: uri, Source: want, At: at()}); err == nil {
		t.Error("a restore over what exists was not refused")
	} else {
		for _, ns := range []string{"kinds.plain", "kinds.ts", "kinds.view2", "kinds.cap"} {
			if !strings.Contains(err.Error(), ns) {
				t.Errorf("%s is not named: %v", ns, err)
			}
		}
	}
	rep, err := Restore(ctx, o)
	if err != nil {
		t.Fatalf("%v\n%+v", err, rep)
	}
	equal(t, want, read(t, client, "kinds"), itself) // untouched
	if len(rep.Held) != 3 {
		t.Errorf("held %+v", rep.Held)
	}
	for _, h := range rep.Held {
		cmd := h.Command[strings.Index(h.Command, "runCommand(")+11 : len(h.Command)-1]
		for _, word := range []string{"collMod", "index", "name", "expireAfterSeconds"} {
			cmd = strings.Replace(cmd, word+":", `"`+word+`":`, 1)
		}
		command1(t, client, "again", ext(t, cmd))
	}
	got := read(t, client, "again")
	equal(t, want, got, func(ns string) string {
		if n, ok := strings.CutPrefix(ns, "kinds.system."); ok && !strings.HasPrefix(n, "js") {
			return strings.Replace("again.system."+n, "buckets.", "buckets.x_", 1)
		}
		return "again.x_" + strings.TrimPrefix(ns, "kinds.")
	})
	if n := len(documents(t, client, "again", "x_view2")); n != 2 {
		t.Errorf("the renamed view over a view sees %d documents, want 2", n)
	}
}
