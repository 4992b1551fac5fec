package format

import (
	"bytes"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"math"
	"strconv"
	"unicode/utf8"

	"go.mongodb.org/mongo-driver/bson/primitive"
)

// depthMax bounds recursion; servers refuse documents deeper than 250.
const depthMax = 300

// BSON type bytes, as the specification numbers them.
const (
	typeDouble           byte = 0x01
	typeString           byte = 0x02
	typeEmbeddedDocument byte = 0x03
	typeArray            byte = 0x04
	typeBinary           byte = 0x05
	typeUndefined        byte = 0x06
	typeObjectID         byte = 0x07
	typeBoolean          byte = 0x08
	typeDateTime         byte = 0x09
	typeNull             byte = 0x0A
	typeRegex            byte = 0x0B
	typeDBPointer        byte = 0x0C
	typeJavaScript       byte = 0x0D
	typeSymbol           byte = 0x0E
	typeCodeWithScope    byte = 0x0F
	typeInt32            byte = 0x10
	typeTimestamp        byte = 0x11
	typeInt64            byte = 0x12
	typeDecimal128       byte = 0x13
	typeMinKey           byte = 0xFF
	typeMaxKey           byte = 0x7F
)

var errBSON = errors.New("malformed BSON")

// AppendJSON appends the canonical extended JSON (version 2) of a document, read from its bytes: types and the order of
// fields survive. What JSON can't hold does not: bytes that are no UTF-8 become U+FFFD, keys of arrays are left out.
func AppendJSON(dst, doc []byte) ([]byte, error) { return appendDocument(dst, doc, false, 0) }

func appendDocument(dst, doc []byte, array bool, depth int) ([]byte, error) {
	if len(doc) < 5 || int(binary.LittleEndian.Uint32(doc)) != len(doc) || doc[len(doc)-1] != 0 || depth > depthMax {
		return dst, fmt.Errorf("%w: a document of %d bytes at depth %d", errBSON, len(doc), depth)
	}
	open, end := byte('{'), byte('}')
	if array {
		open, end = '[', ']'
	}
	dst = append(dst, open)
	rest := doc[4 : len(doc)-1]
	for first := true; len(rest) > 0; first = false {
		z := bytes.IndexByte(rest[1:], 0)
		if z < 0 {
			return dst, fmt.Errorf("%w: a field's name has no end", errBSON)
		}
		if !first {
			dst = append(dst, ',')
		}
		if !array {
			dst = append(appendString(dst, rest[1:1+z]), ':')
		}
		typ := rest[0]
		value := rest[z+2:]
		var n int
		var err error
		if dst, n, err = appendValue(dst, typ, value, depth); err != nil {
			return dst, err
		}
		rest = value[n:]
	}
	return append(dst, end), nil
}

// appendValue appends the value that b begins with and returns how many bytes it takes.
func appendValue(dst []byte, typ byte, b []byte, depth int) ([]byte, int, error) {
	n := valueLen(typ, b)
	if n < 0 || n > len(b) {
		return dst, 0, fmt.Errorf("%w: a value of type %#x", errBSON, typ)
	}
	v := b[:n]
	switch typ {
	case typeString:
		dst = appendString(dst, v[4:n-1])
	case typeInt32:
		dst = append(dst, `{"$numberInt":"`...)
		dst = append(strconv.AppendInt(dst, int64(int32(binary.LittleEndian.Uint32(v))), 10), `"}`...)
	case typeInt64:
		dst = appendInt64(dst, v)
	case typeDouble:
		dst = append(appendDouble(append(dst, `{"$numberDouble":"`...), math.Float64frombits(binary.LittleEndian.Uint64(v))), `"}`...)
	case typeEmbeddedDocument, typeArray:
		var err error
		if dst, err = appendDocument(dst, v, typ == typeArray, depth+1); err != nil {
			return dst, 0, err
		}
	case typeObjectID:
		dst = append(hex.AppendEncode(append(dst, `{"$oid":"`...), v), `"}`...)
	case typeBoolean:
		dst = strconv.AppendBool(dst, v[0] != 0)
	case typeNull:
		dst = append(dst, "null"...)
	case typeDateTime:
		dst = append(appendInt64(append(dst, `{"$date":`...), v), '}')
	case typeTimestamp:
		dst = strconv.AppendUint(append(dst, `{"$timestamp":{"t":`...), uint64(binary.LittleEndian.Uint32(v[4:])), 10)
		dst = append(strconv.AppendUint(append(dst, `,"i":`...), uint64(binary.LittleEndian.Uint32(v)), 10), "}}"...)
	default:
		return appendRare(dst, typ, v, depth)
	}
	return dst, n, nil
}

