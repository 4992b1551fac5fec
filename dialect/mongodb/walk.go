package mongodb

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"math/bits"
)

// BSON type bytes, as the specification numbers them.
const (
	typeDouble    byte = 0x01
	typeString    byte = 0x02
	typeObject    byte = 0x03
	typeArray     byte = 0x04
	typeBinary    byte = 0x05
	typeUndefined byte = 0x06
	typeObjectID  byte = 0x07
	typeBool      byte = 0x08
	typeDate      byte = 0x09
	typeNull      byte = 0x0A
	typeRegex     byte = 0x0B
	typeDBPointer byte = 0x0C
	typeCode      byte = 0x0D
	typeSymbol    byte = 0x0E
	typeCodeScope byte = 0x0F
	typeInt32     byte = 0x10
	typeTimestamp byte = 0x11
	typeInt64     byte = 0x12
	typeDecimal   byte = 0x13
	typeMinKey    byte = 0xFF
	typeMaxKey    byte = 0x7F
)

// depthMax bounds recursion into nested documents; servers refuse documents deeper than 250.
const depthMax = 300

var (
	errMalformed = errors.New("malformed BSON")
	errTooDeep   = fmt.Errorf("malformed BSON: nested deeper than %d levels", depthMax)
)

// field is one element of a document: positions in the document's bytes. It starts at start (the type byte), its name
// is [start+1, value-1), its value is [value, end).
type field struct {
	start, value, end int
}

func (f field) typ(doc []byte) byte    { return doc[f.start] }
func (f field) name(doc []byte) []byte { return doc[f.start+1 : f.value-1] }
func (f field) val(doc []byte) []byte  { return doc[f.value:f.end] }
func (f field) raw(doc []byte) []byte  { return doc[f.start:f.end] }

// checkDoc checks the frame of a document: its length word and its last byte. Elements are checked as they are walked.
func checkDoc(doc []byte) error {
	if len(doc) < 5 || binary.LittleEndian.Uint32(doc) != uint32(len(doc)) || doc[len(doc)-1] != 0 {
		return fmt.Errorf("%w: document of %d bytes has a wrong length or end", errMalformed, len(doc))
	}
	return nil
}

// nextField reads the element at pos. At the end of the document ok is false and err is nil.
// doc must have passed checkDoc.
func nextField(doc []byte, pos int) (f field, ok bool, err error) {
	end := len(doc) - 1
	if pos >= end {
		return f, false, nil
	}
	i := nameEnd(doc, pos+1)
	if i >= end {
		return f, false, fmt.Errorf("%w: name at byte %d has no end", errMalformed, pos)
	}
	n := valueLen(doc[pos], doc[i+1:end])
	if n < 0 {
		return f, false, fmt.Errorf("%w: value of type 0x%02x at byte %d", errMalformed, doc[pos], i+1)
	}
	return field{start: pos, value: i + 1, end: i + 1 + n}, true, nil
}

// nameEnd returns the place of the first zero byte at or after i. doc ends with one.
func nameEnd(doc []byte, i int) int {
	const low, high = 0x0101010101010101, 0x8080808080808080
	for i+8 <= len(doc) {
		w := binary.LittleEndian.Uint64(doc[i:])
		if zero := (w - low) &^ w & high; zero != 0 {
			return i + bits.TrailingZeros64(zero)>>3
		}
		i += 8
	}
	for doc[i] != 0 {
		i++
	}
	return i
}

// valueLen returns the length of the value of type typ that b starts with, or -1 if b does not hold one.
func valueLen(typ byte, b []byte) int {
	n := 0
	switch typ {
	case typeDouble, typeDate, typeTimestamp, typeInt64:
		n = 8
	case typeString, typeCode, typeSymbol:
		if n = int32At(b); n < 1 || n > len(b)-4 || b[3+n] != 0 {
			return -1
		}
		return n + 4
	case typeObject, typeArray:
		if n = int32At(b); n < 5 || n > len(b) || b[n-1] != 0 {
			return -1
		}
		return n
	case typeInt32:
		n = 4
	case typeObjectID:
		n = 12
	case typeBool:
		n = 1
	case typeDecimal:
		n = 16
	case typeUndefined, typeNull, typeMinKey, typeMaxKey:
		return 0
	default:
		return rareLen(typ, b)
	}
	if n > len(b) {
		return -1
	}
	return n
}

func rareLen(typ byte, b []byte) int {
	n := 0
	switch typ {
	case typeBinary:
		if n = int32At(b); n < 0 || n > len(b)-5 {
			return -1
		}
		return n + 5
	case typeRegex:
		i := bytes.IndexByte(b, 0)
		if i < 0 {
			return -1
		}
		j := bytes.IndexByte(b[i+1:], 0)
		if j < 0 {
			return -1
		}
		return i + j + 2
	case typeDBPointer:
		if n = int32At(b); n < 1 || n > len(b)-16 || b[3+n] != 0 {
			return -1
		}
		return n + 16
	case typeCodeScope:
		if n = int32At(b); n < 14 || n > len(b) {
			return -1
		}
		code := int32At(b[4:])
		if code < 1 || code > n-13 || b[7+code] != 0 || int32At(b[8+code:]) != n-8-code || b[n-1] != 0 {
			return -1
		}
		return n
	}
	return -1
}

// int32At reads the length word at the start of b, or -1 if b is too short for it.
func int32At(b []byte) int {
	if len(b) < 4 {
		return -1
	}
	return int(int32(binary.LittleEndian.Uint32(b)))
}

// lookup returns the first field of doc with the name.
func lookup(doc []byte, name string) (f field, ok bool, err error) {
	if err := checkDoc(doc); err != nil {
		return f, false, err
	}
	for pos := 4; ; pos = f.end {
		f, ok, err = nextField(doc, pos)
		if !ok || err != nil {
			return field{}, false, err
		}
		if string(f.name(doc)) == name {
			return f, true, nil
		}
	}
}

// beginDoc appends the place of a document's length word; endDoc closes the document that began at start.
func beginDoc(dst []byte) []byte { return append(dst, 0, 0, 0, 0) }

func endDoc(dst []byte, start int) []byte {
	dst = append(dst, 0)
	binary.LittleEndian.PutUint32(dst[start:], uint32(len(dst)-start))
	return dst
}

// appendField appends an element: type, name, value.
func appendField(dst []byte, typ byte, name, value []byte) []byte {
	dst = append(append(append(dst, typ), name...), 0)
	return append(dst, value...)
}

func appendString(dst []byte, name, value string) []byte {
	dst = append(append(append(dst, typeString), name...), 0)
	dst = binary.LittleEndian.AppendUint32(dst, uint32(len(value)+1))
	return append(append(dst, value...), 0)
}

// stringOf returns the content of a string value, without its length word and end.
func stringOf(value []byte) []byte {
	if len(value) < 5 {
		return nil
	}
	return value[4 : len(value)-1]
}
