package mongodb_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"math"
	"math/big"
	"strings"
	"testing"

	"go.mongodb.org/mongo-driver/bson"
	"go.mongodb.org/mongo-driver/bson/bsontype"
	"go.mongodb.org/mongo-driver/bson/primitive"
	"pgregory.net/rapid"

	"github.com/afterimagedb/afterimage/dialect/mongodb"
)

// The oracle knows BSON by the driver and numbers by math/big; it shares nothing with the code under test.

// canonical is the server's canonicalizeBSONType.
func canonical(t bsontype.Type) int {
	switch t { //nolint:exhaustive // the last return is the one type left
	case bson.TypeMinKey:
		return -1
	case bson.TypeMaxKey:
		return 127
	case bson.TypeUndefined:
		return 0
	case bson.TypeNull:
		return 5
	case bson.TypeDouble, bson.TypeInt32, bson.TypeInt64, bson.TypeDecimal128:
		return 10
	case bson.TypeString, bson.TypeSymbol:
		return 15
	case bson.TypeEmbeddedDocument:
		return 20
	case bson.TypeArray:
		return 25
	case bson.TypeBinary:
		return 30
	case bson.TypeObjectID:
		return 35
	case bson.TypeBoolean:
		return 40
	case bson.TypeDateTime:
		return 45
	case bson.TypeTimestamp:
		return 47
	case bson.TypeRegex:
		return 50
	case bson.TypeDBPointer:
		return 55
	case bson.TypeJavaScript:
		return 60
	}
	return 65
}

// number is a numeric value: NaN below -Inf below the rationals below +Inf.
type number struct {
	class int // 0 NaN, 1 -Inf, 2 finite, 3 +Inf
	value *big.Rat
}

func numberOf(v bson.RawValue) number {
	fromFloat := func(f float64) number {
		switch {
		case math.IsNaN(f):
			return number{}
		case math.IsInf(f, -1):
			return number{class: 1}
		case math.IsInf(f, 1):
			return number{class: 3}
		}
		return number{2, new(big.Rat).SetFloat64(f)}
	}
	switch v.Type { //nolint:exhaustive // decimals come after
	case bson.TypeDouble:
		return fromFloat(v.Double())
	case bson.TypeInt32:
		return number{2, new(big.Rat).SetInt64(int64(v.Int32()))}
	case bson.TypeInt64:
		return number{2, new(big.Rat).SetInt64(v.Int64())}
	}
	d := v.Decimal128()
	if d.IsNaN() {
		return number{}
	}
	if s := d.IsInf(); s != 0 {
		return number{class: 2 + s}
	}
	n, exp, err := d.BigInt()
	if err != nil {
		panic(err)
	}
	if len(new(big.Int).Abs(n).String()) > 34 {
		n = new(big.Int) // not canonical: zero
	}
	r := new(big.Rat).SetInt(n)
	p := new(big.Rat).SetInt(new(big.Int).Exp(big.NewInt(10), big.NewInt(int64(max(exp, -exp))), nil))
	if exp < 0 {
		return number{2, r.Quo(r, p)}
	}
	return number{2, r.Mul(r, p)}
}

func compareValues(a, b bson.RawValue) int {
	if c := canonical(a.Type) - canonical(b.Type); c != 0 {
		return c
	}
	switch canonical(a.Type) {
	case 10:
		x, y := numberOf(a), numberOf(b)
		if x.class != y.class || x.class != 2 {
			return x.class - y.class
		}
		return x.value.Cmp(y.value)
	case 20:
		return compareDocuments(a.Document(), b.Document(), true)
	case 25:
		return compareDocuments(bson.Raw(a.Value), bson.Raw(b.Value), false)
	case 15, 60:
		// Symbol, string and code have one layout.
		return bytes.Compare(a.Value[4:], b.Value[4:])
	case 45:
		return cmpInt(int64(binary.LittleEndian.Uint64(a.Value)), int64(binary.LittleEndian.Uint64(b.Value)))
	case 47:
		at, ai := a.Timestamp()
		bt, bi := b.Timestamp()
		return cmpInt(int64(at)<<32|int64(ai), int64(bt)<<32|int64(bi))
	case 30:
		if c := cmpInt(int64(len(a.Value)), int64(len(b.Value))); c != 0 {
			return c
		}
		return bytes.Compare(a.Value[4:], b.Value[4:])
	case 55:
		x, xo := a.DBPointer()
		y, yo := b.DBPointer()
		x, _, _ = strings.Cut(x, "\x00")
		y, _, _ = strings.Cut(y, "\x00")
		return strings.Compare(x+xo.Hex(), y+yo.Hex())
	case 65:
		x, xs := a.CodeWithScope()
		y, ys := b.CodeWithScope()
		if c := strings.Compare(x, y); c != 0 {
			return c
		}
		return compareDocuments(xs, ys, true)
	}
	return bytes.Compare(a.Value, b.Value)
}