func appendRare(dst []byte, typ byte, v []byte, depth int) ([]byte, int, error) {
	n := len(v)
	switch typ {
	case typeBinary:
		dst = base64.StdEncoding.AppendEncode(append(dst, `{"$binary":{"base64":"`...), v[5:])
		dst = append(hex.AppendEncode(append(dst, `","subType":"`...), v[4:5]), `"}}`...)
	case typeDecimal128:
		d := primitive.NewDecimal128(binary.LittleEndian.Uint64(v[8:]), binary.LittleEndian.Uint64(v))
		dst = append(append(append(dst, `{"$numberDecimal":"`...), d.String()...), `"}`...)
	case typeRegex:
		pattern, options, _ := bytes.Cut(v[:n-1], []byte{0})
		dst = appendString(append(dst, `{"$regularExpression":{"pattern":`...), pattern)
		dst = append(appendString(append(dst, `,"options":`...), options), "}}"...)
	case typeJavaScript:
		dst = append(appendString(append(dst, `{"$code":`...), v[4:n-1]), '}')
	case typeSymbol:
		dst = append(appendString(append(dst, `{"$symbol":`...), v[4:n-1]), '}')
	case typeCodeWithScope:
		code := int(binary.LittleEndian.Uint32(v[4:]))
		if code < 1 || code > n-13 || v[8+code-1] != 0 {
			return dst, 0, fmt.Errorf("%w: code with a scope", errBSON)
		}
		dst = appendString(append(dst, `{"$code":`...), v[8:8+code-1])
		var err error
		if dst, err = appendDocument(append(dst, `,"$scope":`...), v[8+code:], false, depth+1); err != nil {
			return dst, 0, err
		}
		dst = append(dst, '}')
	case typeDBPointer:
		dst = appendString(append(dst, `{"$dbPointer":{"$ref":`...), v[4:n-13])
		dst = append(hex.AppendEncode(append(dst, `,"$id":{"$oid":"`...), v[n-12:]), `"}}}`...)
	case typeUndefined:
		dst = append(dst, `{"$undefined":true}`...)
	case typeMinKey:
		dst = append(dst, `{"$minKey":1}`...)
	case typeMaxKey:
		dst = append(dst, `{"$maxKey":1}`...)
	default:
		return dst, 0, fmt.Errorf("%w: type %#x", errBSON, typ)
	}
	return dst, n, nil
}

// valueLen returns how long the value at the start of b is, or -1. It may be more than b holds.
func valueLen(typ byte, b []byte) int {
	switch typ {
	case typeDouble, typeDateTime, typeTimestamp, typeInt64:
		return 8
	case typeInt32:
		return 4
	case typeObjectID:
		return 12
	case typeBoolean:
		return 1
	case typeDecimal128:
		return 16
	case typeUndefined, typeNull, typeMinKey, typeMaxKey:
		return 0
	case typeRegex:
		i := bytes.IndexByte(b, 0)
		j := bytes.IndexByte(b[i+1:], 0)
		if i < 0 || j < 0 {
			return -1
		}
		return i + j + 2
	default: // the rest begins with a length
	}
	if len(b) < 5 {
		return -1
	}
	n := int(binary.LittleEndian.Uint32(b))
	if n > math.MaxInt32 {
		return -1
	}
	switch typ {
	case typeString, typeJavaScript, typeSymbol:
		if n >= 1 && n <= len(b)-4 && b[3+n] == 0 {
			return n + 4
		}
	case typeDBPointer:
		if n >= 1 && n <= len(b)-16 && b[3+n] == 0 {
			return n + 16
		}
	case typeEmbeddedDocument, typeArray:
		if n >= 5 {
			return n
		}
	case typeCodeWithScope:
		if n >= 14 {
			return n
		}
	case typeBinary:
		return n + 5
	default: // no type of BSON
	}
	return -1
}

func appendInt64(dst, v []byte) []byte {
	dst = append(dst, `{"$numberLong":"`...)
	return append(strconv.AppendInt(dst, int64(binary.LittleEndian.Uint64(v)), 10), `"}`...)
}

// appendDouble writes the shortest number that reads back the same, and such that it is no integer.
func appendDouble(dst []byte, f float64) []byte {
	switch {
	case math.IsInf(f, 1):
		return append(dst, "Infinity"...)
	case math.IsInf(f, -1):
		return append(dst, "-Infinity"...)
	case math.IsNaN(f):
		return append(dst, "NaN"...)
	}
	start := len(dst)
	dst = strconv.AppendFloat(dst, f, 'G', -1, 64)
	if !bytes.ContainsAny(dst[start:], ".E") {
		dst = append(dst, ".0"...)
	}
	return dst
}

const hexDigits = "0123456789abcdef"

// appendString appends a JSON string.
func appendString(dst, s []byte) []byte {
	dst = append(dst, '"')
	from := 0
	for i := 0; i < len(s); {
		c := s[i]
		if c >= ' ' && c != '"' && c != '\\' && c < utf8.RuneSelf {
			i++
			continue
		}
		if c >= utf8.RuneSelf {
			r, size := utf8.DecodeRune(s[i:])
			if r == utf8.RuneError && size == 1 {
				dst = append(append(dst, s[from:i]...), "\uFFFD"...)
				from = i + 1
			}
			i += size
			continue
		}
		dst = append(dst, s[from:i]...)
		switch c {
		case '"', '\\':
			dst = append(dst, '\\', c)
		case '\n':
			dst = append(dst, '\\', 'n')
		case '\r':
			dst = append(dst, '\\', 'r')
		case '\t':
			dst = append(dst, '\\', 't')
		default:
			dst = append(dst, '\\', 'u', '0', '0', hexDigits[c>>4], hexDigits[c&15])
		}
		i++
		from = i
	}
	return append(append(dst, s[from:]...), '"')
}
