package mongodb_test

import (
	"bufio"
	"bytes"
	"encoding/hex"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"go.mongodb.org/mongo-driver/bson"
	"pgregory.net/rapid"

	"github.com/afterimagedb/afterimage"
	"github.com/afterimagedb/afterimage/dialect/mongodb"
)

func doc(t testing.TB, js string) []byte {
	t.Helper()
	var raw bson.Raw
	if err := bson.UnmarshalExtJSON([]byte(js), false, &raw); err != nil {
		t.Fatalf("%s: %v", js, err)
	}
	return raw
}

func TestApplyUpdate(t *testing.T) {
	for _, c := range []struct{ name, base, update, want string }{
		{"update in place, insert at the end", `{"_id":1,"a":1,"b":2}`, `{"$v":2,"diff":{"u":{"a":5},"i":{"c":3}}}`, `{"_id":1,"a":5,"b":2,"c":3}`},
		{"delete", `{"_id":1,"a":1,"b":2}`, `{"$v":2,"diff":{"d":{"a":false}}}`, `{"_id":1,"b":2}`},
		{"insert of a field that is there goes last", `{"_id":1,"a":1,"b":2}`, `{"$v":2,"diff":{"i":{"a":9}}}`, `{"_id":1,"b":2,"a":9}`},
		{"updates of missing fields come before inserts", `{"_id":1}`, `{"$v":2,"diff":{"u":{"x":1,"y":2},"i":{"a":9}}}`, `{"_id":1,"x":1,"y":2,"a":9}`},
		{"sub-document", `{"_id":1,"a":{"b":{"c":1,"d":2}},"z":1}`, `{"$v":2,"diff":{"sa":{"sb":{"d":{"c":false},"i":{"e":1}}}}}`, `{"_id":1,"a":{"b":{"d":2,"e":1}},"z":1}`},
		{"names that look like sections", `{"_id":1,"u":{"s":1,"d":2},"s":3}`, `{"$v":2,"diff":{"d":{"s":false},"i":{"i":1},"su":{"u":{"s":7}}}}`, `{"_id":1,"u":{"s":7,"d":2},"i":1}`},
		{"literal names", `{"_id":1}`, `{"$v":2,"diff":{"i":{"dot.ted":4,"$dollar":1,"":0}}}`, `{"_id":1,"dot.ted":4,"$dollar":1,"":0}`},
		{"sub-diff of the empty name", `{"_id":1,"":{"a":1}}`, `{"$v":2,"diff":{"s":{"u":{"a":2}}}}`, `{"_id":1,"":{"a":2}}`},
		{"array element", `{"_id":1,"a":[1,2,3]}`, `{"$v":2,"diff":{"sa":{"a":true,"u1":9}}}`, `{"_id":1,"a":[1,9,3]}`},
		{"array unset", `{"_id":1,"a":[1,2,3]}`, `{"$v":2,"diff":{"sa":{"a":true,"u0":null}}}`, `{"_id":1,"a":[null,2,3]}`},
		{"array cut", `{"_id":1,"a":[1,2,3]}`, `{"$v":2,"diff":{"sa":{"a":true,"l":1}}}`, `{"_id":1,"a":[1]}`},
		{"array emptied", `{"_id":1,"a":[1,2,3]}`, `{"$v":2,"diff":{"sa":{"a":true,"l":0}}}`, `{"_id":1,"a":[]}`},
		{"array grown with nulls", `{"_id":1,"a":[1]}`, `{"$v":2,"diff":{"sa":{"a":true,"u3":9}}}`, `{"_id":1,"a":[1,null,null,9]}`},
		{"array length without value", `{"_id":1,"a":[1]}`, `{"$v":2,"diff":{"sa":{"a":true,"l":3}}}`, `{"_id":1,"a":[1,null,null]}`},
		{"document in array", `{"_id":1,"a":[{"b":1},{"c":1}]}`, `{"$v":2,"diff":{"sa":{"a":true,"s1":{"i":{"d":1}}}}}`, `{"_id":1,"a":[{"b":1},{"c":1,"d":1}]}`},
		{"array in array", `{"_id":1,"a":[[1],[2]]}`, `{"$v":2,"diff":{"sa":{"a":true,"s1":{"a":true,"u0":5}}}}`, `{"_id":1,"a":[[1],[5]]}`},
		{"a field called a is no array diff below", `{"_id":1,"a":{"a":1}}`, `{"$v":2,"diff":{"sa":{"u":{"a":2}}}}`, `{"_id":1,"a":{"a":2}}`},
		{"mismatch sets null", `{"_id":1,"a":1,"b":[1],"c":{}}`, `{"$v":2,"diff":{"sa":{"u":{"x":2}},"sb":{"u":{"x":2}},"sc":{"a":true,"u0":2}}}`, `{"_id":1,"a":null,"b":null,"c":null}`},
		{"sub-diff of a missing field does nothing", `{"_id":1}`, `{"$v":2,"diff":{"sa":{"u":{"x":2}}}}`, `{"_id":1}`},
		{"_id that moved stays first", `{"_id":1,"a":1}`, `{"$v":2,"diff":{"i":{"b":1,"_id":1}}}`, `{"_id":1,"a":1,"b":1}`},
		{"empty diff", `{"_id":1}`, `{"$v":2,"diff":{}}`, `{"_id":1}`},

		{"v1 set and unset", `{"_id":1,"a":1,"b":2}`, `{"$v":1,"$unset":{"a":true},"$set":{"b":5,"c":{"x":1}}}`, `{"_id":1,"b":5,"c":{"x":1}}`},
		{"v1 without $v", `{"_id":1,"a":1}`, `{"$set":{"a":2}}`, `{"_id":1,"a":2}`},
		{"v1 path creates", `{"_id":1,"a":{"z":1}}`, `{"$v":1,"$set":{"a.b.c":5,"d.e":1}}`, `{"_id":1,"a":{"z":1,"b":{"c":5}},"d":{"e":1}}`},
		{"v1 array", `{"_id":1,"a":[1,{"b":2}]}`, `{"$v":1,"$set":{"a.1.b":9,"a.3":7}}`, `{"_id":1,"a":[1,{"b":9},null,7]}`},
		{"v1 array path creates", `{"_id":1,"a":[]}`, `{"$v":1,"$set":{"a.1.b.c":9}}`, `{"_id":1,"a":[null,{"b":{"c":9}}]}`},
		{"v1 unset in array", `{"_id":1,"a":[1,2]}`, `{"$v":1,"$unset":{"a.0":true,"a.7":true,"x.y":true}}`, `{"_id":1,"a":[null,2]}`},
		{"v1 path through a scalar", `{"_id":1,"a":1}`, `{"$v":1,"$set":{"a.b":9,"c":1}}`, `{"_id":1,"a":1,"c":1}`},
		{"v1 out of order, as only applyOps has it", `{"_id":1}`, `{"$v":1,"$set":{"b":1,"a":1,"x.10":1,"x.9":1}}`, `{"_id":1,"a":1,"b":1,"x":{"9":1,"10":1}}`},
		{"v1 nothing", `{"_id":1}`, `{"$v":1}`, `{"_id":1}`},
	} {
		t.Run(c.name, func(t *testing.T) {
			update := doc(t, c.update)
			if op := mongodb.UpdateOp(update); op != afterimage.OpPatch {
				t.Errorf("op %v", op)
			}
			got, err := mongodb.ApplyUpdate([]byte("x"), doc(t, c.base), update)
			if err != nil {
				t.Fatal(err)
			}
			if want := doc(t, c.want); !bytes.Equal(got[1:], want) {
				t.Errorf("get %s, want %s", bson.Raw(got[1:]), bson.Raw(want))
			}
		})
	}
}