func cmpInt(a, b int64) int {
	if a < b {
		return -1
	}
	if a > b {
		return 1
	}
	return 0
}

func compareDocuments(a, b bson.Raw, names bool) int {
	x, _ := a.Elements()
	y, _ := b.Elements()
	for i := 0; i < len(x) && i < len(y); i++ {
		if c := canonical(x[i].Value().Type) - canonical(y[i].Value().Type); c != 0 {
			return c
		}
		if c := strings.Compare(x[i].Key(), y[i].Key()); names && c != 0 {
			return c
		}
		if c := compareValues(x[i].Value(), y[i].Value()); c != 0 {
			return c
		}
	}
	return len(x) - len(y)
}

func value(t bsontype.Type, b []byte) bson.RawValue { return bson.RawValue{Type: t, Value: b} }

func marshal(v any) bson.RawValue {
	t, b, err := bson.MarshalValue(v)
	if err != nil {
		panic(err)
	}
	return value(t, b)
}

// near draws numbers that lie close to one another in every type.
func drawNumber(t *rapid.T) bson.RawValue {
	base := rapid.SampledFrom([]float64{0, 1, 0.1, -0.5, 1 << 53, 1 << 62, 1 << 63, -(1 << 63), 1e22, 1e23, 1e-5, 5e-324, math.MaxFloat64, math.Inf(1), math.Inf(-1), math.NaN(), math.Copysign(0, -1), 2.5}).Draw(t, "base")
	switch rapid.IntRange(0, 6).Draw(t, "kind") {
	case 0:
		if rapid.Bool().Draw(t, "next") {
			base = math.Nextafter(base, math.Inf(1-2*rapid.IntRange(0, 1).Draw(t, "down")))
		}
		return marshal(base)
	case 1:
		return marshal(rapid.Int32Range(-3, 3).Draw(t, "i32"))
	case 2:
		near := rapid.SampledFrom([]int64{0, 1 << 53, -(1 << 53), 1 << 62, math.MaxInt64 - 3, math.MinInt64 + 3, 10_000_000_000_000_000}).Draw(t, "near")
		return marshal(near + rapid.Int64Range(-3, 3).Draw(t, "delta"))
	case 3:
		texts := []string{"1", "1.00", "0.1", "0.1000000000000000055511151231257827021181583404541015625", "-0", "0E+3", "NaN", "Infinity", "-Infinity", "9007199254740993", "9007199254740993.0", "9223372036854775807", "9223372036854775808", "1E+6111", "-1E+6111", "1E-6176", "-1E-6176", "1E+23", "99999999999999991611392", "1.7976931348623157E+308", "1.797693134862315808E+308", "4.94E-324", "0.5", "-0.5", "-5E-1", "10E15", "2.5"}
		s := rapid.SampledFrom(texts).Draw(t, "text")
		d, err := primitive.ParseDecimal128(s)
		if err != nil {
			d = primitive.NewDecimal128(0x3040000000000000, 7)
		}
		return marshal(d)
	case 4:
		// Exact decimal text of a double, possibly cut to 34 digits.
		s := new(big.Float).SetFloat64(rapid.Float64Range(-1e6, 1e6).Draw(t, "f")).Text('g', rapid.IntRange(1, 34).Draw(t, "digits"))
		d, err := primitive.ParseDecimal128(s)
		if err != nil {
			t.Fatal(s, err)
		}
		return marshal(d)
	case 5:
		return marshal(primitive.NewDecimal128(rapid.Uint64().Draw(t, "h"), rapid.Uint64().Draw(t, "l")))
	}
	return marshal(rapid.Float64().Draw(t, "any"))
}

