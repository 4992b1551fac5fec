package chaos

import (
	"encoding/binary"
	"encoding/hex"
	"math"
	"math/rand/v2"
	"strconv"
	"time"

	"github.com/afterimagedb/afterimage/e2e/wire"
)

// gen draws values and documents.
type gen struct {
	r   *rand.Rand
	v44 bool
}

const letters = "abcdefghijklmnopqrstuvwxyz0123456789 äöé世🙂"

func (g gen) text(n int) string {
	runes := []rune(letters)
	out := make([]rune, n)
	for i := range out {
		out[i] = runes[g.r.IntN(len(runes))]
	}
	return string(out)
}

func (g gen) bytes(n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(g.r.UintN(256))
	}
	return b
}

func decimal(hexed string) wire.Val {
	b, err := hex.DecodeString(hexed)
	if err != nil {
		panic(err)
	}
	return wire.Val{Type: 0x13, Data: b}
}

// Decimal128 by its bytes, least first.
var decimals = []wire.Val{
	decimal("01000000000000000000000000004030"), // 1
	decimal("0a000000000000000000000000003e30"), // 1.0
	decimal("64000000000000000000000000003c30"), // 1.00
	decimal("010000000000000000000000000040b0"), // -1
	decimal("00000000000000000000000000004030"), // 0
	decimal("000000000000000000000000000040b0"), // -0
	decimal("00000000000000000000000000000030"), // 0E-5152 or so
	decimal("0000000000000000000000000000007c"), // NaN
	decimal("00000000000000000000000000000078"), // Infinity
	decimal("000000000000000000000000000000f8"), // -Infinity
	decimal("ffffffff638e8d37c087adbe09edff5f"), // the greatest
}

func nan(bits uint64) wire.Val {
	return wire.Val{Type: 0x01, Data: binary.LittleEndian.AppendUint64(nil, bits)}
}

// cstring is the bytes of a regular expression's parts.
func regex(pattern, flags string) wire.Val {
	return wire.Val{Type: 0x0B, Data: append(append(append([]byte(pattern), 0), flags...), 0)}
}

func (g gen) scalar() wire.Val {
	v := wire.V
	all := []func() wire.Val{
		func() wire.Val { return v(g.r.IntN(1000)) },
		func() wire.Val { return v(int64(g.r.IntN(1000))) },
		func() wire.Val { return v(float64(g.r.IntN(1000))) },
		func() wire.Val { return v(g.r.NormFloat64()) },
		func() wire.Val { return v(math.Copysign(0, -1)) },
		func() wire.Val { return nan(0x7FF8000000000000) },
		func() wire.Val { return nan(0xFFF8000000000001) },
		func() wire.Val { return nan(0x7FF80000DEADBEEF) },
		func() wire.Val { return v(math.Inf(1 - 2*g.r.IntN(2))) },
		func() wire.Val { return v(int64(math.MinInt64)) },
		func() wire.Val { return decimals[g.r.IntN(len(decimals))] },
		func() wire.Val { return v(g.text(g.r.IntN(20))) },
		func() wire.Val { return v("nul\x00inside") },
		func() wire.Val { return v("") },
		func() wire.Val { return v(g.r.IntN(2) == 0) },
		func() wire.Val { return v(nil) },
		func() wire.Val { return v(time.Now().Add(-time.Duration(g.r.IntN(1e6)) * time.Second)) },
		func() wire.Val { return v(time.UnixMilli(-62135596800000 - int64(g.r.IntN(1e9)))) },
		func() wire.Val { return wire.Val{Type: 0x07, Data: g.bytes(12)} },
		func() wire.Val { return v(wire.TS{}) },
		func() wire.Val { return v(wire.TS{T: g.r.Uint32(), I: g.r.Uint32()}) },
		func() wire.Val { return v(wire.Bin{Sub: 0, Data: g.bytes(g.r.IntN(40))}) },
		func() wire.Val { return v(wire.Bin{Sub: byte(3 + g.r.IntN(2)), Data: g.bytes(16)}) },
		func() wire.Val { return v(wire.Bin{Sub: 2, Data: []byte{0, 0, 0, 0}}) },
		func() wire.Val { return v(wire.Bin{Sub: 2, Data: []byte{2, 0, 0, 0, 7, 8}}) },
		func() wire.Val { return v(wire.Bin{Sub: 5, Data: g.bytes(16)}) },
		func() wire.Val { return v(wire.Bin{Sub: 128 + byte(g.r.IntN(100)), Data: g.bytes(5)}) },
		func() wire.Val { return wire.Val{Type: 0xFF} },
		func() wire.Val { return wire.Val{Type: 0x7F} },
		func() wire.Val { return wire.Val{Type: 0x06} }, // undefined
		func() wire.Val { return regex("^a.*"+strconv.Itoa(g.r.IntN(9)), "im") },
		func() wire.Val { return wire.Val{Type: 0x0D, Data: v("function(){return 1}").Data} },
		func() wire.Val { return wire.Val{Type: 0x0E, Data: v("symbol").Data} },
		func() wire.Val { return wire.Val{Type: 0x0C, Data: append(v("db.coll").Data, g.bytes(12)...)} },
		func() wire.Val {
			code, scope := v("x+1").Data, wire.D("x", 1)
			b := binary.LittleEndian.AppendUint32(nil, uint32(4+len(code)+len(scope)))
			return wire.Val{Type: 0x0F, Data: append(append(b, code...), scope...)}
		},
	}
	return all[g.r.IntN(len(all))]()
}