// oddArray is a document with an array whose names are 7, x, 0: drivers make none, servers keep it.
func oddArray(t *testing.T) []byte {
	raw := doc(t, `{"a":{"7":1,"x":2,"0":3},"_id":1}`)
	raw[4] = 0x04
	return raw
}

func TestOddArrays(t *testing.T) {
	renumbered := doc(t, `{"a":[1,"long",3],"_id":1}`)
	for _, js := range []string{`{"$v":1,"$set":{"a.1":"long"}}`, `{"$v":2,"diff":{"sa":{"a":true,"u1":"long"}}}`} {
		got, err := mongodb.ApplyUpdate(nil, oddArray(t), doc(t, js))
		if err != nil {
			t.Fatal(err)
		}
		// A $v:2 diff puts _id first.
		want := renumbered
		if strings.Contains(js, "diff") {
			want = doc(t, `{"_id":1,"a":[1,"long",3]}`)
		}
		if !bytes.Equal(got, want) {
			t.Errorf("%s: %x, want %x", js, got, want)
		}
	}
	// A value of the same size is written in place by servers up to 4.4: the names stay.
	want := oddArray(t)
	want[bytes.Index(want, []byte("x\x00"))+2] = 9
	if got, err := mongodb.ApplyUpdate(nil, oddArray(t), doc(t, `{"$v":1,"$set":{"a.1":9}}`)); err != nil || !bytes.Equal(got, want) {
		t.Errorf("in place: %x, want %x: %v", got, want, err)
	}
	grown, err := mongodb.ApplyUpdate(nil, oddArray(t), doc(t, `{"$v":1,"$set":{"a.4":9}}`))
	if err != nil || !bytes.Equal(grown, doc(t, `{"a":[1,2,3,null,9],"_id":1}`)) {
		t.Errorf("grown: %x %v", grown, err)
	}
}