// relative draws a number of another type that is equal to v or as near to it as the type allows.
func relative(t *rapid.T, v bson.RawValue) bson.RawValue {
	n := numberOf(v)
	if n.class != 2 {
		return v
	}
	switch rapid.IntRange(0, 2).Draw(t, "to") {
	case 0:
		f, _ := n.value.Float64()
		return marshal(f)
	case 1:
		if i := new(big.Int).Quo(n.value.Num(), n.value.Denom()); i.IsInt64() {
			return marshal(i.Int64())
		}
	}
	f, _ := n.value.Float64()
	text := new(big.Float).SetPrec(300).SetRat(n.value).Text('g', 34)
	if math.Abs(f) < 1e-300 || math.IsInf(f, 0) {
		return v
	}
	d, err := primitive.ParseDecimal128(text)
	if err != nil {
		t.Fatal(text, err)
	}
	return marshal(d)
}

// drawPair draws two numbers, as often as not near one another.
func drawPair(t *rapid.T) (a, b bson.RawValue) {
	a = drawNumber(t)
	if rapid.Bool().Draw(t, "related") {
		return a, relative(t, a)
	}
	return a, drawNumber(t)
}

func drawValue(t *rapid.T, depth int) bson.RawValue {
	kind := rapid.IntRange(0, 20).Draw(t, "type")
	if depth > 2 && (kind == 7 || kind == 8 || kind == 17) {
		kind = 0
	}
	text := func() string {
		return rapid.SampledFrom([]string{"", "a", "a\x00", "a\x00b", "ab", "\x00", "é", "a\xff"}).Draw(t, "s")
	}
	switch kind {
	case 4:
		return marshal(text())
	case 5:
		return marshal(primitive.Symbol(text()))
	case 6:
		return marshal(primitive.JavaScript(text()))
	case 7, 8:
		d := bson.D{}
		for range rapid.IntRange(0, 3).Draw(t, "n") {
			d = append(d, bson.E{Key: rapid.SampledFrom([]string{"", "a", "b", "ab"}).Draw(t, "name"), Value: drawValue(t, depth+1)})
		}
		v := marshal(d)
		if kind == 8 {
			v.Type = bson.TypeArray // with whatever names
		}
		return v
	case 9:
		return marshal(primitive.Binary{Subtype: byte(rapid.IntRange(0, 5).Draw(t, "sub")), Data: rapid.SliceOfN(rapid.Byte(), 0, 3).Draw(t, "bin")})
	case 10:
		return value(bson.TypeUndefined, nil)
	case 11:
		return value(bson.TypeNull, nil)
	case 12:
		return marshal(primitive.ObjectID{11: byte(rapid.IntRange(0, 2).Draw(t, "oid"))})
	case 13:
		return marshal(rapid.Bool().Draw(t, "b"))
	case 14:
		return marshal(primitive.DateTime(rapid.Int64Range(-2, 2).Draw(t, "date")))
	case 15:
		return marshal(primitive.Timestamp{T: uint32(rapid.IntRange(0, 1).Draw(t, "t")), I: uint32(rapid.IntRange(0, 1).Draw(t, "i"))})
	case 16:
		return marshal(primitive.Regex{Pattern: rapid.SampledFrom([]string{"", "a", "ab"}).Draw(t, "p"), Options: rapid.SampledFrom([]string{"", "i"}).Draw(t, "o")})
	case 17:
		return marshal(primitive.CodeWithScope{Code: primitive.JavaScript(text()), Scope: bson.D{{Key: "a", Value: drawValue(t, depth+1)}}})
	case 18:
		return marshal(primitive.DBPointer{DB: text(), Pointer: primitive.ObjectID{11: byte(rapid.IntRange(0, 1).Draw(t, "oid"))}})
	case 19:
		return value(bson.TypeMinKey, nil)
	case 20:
		return value(bson.TypeMaxKey, nil)
	}
	return drawNumber(t)
}

