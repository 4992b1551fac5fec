package mongodb

import (
	"bytes"
	"encoding/binary"
	"errors"

	"go.mongodb.org/mongo-driver/bson/bsontype"
)

// BSON types that this package looks at.
const (
	typeDouble    = 0x01
	typeString    = 0x02
	typeDocument  = 0x03
	typeArray     = 0x04
	typeRegex     = 0x0B
	typeTimestamp = 0x11
)

var errBSON = errors.New("not a BSON document")

// element is one element of a document: doc[at:end], its value doc[value:end].
type element struct {
	typ            byte
	name           []byte
	at, value, end int
}

// walk calls f for each top-level element of doc until f returns false. It never reads outside doc.
func walk(doc []byte, f func(e element) bool) error {
	if len(doc) < 5 || int(int32(binary.LittleEndian.Uint32(doc))) != len(doc) || doc[len(doc)-1] != 0 {
		return errBSON
	}
	pos, last := 4, len(doc)-1
	for pos < last {
		n := bytes.IndexByte(doc[pos+1:last], 0)
		if n < 0 {
			return errBSON
		}
		e := element{typ: doc[pos], name: doc[pos+1 : pos+1+n], at: pos, value: pos + n + 2}
		size := valueSize(e.typ, doc[e.value:last])
		if size < 0 || size > last-e.value {
			return errBSON
		}
		e.end = e.value + size
		if !f(e) {
			return nil
		}
		pos = e.end
	}
	return nil
}

// valueSize returns the length of the value that b begins with, -1 when it can't be one. The length may exceed b.
func valueSize(typ byte, b []byte) int {
	switch typ {
	case typeDouble, 0x09, typeTimestamp, 0x12:
		return 8
	case typeString, 0x0D, 0x0E:
		return prefixed(b, 4, 1)
	case typeDocument, typeArray, 0x0F:
		return prefixed(b, 0, 5)
	case 0x05:
		return prefixed(b, 5, 0)
	case 0x06, 0x0A, 0xFF, 0x7F:
		return 0
	case 0x07:
		return 12
	case 0x08:
		return 1
	case 0x0B:
		first := bytes.IndexByte(b, 0)
		if first < 0 {
			return -1
		}
		second := bytes.IndexByte(b[first+1:], 0)
		if second < 0 {
			return -1
		}
		return first + second + 2
	case 0x0C:
		return prefixed(b, 16, 1)
	case 0x10:
		return 4
	case 0x13:
		return 16
	}
	return -1
}

// prefixed reads a length that does not count extra bytes; least is the smallest legal one.
func prefixed(b []byte, extra, least int) int {
	if len(b) < 4 {
		return -1
	}
	n := int(int32(binary.LittleEndian.Uint32(b)))
	if n < least {
		return -1
	}
	return n + extra
}

// identity returns the type and value of the _id of doc: zero and nil when it has none.
func identity(doc []byte) (typ byte, value []byte, err error) {
	err = walk(doc, func(e element) bool {
		if string(e.name) == "_id" {
			typ, value = e.typ, doc[e.value:e.end]
			return false
		}
		return true
	})
	return typ, value, err
}

// lookup returns the first element of that name.
func lookup(doc []byte, name string) (element, bool) {
	var found element
	ok := false
	// A document that does not parse has no such element.
	_ = walk(doc, func(e element) bool {
		ok = string(e.name) == name
		found = e
		return !ok
	})
	return found, ok
}

// setPlaceholders changes every top-level Timestamp(0,0) of doc, other than _id, to Timestamp(0,1) in place, because the
// server would put the current time there. It returns where their names are; each value follows its name's end.
func setPlaceholders(doc []byte) (names []span) {
	if bytes.IndexByte(doc, typeTimestamp) < 0 {
		return nil
	}
	// A document that does not parse is refused by the server.
	_ = walk(doc, func(e element) bool {
		if e.typ == typeTimestamp && string(e.name) != "_id" && binary.LittleEndian.Uint64(doc[e.value:e.end]) == 0 {
			doc[e.value] = 1
			names = append(names, span{e.at + 1, e.value - 1})
		}
		return true
	})
	return names
}

// clearPlaceholders undoes setPlaceholders.
func clearPlaceholders(doc []byte, names []span) {
	for _, n := range names {
		doc[n.to+1] = 0
	}
}

func (e element) btype() bsontype.Type { return bsontype.Type(e.typ) }

// depthMax is deeper than any server nests documents.
const depthMax = 300

// sound reports whether doc is well formed all the way down.
func sound(doc []byte, depth int) bool {
	good := depth < depthMax
	err := walk(doc, func(e element) bool {
		good = good && soundValue(e.typ, doc[e.value:e.end], depth+1)
		return good
	})
	return good && err == nil
}

func soundValue(typ byte, v []byte, depth int) bool {
	switch typ {
	case typeString, 0x0D, 0x0E:
		return v[len(v)-1] == 0
	case typeDocument, typeArray:
		return sound(v, depth)
	case 0x05:
		if v[4] != 2 { // only the old binary type has an inner length
			return true
		}
		inner := valueSize(typeString, v[5:])
		return len(v) == 5 || inner < 0 && len(v) == 9 || inner == len(v)-5
	case 0x08:
		return v[0] < 2
	case 0x0C:
		return v[len(v)-13] == 0
	case 0x0F:
		if len(v) < 14 {
			return false
		}
		n := valueSize(typeString, v[4:])
		return n >= 5 && n <= len(v)-9 && v[3+n] == 0 && sound(v[4+n:], depth)
	}
	return true
}
