package wire

import (
	"encoding/binary"
	"fmt"
	"math"
	"slices"
	"strconv"
	"time"

	"go.mongodb.org/mongo-driver/bson"
)

// Doc is a document as bytes.
type Doc []byte

// Arr is an array as bytes.
type Arr []byte

// Val is any value as bytes.
type Val struct {
	Type byte
	Data []byte
}

// TS is a timestamp.
type TS struct{ T, I uint32 }

// String prints seconds.ordinal, as the product's command line wants it.
func (t TS) String() string { return fmt.Sprintf("%d.%d", t.T, t.I) }

// Less says whether t is before u.
func (t TS) Less(u TS) bool { return t.T < u.T || t.T == u.T && t.I < u.I }

// Bin is a binary of subtype 0 or, with UUID, 4.
type Bin struct {
	Sub  byte
	Data []byte
}

// D makes a document of names and values in turn. A value is nil, bool, int, int32, int64, float64, string, [time.Time] or a type of
// this package. A wrong type is a mistake in the test and panics.
func D(pairs ...any) Doc {
	b := make([]byte, 4, 64)
	for i := 0; i+1 < len(pairs); i += 2 {
		b = Append(b, pairs[i].(string), pairs[i+1])
	}
	return closed(b)
}

// A makes an array.
func A(values ...any) Arr {
	b := make([]byte, 4, 64)
	for i, v := range values {
		b = Append(b, strconv.Itoa(i), v)
	}
	return Arr(closed(b))
}

// Docs makes an array of documents.
func Docs[T ~[]byte](docs ...T) Arr {
	values := make([]any, len(docs))
	for i, d := range docs {
		values[i] = Doc(d)
	}
	return A(values...)
}

// With returns a new document that is d and more pairs at its end.
func With(d Doc, pairs ...any) Doc {
	b := slices.Clone(d[:len(d)-1])
	for i := 0; i+1 < len(pairs); i += 2 {
		b = Append(b, pairs[i].(string), pairs[i+1])
	}
	return closed(b)
}

func closed(b []byte) Doc {
	b = append(b, 0)
	binary.LittleEndian.PutUint32(b, uint32(len(b)))
	return b
}

// Append appends one element to a document that is not closed yet.
func Append(b []byte, name string, v any) []byte {
	e := V(v)
	b = append(b, e.Type)
	b = append(b, name...)
	b = append(b, 0)
	return append(b, e.Data...)
}

// V makes the bytes of a value.
func V(v any) Val {
	le := binary.LittleEndian
	switch v := v.(type) {
	case Val:
		return v
	case Doc:
		return Val{0x03, v}
	case Arr:
		return Val{0x04, v}
	case nil:
		return Val{Type: 0x0A}
	case bool:
		if v {
			return Val{0x08, []byte{1}}
		}
		return Val{0x08, []byte{0}}
	case int:
		if v >= math.MinInt32 && v <= math.MaxInt32 {
			return V(int32(v))
		}
		return V(int64(v))
	case int32:
		return Val{0x10, le.AppendUint32(nil, uint32(v))}
	case int64:
		return Val{0x12, le.AppendUint64(nil, uint64(v))}
	case float64:
		return Val{0x01, le.AppendUint64(nil, math.Float64bits(v))}
	case string:
		return Val{0x02, append(append(le.AppendUint32(nil, uint32(len(v)+1)), v...), 0)}
	case time.Time:
		return Val{0x09, le.AppendUint64(nil, uint64(v.UnixMilli()))}
	case TS:
		return Val{0x11, le.AppendUint32(le.AppendUint32(nil, v.I), v.T)}
	case Bin:
		return Val{0x05, append(append(le.AppendUint32(nil, uint32(len(v.Data))), v.Sub), v.Data...)}
	case bson.RawValue:
		return Val{byte(v.Type), v.Value}
	}
	panic(fmt.Sprintf("wire: no BSON for %T", v))
}