func keyOf(t rapid.TB, v bson.RawValue) []byte {
	t.Helper()
	k, err := mongodb.AppendValueKey(nil, byte(v.Type), v.Value)
	if err != nil {
		t.Fatalf("%v: %v", v, err)
	}
	return k
}

// ordered reports whether keys of the two values also sort as the server does: all but DBPointers and regular
// expressions, which are compared in another way inside.
func ordered(a bson.RawValue) bool {
	return canonical(a.Type) != 50 && canonical(a.Type) != 55
}

func TestKeysMatchOracle(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		a := drawValue(t, 0)
		b := drawValue(t, 0)
		want := compareValues(a, b)
		ka, kb := keyOf(t, a), keyOf(t, b)
		got := bytes.Compare(ka, kb)
		if (got == 0) != (want == 0) {
			t.Fatalf("%v and %v: keys %x and %x, the server says %d", a, b, ka, kb, want)
		}
		top := canonical(a.Type)
		if top != canonical(b.Type) || ordered(a) && top != 20 && top != 25 && top != 65 {
			if (got < 0) != (want < 0) {
				t.Fatalf("%v and %v sort %d (%x, %x), the server says %d", a, b, got, ka, kb, want)
			}
		}
	})
}

func TestNumberKeysSort(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		a, b := drawPair(t)
		if got, want := bytes.Compare(keyOf(t, a), keyOf(t, b)), compareValues(a, b); cmpInt(int64(got), 0) != cmpInt(int64(want), 0) {
			t.Fatalf("%v and %v: keys sort %d (%x, %x), want %d", a, b, got, keyOf(t, a), keyOf(t, b), want)
		}
	})
}

func TestKeyPairs(t *testing.T) {
	dec := func(s string) primitive.Decimal128 {
		d, err := primitive.ParseDecimal128(s)
		if err != nil {
			t.Fatal(err)
		}
		return d
	}
	for _, c := range []struct {
		a, b any
		same bool
	}{
		{int32(1), 1.0, true},
		{int32(1), int64(1), true},
		{int32(1), dec("1"), true},
		{int32(1), dec("1.00"), true},
		{math.Copysign(0, -1), 0.0, true},
		{int32(0), dec("-0E+10"), true},
		{math.NaN(), math.Float64frombits(0xFFF8000000000001), true},
		{math.NaN(), dec("NaN"), true},
		{math.Inf(1), dec("Infinity"), true},
		{int64(1<<53 + 1), dec("9007199254740993"), true},
		{int64(1<<53 + 1), float64(1 << 53), false},
		{int64(math.MaxInt64), float64(1 << 63), false},
		{int64(math.MinInt64), -float64(1 << 63), true},
		{0.1, dec("0.1"), false},
		{int64(1<<53 + 3), dec("9007199254740995"), true}, // the nearest double lies above
		{int64(-1<<53 - 3), dec("-9007199254740995.000"), true},
		{int64(math.MaxInt64), dec("9223372036854775807"), true},
		{int32(0), primitive.NewDecimal128(0x3040000000000000|542101086242752, 4003012203950112768), true}, // 10^34: not canonical
		{dec("9999999999999999999999999999999999"), primitive.NewDecimal128(0x3040000000000000|542101086242752, 4003012203950112767), true},
		{0.5, dec("0.5"), true},
		{"a", primitive.Symbol("a"), true},
		{"a", primitive.JavaScript("a"), false},
		{bson.D{{Key: "a", Value: int32(1)}}, bson.D{{Key: "a", Value: 1.0}}, true},
		{bson.D{{Key: "a", Value: 1}, {Key: "b", Value: 1}}, bson.D{{Key: "b", Value: 1}, {Key: "a", Value: 1}}, false},
		{bson.A{1, 2}, bson.A{1.0, int64(2)}, true},
		{primitive.Null{}, primitive.Undefined{}, false},
		{primitive.Binary{Subtype: 0, Data: []byte{1}}, primitive.Binary{Subtype: 4, Data: []byte{1}}, false},
		{primitive.DateTime(5), primitive.Timestamp{I: 5}, false},
		{true, int32(1), false},
	} {
		a, b := keyOf(t, marshal(c.a)), keyOf(t, marshal(c.b))
		if bytes.Equal(a, b) != c.same {
			t.Errorf("%v and %v: keys %x and %x, want equal %v", c.a, c.b, a, b, c.same)
		}
	}
}

