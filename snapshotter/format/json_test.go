package format

import (
	"bytes"
	"encoding/json"
	"math"
	"strings"
	"testing"
	"time"

	"go.mongodb.org/mongo-driver/bson"
	"go.mongodb.org/mongo-driver/bson/primitive"
	"pgregory.net/rapid"
)

func raw(t testing.TB, v any) bson.Raw {
	t.Helper()
	b, err := bson.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestAppendJSON(t *testing.T) {
	dec, err := primitive.ParseDecimal128("1.50E+10")
	if err != nil {
		t.Fatal(err)
	}
	oid := primitive.ObjectID{1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12}
	for _, c := range []struct {
		value any
		want  string
	}{
		{int32(-7), `{"$numberInt":"-7"}`},
		{int64(math.MinInt64), `{"$numberLong":"-9223372036854775808"}`},
		{1.0, `{"$numberDouble":"1.0"}`},
		{math.Copysign(0, -1), `{"$numberDouble":"-0.0"}`},
		{1e300, `{"$numberDouble":"1E+300"}`},
		{math.NaN(), `{"$numberDouble":"NaN"}`},
		{math.Inf(-1), `{"$numberDouble":"-Infinity"}`},
		{dec, `{"$numberDecimal":"1.50E+10"}`},
		{"a\"\\\n\r\t\x00\x1fü\u2028</", "\"a\\\"\\\\\\n\\r\\t\\u0000\\u001fü\u2028</\""},
		{"bad\xffend", "\"bad\uFFFDend\""},
		{true, `true`},
		{nil, `null`},
		{oid, `{"$oid":"0102030405060708090a0b0c"}`},
		{time.UnixMilli(-1), `{"$date":{"$numberLong":"-1"}}`},
		{primitive.Timestamp{T: 4294967295, I: 2}, `{"$timestamp":{"t":4294967295,"i":2}}`},
		{primitive.Binary{Subtype: 0x80, Data: []byte{0xff, 0xfe}}, `{"$binary":{"base64":"//4=","subType":"80"}}`},
		{primitive.Binary{}, `{"$binary":{"base64":"","subType":"00"}}`},
		{primitive.Regex{Pattern: `a/"b`, Options: "im"}, `{"$regularExpression":{"pattern":"a/\"b","options":"im"}}`},
		{primitive.JavaScript("f()"), `{"$code":"f()"}`},
		{primitive.CodeWithScope{Code: "f()", Scope: bson.D{{Key: "x", Value: int32(1)}}}, `{"$code":"f()","$scope":{"x":{"$numberInt":"1"}}}`},
		{primitive.Symbol("s"), `{"$symbol":"s"}`},
		{primitive.DBPointer{DB: "a.b", Pointer: oid}, `{"$dbPointer":{"$ref":"a.b","$id":{"$oid":"0102030405060708090a0b0c"}}}`},
		{primitive.Undefined{}, `{"$undefined":true}`},
		{primitive.MinKey{}, `{"$minKey":1}`},
		{primitive.MaxKey{}, `{"$maxKey":1}`},
		{bson.A{int32(1), bson.A{}, bson.D{}}, `[{"$numberInt":"1"},[],{}]`},
		{bson.D{{Key: "", Value: "x"}, {Key: "$a.b", Value: nil}, {Key: "", Value: "y"}}, `{"":"x","$a.b":null,"":"y"}`},
	} {
		got, err := AppendJSON([]byte("> "), raw(t, bson.D{{Key: "v", Value: c.value}}))
		if err != nil || string(got) != `> {"v":`+c.want+`}` {
			t.Errorf("%v: %s, %v, want %s", c.value, got, err, c.want)
		}
		if !json.Valid(got[2:]) {
			t.Errorf("%v: %s is no JSON", c.value, got[2:])
		}
	}
}

func TestAppendJSONRefuses(t *testing.T) {
	deep := bson.Raw{5, 0, 0, 0, 0}
	for range depthMax + 2 {
		n := len(deep) + 8
		deep = append(append([]byte{byte(n), byte(n >> 8), 0, 0, 3, 'a', 0}, deep...), 0)
	}
	for _, doc := range [][]byte{
		nil,
		{5, 0, 0, 0},
		{6, 0, 0, 0, 0},
		{5, 0, 0, 0, 1},
		deep,
		{8, 0, 0, 0, 1, 'a', 0, 0},    // a double without bytes
		{8, 0, 0, 0, 0x42, 'a', 0, 0}, // an unknown type
		{7, 0, 0, 0, 10, 'a', 0},      // a name without end
		{13, 0, 0, 0, 2, 'a', 0, 9, 0, 0, 0, 0, 0},   // a string longer than the document
		{13, 0, 0, 0, 2, 'a', 0, 0, 0, 0, 0, 0, 0},   // a string of no bytes
		{13, 0, 0, 0, 2, 'a', 0, 1, 0, 0, 0, 'x', 0}, // a string without end
	} {
		if got, err := AppendJSON(nil, doc); err == nil {
			t.Errorf("%x: %s, want an error", doc[:min(len(doc), 20)], got)
		}
	}
}

// someValue draws values that the driver's own writer shows in full.
func someValue(depth int) *rapid.Generator[any] {
	return rapid.Custom(func(t *rapid.T) any {
		kinds := 9
		if depth > 0 {
			kinds = 11
		}
		switch rapid.IntRange(0, kinds-1).Draw(t, "kind") {
		case 0:
			return rapid.Int32().Draw(t, "int")
		case 1:
			return rapid.Int64().Draw(t, "long")
		case 2:
			return rapid.Float64().Draw(t, "double")
		case 3:
			return rapid.String().Draw(t, "string")
		case 4:
			return primitive.Binary{Subtype: rapid.Byte().Filter(func(b byte) bool { return b != 2 }).Draw(t, "subtype"), Data: rapid.SliceOf(rapid.Byte()).Draw(t, "data")}
		case 5:
			return primitive.Timestamp{T: rapid.Uint32().Draw(t, "t"), I: rapid.Uint32().Draw(t, "i")}
		case 6:
			return primitive.DateTime(rapid.Int64().Draw(t, "date"))
		case 7:
			d := primitive.NewDecimal128(rapid.Uint64().Draw(t, "hi"), rapid.Uint64().Draw(t, "lo"))
			// The driver, which reads it back, refuses or changes some of the numbers that it prints itself.
			if again, err := primitive.ParseDecimal128(d.String()); err != nil || again != d {
				return int32(0)
			}
			return d
		case 8:
			return nil
		case 9:
			return someDocument(depth-1).Draw(t, "document")
		}
		return bson.A(rapid.SliceOfN(someValue(depth-1), 0, 4).Draw(t, "array"))
	})
}

func someDocument(depth int) *rapid.Generator[bson.D] {
	return rapid.Custom(func(t *rapid.T) bson.D {
		d := bson.D{}
		for range rapid.IntRange(0, 5).Draw(t, "fields") {
			d = append(d, bson.E{Key: rapid.StringMatching(`[a-zé."\\]{0,4}`).Draw(t, "name"), Value: someValue(depth).Draw(t, "value")})
		}
		return d
	})
}

// TestAppendJSONReadsBack: another reader makes the same bytes of it.
func TestAppendJSONReadsBack(t *testing.T) {
	rapid.Check(t, func(r *rapid.T) {
		doc := raw(t, someDocument(3).Draw(r, "document"))
		text, err := AppendJSON(nil, doc)
		if err != nil {
			r.Fatal(err)
		}
		var back bson.D
		if err := bson.UnmarshalExtJSON(text, true, &back); err != nil {
			r.Fatalf("%s: %v", text, err)
		}
		again, err := bson.Marshal(back)
		if err != nil {
			r.Fatal(err)
		}
		if !bytes.Equal(again, doc) && !bytes.Contains(text, []byte("NaN")) { // NaN has many forms
			r.Fatalf("%s\nread back as\n%x, was\n%x", text, again, doc)
		}
	})
}

func FuzzAppendJSON(f *testing.F) {
	f.Add([]byte(raw(f, bson.D{{Key: "a", Value: bson.A{int32(1), "x", primitive.CodeWithScope{Code: "f", Scope: bson.D{}}}}})))
	f.Add([]byte(raw(f, bson.D{{Key: "r", Value: primitive.Regex{Pattern: "a"}}, {Key: "p", Value: primitive.DBPointer{DB: "x"}}, {Key: "b", Value: primitive.Binary{Subtype: 2}}})))
	f.Fuzz(func(t *testing.T, doc []byte) {
		text, err := AppendJSON(nil, doc)
		if err == nil && !json.Valid(text) {
			t.Fatalf("%x: %s is no JSON", doc, text)
		}
	})
}

func BenchmarkAppendJSON(b *testing.B) {
	doc := raw(b, bson.D{
		{Key: "_id", Value: primitive.NewObjectID()},
		{Key: "name", Value: strings.Repeat("some name ", 40)},
		{Key: "n", Value: 42},
		{Key: "tags", Value: bson.A{"a", "b", "c"}},
		{Key: "at", Value: time.Now()},
		{Key: "price", Value: 3.14},
		{Key: "nested", Value: bson.D{{Key: "x", Value: int64(1)}, {Key: "y", Value: strings.Repeat("ü", 100)}}},
	})
	b.SetBytes(int64(len(doc)))
	b.ReportAllocs()
	var buf []byte
	for b.Loop() {
		var err error
		if buf, err = AppendJSON(buf[:0], doc); err != nil {
			b.Fatal(err)
		}
	}
}