var oddNames = []string{"", "dot.ted", ".", "a..b", "$x", "$set", "u", "d", "i", "l", "a", "s1", "0", "00", "ü", "_id", "$v", "diff", "$ref", "name with spaces", "\t"}

func (g gen) name(top bool) string {
	if g.r.IntN(4) > 0 {
		return "f" + strconv.Itoa(g.r.IntN(6))
	}
	n := oddNames[g.r.IntN(len(oddNames))]
	if n == "_id" && top || g.v44 && (n == "" || n[0] == '$' || n == "dot.ted") && top {
		return "odd"
	}
	return n
}

func (g gen) value(depth int) wire.Val {
	if depth <= 0 || g.r.IntN(3) > 0 {
		return g.scalar()
	}
	if g.r.IntN(2) == 0 {
		return wire.V(g.doc(depth - 1))
	}
	return wire.V(g.array(depth - 1))
}

func (g gen) doc(depth int) wire.Doc {
	pairs := []any{}
	for range g.r.IntN(5) {
		pairs = append(pairs, g.name(false), g.value(depth))
	}
	return once(pairs)
}

// once makes a document in which no name is twice: an update of one that has such a name may end a 6.0 server.
func once(pairs []any) wire.Doc {
	var out []any
	seen := map[string]bool{}
	for i := 0; i < len(pairs); i += 2 {
		name := pairs[i].(string)
		if !seen[name] {
			seen[name] = true
			out = append(out, name, pairs[i+1])
		}
	}
	return wire.D(out...)
}

func (g gen) array(depth int) wire.Arr {
	values := []any{}
	for range g.r.IntN(6) {
		values = append(values, g.value(depth))
	}
	return wire.A(values...)
}

// deep is a document nested n times.
func deep(n int) wire.Doc {
	d := wire.D("leaf", 1)
	for i := range n {
		if i%3 == 2 {
			d = wire.D("n", wire.A(d))
		} else {
			d = wire.D("n", d)
		}
	}
	return d
}

// number is a small id in one of the types that are one key to the server.
func (g gen) number(n int) wire.Val {
	switch g.r.IntN(5) {
	case 0:
		return wire.V(float64(n))
	case 1:
		return wire.V(int64(n))
	case 2:
		d := decimals[0].Data
		d = append([]byte{byte(n), byte(n >> 8)}, d[2:]...)
		return wire.Val{Type: 0x13, Data: d}
	default:
		return wire.V(int32(n))
	}
}

// id is an _id: mostly one of 120 numbers, else of any type that the server takes.
func (g gen) id() wire.Val {
	if g.r.IntN(5) > 0 {
		return g.number(g.r.IntN(120))
	}
	for {
		v := g.value(1)
		if v.Type != 0x04 && v.Type != 0x0B && v.Type != 0x06 && (v.Type != 0x03 || g.r.IntN(2) == 0) {
			return v
		}
	}
}

// document is a whole document with fields that the update operators find, and odd ones.
func (g gen) document(id wire.Val) wire.Doc {
	pairs := []any{"_id", id}
	if g.r.IntN(12) == 0 {
		pairs = []any{"first", 1, "_id", id} // the server moves it
	}
	pairs = append(pairs, "n", g.number(g.r.IntN(50)), "f", g.r.Float64(), "a", wire.A(g.r.IntN(9), g.r.IntN(9), g.r.IntN(9)),
		"docs", wire.A(wire.D("k", 1, "v", g.text(3)), wire.D("k", 2, "v", g.scalar()), wire.D("k", g.r.IntN(5))),
		"s", wire.D("t", wire.D("u", g.r.IntN(9), "w", g.text(4)), "x", 1), "str", g.text(g.r.IntN(40)), "bits", g.r.IntN(256))
	for range g.r.IntN(6) {
		pairs = append(pairs, g.name(true), g.value(3))
	}
	switch g.r.IntN(60) {
	case 1: // a name twice; only here: see once
		return wire.D("_id", "twice"+strconv.Itoa(g.r.IntN(9)), "twice", 1, "twice", 2)
	case 0:
		pairs = append(pairs, "deep", deep(20+g.r.IntN(70)))
	case 2:
		pairs = append(pairs, "zero", wire.TS{}, "sub", wire.D("zero", wire.TS{}))
	case 3:
		pairs = append(pairs, "expires", time.Now().Add(time.Duration(g.r.IntN(20))*time.Second))
	case 4:
		pairs = append(pairs, "wide", g.wide())
	case 5: // an array whose names are not 0,1,2
		pairs = append(pairs, "arr", wire.Val{Type: 0x04, Data: wire.D("7", 1, "x", 2)})
	case 6:
		pairs = append(pairs, "loc", wire.D("type", "Point", "coordinates", wire.A(g.r.Float64()*100, g.r.Float64()*50)))
	}
	return once(pairs)
}

func (g gen) wide() wire.Doc {
	pairs := []any{}
	for i := range 300 {
		pairs = append(pairs, "w"+strconv.Itoa(i), i)
	}
	return wire.D(pairs...)
}

// sized is a document of exactly so many bytes.
func (g gen) sized(id wire.Val, bytes int) wire.Doc {
	d := wire.D("_id", id, "pad", wire.Bin{})
	pad := make([]byte, bytes-len(d))
	for i := 0; i+8 <= len(pad); i += 8 {
		binary.LittleEndian.PutUint64(pad[i:], g.r.Uint64()&0x0f0f0f0f0f0f0f0f)
	}
	return wire.D("_id", id, "pad", wire.Bin{Data: pad})
}