func TestDocKey(t *testing.T) {
	oid := primitive.ObjectID{1, 2, 3}
	first, _ := bson.Marshal(bson.D{{Key: "_id", Value: oid}, {Key: "a", Value: 1}})
	later, _ := bson.Marshal(bson.D{{Key: "a", Value: bson.D{{Key: "_id", Value: 1}}}, {Key: "_id", Value: oid}, {Key: "_id", Value: 2}})
	a, errA := mongodb.AppendDocKey([]byte("x"), first)
	b, errB := mongodb.AppendDocKey([]byte("x"), later)
	if errA != nil || errB != nil || !bytes.Equal(a, b) || !bytes.Equal(a[1:], keyOf(t, marshal(oid))) {
		t.Errorf("keys %x (%v) and %x (%v)", a, errA, b, errB)
	}
	none, _ := bson.Marshal(bson.D{{Key: "a", Value: 1}})
	if k, err := mongodb.AppendDocKey([]byte("x"), none); !errors.Is(err, mongodb.ErrNoID) || string(k) != "x" {
		t.Errorf("no _id: %x %v", k, err)
	}
	m := mongodb.AppendMissingKey(nil, 7, 1)
	if n := mongodb.AppendMissingKey(nil, 7, 2); bytes.Compare(m, n) >= 0 || bytes.Compare(n, keyOf(t, value(bson.TypeMinKey, nil))) >= 0 {
		t.Errorf("missing keys %x %x", m, n)
	}
}

func TestKeysAllocateNothing(t *testing.T) {
	var dst [256]byte
	for _, v := range []any{primitive.NewObjectID(), "some string", int32(5), int64(1 << 60), 1.5, primitive.DateTime(1), int64(1<<60 + 1)} {
		doc, _ := bson.Marshal(bson.D{{Key: "_id", Value: v}})
		if n := testing.AllocsPerRun(100, func() {
			if _, err := mongodb.AppendDocKey(dst[:0], doc); err != nil {
				t.Fatal(err)
			}
		}); n != 0 {
			t.Errorf("%T: %v allocations", v, n)
		}
	}
}

func FuzzKey(f *testing.F) {
	for _, v := range []any{"a", bson.D{{Key: "a", Value: bson.A{1, nil}}}, primitive.CodeWithScope{Code: "x", Scope: bson.D{}}, primitive.NewDecimal128(1<<60, 3)} {
		doc, _ := bson.Marshal(bson.D{{Key: "_id", Value: v}})
		f.Add(doc)
	}
	f.Fuzz(func(t *testing.T, doc []byte) {
		k, err := mongodb.AppendDocKey([]byte("prefix"), doc)
		if !bytes.HasPrefix(k, []byte("prefix")) || err != nil && len(k) != 6 {
			t.Fatalf("%x: %x %v", doc, k, err)
		}
		_ = mongodb.New().FormatKey(doc)
	})
}

func BenchmarkAppendDocKey(b *testing.B) {
	for name, id := range map[string]any{"objectid": primitive.NewObjectID(), "string": "user:0123456789", "int": int32(7), "int64": int64(1<<60 + 1), "decimal": primitive.NewDecimal128(0x303E000000000000, 12345)} {
		doc, _ := bson.Marshal(bson.D{{Key: "_id", Value: id}, {Key: "a", Value: strings.Repeat("x", 1000)}})
		b.Run(name, func(b *testing.B) {
			var dst []byte
			b.ReportAllocs()
			for b.Loop() {
				dst, _ = mongodb.AppendDocKey(dst[:0], doc)
			}
		})
	}
}