func TestApplyUpdateRefuses(t *testing.T) {
	base := doc(t, `{"_id":1,"a":[1]}`)
	for _, update := range []string{
		`{"$v":3,"diff":{}}`,
		`{"$v":2}`,
		`{"$v":2,"diff":{"x":{"a":1}}}`,
		`{"$v":2,"diff":{"i":{"a":1},"u":{"b":1}}}`,
		`{"$v":2,"diff":{"u":1}}`,
		`{"$v":2,"diff":{"sa":{}}}`,
		`{"$v":2,"diff":{"sa":{"a":false,"u0":1}}}`,
		`{"$v":2,"diff":{"sa":{"a":true,"u1":1,"u0":1}}}`,
		`{"$v":2,"diff":{"sa":{"a":true,"x0":1}}}`,
		`{"$v":2,"diff":{"sa":{"a":true,"u":1}}}`,
		`{"$v":2,"diff":{"sa":{"a":true,"l":1,"u5":1}}}`,
		`{"$v":2,"diff":{"sa":{"a":true,"u999999999":1}}}`,
		`{"$v":1,"$inc":{"a":1}}`,
	} {
		if got, err := mongodb.ApplyUpdate([]byte("x"), base, doc(t, update)); err == nil || string(got) != "x" {
			t.Errorf("%s: %s, %v", update, got, err)
		}
	}
}

func TestUpdateOp(t *testing.T) {
	for js, want := range map[string]afterimage.Op{
		`{"$v":2,"diff":{"u":{"a":1}}}`:           afterimage.OpPatch,
		`{"_id":1,"$v":2,"diff":{"u":{"a":1}}}`:   afterimage.OpPut,
		`{"$v":{"$numberLong":"2"},"diff":{}}`:    afterimage.OpPatch,
		`{"$v":1,"$set":{"a":1}}`:                 afterimage.OpPatch,
		`{"$set":{"a":1}}`:                        afterimage.OpPatch,
		`{"diff":{"u":{"a":1}},"_id":1}`:          afterimage.OpPut,
		`{"b":2,"a":1,"_id":1}`:                   afterimage.OpPut,
		`{"a":1}`:                                 afterimage.OpPut,
		`{}`:                                      afterimage.OpPut,
		`{"$v":7,"diff":{}}`:                      afterimage.OpUnknown,
		`{"$v":2,"other":{}}`:                     afterimage.OpUnknown,
		`{"_id":1,"$set":{"a":1},"$v":{"x":"y"}}`: afterimage.OpPut,
	} {
		if got := mongodb.UpdateOp(doc(t, js)); got != want {
			t.Errorf("%s: %v, want %v", js, got, want)
		}
	}
}

