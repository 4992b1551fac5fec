package oplog

import (
	"encoding/binary"
	"errors"
	"fmt"
)

// ErrMalformed says that an entry is not well-formed BSON, or lacks what every entry has. Reading it again won't help.
var ErrMalformed = errors.New("malformed oplog entry")

// BSON types used by name here.
const (
	typeString    = 0x02
	typeDocument  = 0x03
	typeArray     = 0x04
	typeBinary    = 0x05
	typeBool      = 0x08
	typeDate      = 0x09
	typeInt32     = 0x10
	typeTimestamp = 0x11
	typeInt64     = 0x12
)

// element is one field of a BSON document. Its slices point into the document.
type element struct {
	kind  byte
	name  []byte
	value []byte
}

// walker goes over the fields of a document. It checks lengths, so that no input makes it read out of bounds.
type walker struct {
	rest []byte // what follows, without the closing zero
	bad  bool
}

// walk begins at the first field of doc.
func walk(doc []byte) walker {
	if len(doc) < 5 || uint64(binary.LittleEndian.Uint32(doc)) != uint64(len(doc)) || doc[len(doc)-1] != 0 {
		return walker{bad: true}
	}
	return walker{rest: doc[4 : len(doc)-1]}
}

// next fills in the next field; false means the end, or damage: see bad.
func (w *walker) next(e *element) bool {
	b := w.rest
	if len(b) == 0 || w.bad {
		return false
	}
	i := 1
	for i < len(b) && b[i] != 0 {
		i++
	}
	if i >= len(b) {
		w.bad = true
		return false
	}
	n := valueSize(b[0], b[i+1:])
	if n < 0 {
		w.bad = true
		return false
	}
	e.kind, e.name, e.value = b[0], b[1:i], b[i+1:i+1+n]
	w.rest = b[i+1+n:]
	return true
}

// valueSize returns the length of the value of the given type at the start of b, -1 if it does not fit.
func valueSize(kind byte, b []byte) int {
	n := 0
	switch kind {
	case 0x06, 0x0a, 0x7f, 0xff: // undefined, null, MaxKey, MinKey
	case typeBool:
		n = 1
	case typeInt32:
		n = 4
	case 0x01, typeDate, typeTimestamp, typeInt64:
		n = 8
	case 0x07: // ObjectId
		n = 12
	case 0x13: // Decimal128
		n = 16
	case 0x0b: // regular expression: two C strings
		for range 2 {
			for n < len(b) && b[n] != 0 {
				n++
			}
			n++
		}
	case typeString, 0x0c, 0x0d, 0x0e, typeDocument, typeArray, 0x0f, typeBinary:
		return sizedValue(kind, b)
	default:
		return -1
	}
	if n > len(b) {
		return -1
	}
	return n
}

// sizedValue is valueSize for types that begin with their length.
func sizedValue(kind byte, b []byte) int {
	if len(b) < 4 {
		return -1
	}
	l := int64(binary.LittleEndian.Uint32(b))
	n := l
	switch kind {
	case typeString, 0x0d, 0x0e: // string, code, symbol
		if l < 1 {
			return -1
		}
		n = l + 4
	case 0x0c: // DBPointer
		if l < 1 {
			return -1
		}
		n = l + 4 + 12
	case typeBinary:
		n = l + 5
	default: // document, array, code with scope: the length counts itself
		if l < 5 {
			return -1
		}
	}
	if n > int64(len(b)) {
		return -1
	}
	return int(n)
}

// text returns a string value without its length and closing zero.
func (e *element) text() []byte {
	if e.kind != typeString || len(e.value) < 5 {
		return nil
	}
	return e.value[4 : len(e.value)-1]
}

// number returns an integer value of either width.
func (e *element) number() (int64, bool) {
	switch e.kind {
	case typeInt32:
		return int64(int32(binary.LittleEndian.Uint32(e.value))), true
	case typeInt64:
		return int64(binary.LittleEndian.Uint64(e.value)), true
	}
	return 0, false
}

// truth reports whether the value is true.
func (e *element) truth() bool {
	if e.kind == typeBool {
		return e.value[0] != 0
	}
	n, ok := e.number()
	return ok && n != 0
}

// uuid returns a binary value of 16 bytes.
func (e *element) uuid() (id [16]byte, ok bool) {
	if e.kind != typeBinary || len(e.value) != 5+16 {
		return id, false
	}
	copy(id[:], e.value[5:])
	return id, true
}

// timestamp returns a timestamp value.
func (e *element) timestamp() uint64 { return binary.LittleEndian.Uint64(e.value) }

// first returns the first field of a document.
func first(doc []byte) (e element, ok bool) {
	w := walk(doc)
	ok = w.next(&e)
	return e, ok
}

// lookup finds a field of a document by name.
func lookup(doc []byte, name string) (e element, ok bool) {
	w := walk(doc)
	for w.next(&e) {
		if string(e.name) == name {
			return e, true
		}
	}
	return element{}, false
}

func malformed(what string) error { return fmt.Errorf("%s: %w", what, ErrMalformed) }