func TestReplacementDocument(t *testing.T) {
	for in, want := range map[string]string{
		`{"b":2,"a":1,"_id":1}`: `{"_id":1,"b":2,"a":1}`,
		`{"_id":1,"b":2}`:       `{"_id":1,"b":2}`,
		`{"b":2,"_id":1,"c":3}`: `{"_id":1,"b":2,"c":3}`,
		`{"b":2}`:               `{"b":2}`,
	} {
		if got := mongodb.ReplacementDocument([]byte("x"), doc(t, in))[1:]; !bytes.Equal(got, doc(t, want)) {
			t.Errorf("%s: %s", in, bson.Raw(got))
		}
	}
}

// TestGoldenUpdates replays updates that real servers logged; TestUpdatesAgainstServer writes them with -update.
func TestGoldenUpdates(t *testing.T) {
	files, err := filepath.Glob("testdata/updates-*.txt")
	if err != nil || len(files) != 3 {
		t.Fatalf("files %v: %v", files, err)
	}
	for _, name := range files {
		raw, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		patches := 0
		for lines := bufio.NewScanner(bytes.NewReader(raw)); lines.Scan(); {
			var part [3][]byte
			for i, s := range strings.Split(lines.Text(), " ") {
				if part[i], err = hex.DecodeString(s); err != nil {
					t.Fatal(err)
				}
			}
			if mongodb.UpdateOp(part[1]) == afterimage.OpPut {
				if got := mongodb.ReplacementDocument(nil, part[1]); !bytes.Equal(got, part[2]) {
					t.Errorf("%s: replacement %s", name, bson.Raw(part[1]))
				}
				continue
			}
			patches++
			got, err := mongodb.ApplyUpdate(nil, part[0], part[1])
			if err != nil || !bytes.Equal(got, part[2]) {
				t.Errorf("%s: %s by %s is %s, %v", name, bson.Raw(part[0]), bson.Raw(part[1]), bson.Raw(got), err)
			}
		}
		if patches < 50 {
			t.Errorf("%s has %d patches", name, patches)
		}
	}
}

// Diffs with more fields than are looked up one by one must give what one diff per field gives.
func TestManyFields(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		base := bson.D{{Key: "_id", Value: 1}}
		var ops [4]bson.D // d u i s
		n := rapid.IntRange(0, 60).Draw(t, "n")
		want := bson.D{{Key: "_id", Value: 1}}
		var late, last bson.D
		for i := range n {
			name := rapid.StringMatching("[a-z]{0,6}").Draw(t, "name") + string(rune('A'+i))
			here := rapid.Bool().Draw(t, "here")
			value := bson.E{Key: name, Value: bson.D{{Key: "x", Value: i}}}
			changed := bson.E{Key: name, Value: bson.D{{Key: "x", Value: -i}, {Key: "y", Value: "z"}}}
			if here {
				base = append(base, value)
			}
			switch rapid.IntRange(0, 4).Draw(t, "op") {
			case 0:
				if here {
					want = append(want, value)
				}
			case 1:
				ops[0] = append(ops[0], bson.E{Key: name, Value: false})
			case 2:
				ops[1] = append(ops[1], changed)
				if here {
					want = append(want, changed)
				} else {
					late = append(late, changed)
				}
			case 3:
				ops[2] = append(ops[2], changed)
				last = append(last, changed)
			case 4:
				ops[3] = append(ops[3], bson.E{Key: "s" + name, Value: bson.D{{Key: "u", Value: bson.D{{Key: "x", Value: -i}}}, {Key: "i", Value: bson.D{{Key: "y", Value: "z"}}}}})
				if here {
					want = append(want, changed)
				}
			}
		}
		diff := bson.D{}
		for i, section := range []string{"d", "u", "i"} {
			if len(ops[i]) > 0 {
				diff = append(diff, bson.E{Key: section, Value: ops[i]})
			}
		}
		diff = append(diff, ops[3]...)
		want = append(append(want, late...), last...)
		rawBase, _ := bson.Marshal(base)
		rawWant, _ := bson.Marshal(want)
		update, _ := bson.Marshal(bson.D{{Key: "$v", Value: 2}, {Key: "diff", Value: diff}})
		got, err := mongodb.ApplyUpdate(nil, rawBase, update)
		if err != nil || !bytes.Equal(got, rawWant) {
			t.Fatalf("%s by %s: %v\nget  %s\nwant %s", bson.Raw(rawBase), bson.Raw(update), err, bson.Raw(got), bson.Raw(rawWant))
		}
	})
}

func FuzzApplyUpdate(f *testing.F) {
	f.Add(doc(f, `{"_id":1,"a":{"b":[1,{"c":2}]}}`), doc(f, `{"$v":2,"diff":{"u":{"x":1},"sa":{"sb":{"a":true,"l":5,"s1":{"d":{"c":false}}}}}}`))
	f.Add(doc(f, `{"a":[1,2]}`), doc(f, `{"$v":1,"$set":{"a.4.x":1,"b":2},"$unset":{"a.0":1}}`))
	f.Fuzz(func(t *testing.T, base, update []byte) {
		baseBefore := bytes.Clone(base)
		got, err := mongodb.ApplyUpdate([]byte("x"), base, update)
		if !bytes.Equal(base, baseBefore) {
			t.Fatal("base was written to")
		}
		if err != nil {
			if string(got) != "x" {
				t.Fatalf("dst changed: %x", got)
			}
			return
		}
		if _, err := bson.Raw(got[1:]).Elements(); err != nil && bson.Raw(base).Validate() == nil && bson.Raw(update).Validate() == nil {
			t.Fatalf("%s by %s is no document: %x: %v", bson.Raw(base), bson.Raw(update), got[1:], err)
		}
		_ = mongodb.ReplacementDocument(nil, update)
	})
}

// order is about 1 KB, with 25 fields of its own.
func order() bson.D {
	d := bson.D{{Key: "_id", Value: "order-0000001"}}
	for i := range 24 {
		d = append(d, bson.E{Key: "field_" + string(rune('a'+i)), Value: strings.Repeat("v", 26)})
	}
	return append(d, bson.E{Key: "address", Value: bson.D{{Key: "city", Value: "Oslo"}, {Key: "zip", Value: "0150"}}}, bson.E{Key: "tags", Value: bson.A{"a", "b"}})
}

func BenchmarkApplyUpdate(b *testing.B) {
	base, _ := bson.Marshal(order())
	for name, js := range map[string]string{
		"one":    `{"$v":2,"diff":{"u":{"field_c":"new value"}}}`,
		"nested": `{"$v":2,"diff":{"u":{"field_c":"new value","field_x":5},"i":{"seen":true},"saddress":{"u":{"zip":"0151"}},"stags":{"a":true,"u2":"c"}}}`,
		"v1":     `{"$v":1,"$set":{"field_c":"new value","address.zip":"0151"}}`,
	} {
		update := doc(b, js)
		b.Run(name, func(b *testing.B) {
			var dst []byte
			b.ReportAllocs()
			b.SetBytes(int64(len(base)))
			for b.Loop() {
				var err error
				if dst, err = mongodb.ApplyUpdate(dst[:0], base, update); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
