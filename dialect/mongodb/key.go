package mongodb

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"math"

	"github.com/afterimagedb/afterimage"
)

// ErrNoID says that a document has no top-level _id: capped collections made with autoIndexId false and some of local.
// The caller makes the key with [AppendMissingKey].
var ErrNoID = errors.New("document has no _id")

// The first byte of a key: the server's canonical order of types, with room below for rows without _id.
const (
	tagEnd       byte = 0x00 // ends an object or array inside a key
	tagMissing   byte = 0x04
	tagMinKey    byte = 0x08
	tagUndefined byte = 0x10
	tagNull      byte = 0x15
	tagNumber    byte = 0x1A
	tagString    byte = 0x1F // string and symbol
	tagObject    byte = 0x24
	tagArray     byte = 0x29
	tagBinary    byte = 0x2E
	tagObjectID  byte = 0x33
	tagBool      byte = 0x38
	tagDate      byte = 0x3D
	tagTimestamp byte = 0x3F
	tagRegex     byte = 0x42
	tagDBPointer byte = 0x47
	tagCode      byte = 0x4C
	tagCodeScope byte = 0x51
	tagMaxKey    byte = 0xF0
)

// AppendDocKey appends the key of a document, made from its first top-level _id.
// It returns [ErrNoID] and dst unchanged if there is none.
func AppendDocKey(dst, doc []byte) ([]byte, error) {
	// The common case is decided without a walk: the server keeps _id first.
	if len(doc) > 22 && doc[4] == typeObjectID && doc[5] == '_' && doc[6] == 'i' && doc[7] == 'd' && doc[8] == 0 {
		return append(append(dst, tagObjectID), doc[9:21]...), nil
	}
	f, ok, err := lookup(doc, "_id")
	if err != nil {
		return dst, fmt.Errorf("key of document: %w", err)
	}
	if !ok {
		return dst, ErrNoID
	}
	return AppendValueKey(dst, f.typ(doc), f.val(doc))
}

// AppendMissingKey appends the key of a row without _id, told apart by when it was inserted: its commit time and the
// order within it.
func AppendMissingKey(dst []byte, t afterimage.Time, order uint32) []byte {
	dst = binary.BigEndian.AppendUint64(append(dst, tagMissing), uint64(t))
	return binary.BigEndian.AppendUint32(dst, order)
}

// AppendValueKey appends the key of an _id given as a BSON type byte and value.
// Two keys are equal exactly when the server's _id index holds the values to be equal.
func AppendValueKey(dst []byte, typ byte, value []byte) ([]byte, error) {
	if valueLen(typ, value) != len(value) {
		return dst, fmt.Errorf("key of value: %w: type 0x%02x in %d bytes", errMalformed, typ, len(value))
	}
	n := len(dst)
	out, err := appendKey(append(dst, keyTag(typ)), typ, value, 0)
	if err != nil {
		return dst[:n], fmt.Errorf("key of value: %w", err)
	}
	return out, nil
}

func keyTag(typ byte) byte {
	switch typ {
	case typeDouble, typeInt32, typeInt64, typeDecimal:
		return tagNumber
	case typeString, typeSymbol:
		return tagString
	case typeObject:
		return tagObject
	case typeArray:
		return tagArray
	case typeBinary:
		return tagBinary
	case typeUndefined:
		return tagUndefined
	case typeObjectID:
		return tagObjectID
	case typeBool:
		return tagBool
	case typeDate:
		return tagDate
	case typeNull:
		return tagNull
	case typeRegex:
		return tagRegex
	case typeDBPointer:
		return tagDBPointer
	case typeCode:
		return tagCode
	case typeCodeScope:
		return tagCodeScope
	case typeTimestamp:
		return tagTimestamp
	case typeMaxKey:
		return tagMaxKey
	}
	return tagMinKey
}

// appendKey appends what follows the tag. value has passed valueLen.
func appendKey(dst []byte, typ byte, value []byte, depth int) ([]byte, error) {
	switch typ {
	case typeDouble:
		return appendNumber(dst, math.Float64frombits(binary.LittleEndian.Uint64(value))), nil
	case typeInt32:
		return appendNumber(dst, float64(int32(binary.LittleEndian.Uint32(value)))), nil
	case typeInt64:
		return appendInt64(dst, int64(binary.LittleEndian.Uint64(value))), nil
	case typeDecimal:
		return appendDecimal(dst, binary.LittleEndian.Uint64(value[8:]), binary.LittleEndian.Uint64(value)), nil
	case typeString, typeSymbol, typeCode:
		return appendEscaped(dst, stringOf(value)), nil
	case typeObject:
		return appendObject(dst, value, true, depth+1)
	case typeArray:
		// The server's index leaves the names 0, 1, 2, ... of an array out, whatever they are.
		return appendObject(dst, value, false, depth+1)
	case typeBinary:
		dst = binary.BigEndian.AppendUint32(dst, binary.LittleEndian.Uint32(value))
		return append(dst, value[4:]...), nil
	case typeDate:
		return binary.BigEndian.AppendUint64(dst, binary.LittleEndian.Uint64(value)^1<<63), nil
	case typeTimestamp:
		return binary.BigEndian.AppendUint64(dst, binary.LittleEndian.Uint64(value)), nil
	case typeBool:
		if value[0] != 0 {
			return append(dst, 1), nil
		}
		return append(dst, 0), nil
	case typeDBPointer:
		// The server takes the namespace up to its first zero.
		ns, _, _ := bytes.Cut(value[4:len(value)-12], []byte{0})
		return append(append(append(dst, ns...), 0), value[len(value)-12:]...), nil
	case typeCodeScope:
		code := int32At(value[4:])
		return appendObject(appendEscaped(dst, value[8:7+code]), value[8+code:], true, depth+1)
	}
	// ObjectId and regular expression as they are; MinKey, MaxKey, null and undefined have no value.
	return append(dst, value...), nil
}

func appendObject(dst, doc []byte, names bool, depth int) ([]byte, error) {
	if depth > depthMax {
		return dst, errTooDeep
	}
	if err := checkDoc(doc); err != nil {
		return dst, err
	}
	for pos := 4; ; {
		f, ok, err := nextField(doc, pos)
		if err != nil {
			return dst, err
		}
		if !ok {
			return append(dst, tagEnd), nil
		}
		dst = append(dst, keyTag(f.typ(doc)))
		if names {
			dst = append(append(dst, f.name(doc)...), 0)
		}
		if dst, err = appendKey(dst, f.typ(doc), f.val(doc), depth); err != nil {
			return dst, err
		}
		pos = f.end
	}
}

// appendEscaped appends bytes that may hold zeros so that they sort as they are and end by themselves.
func appendEscaped(dst, s []byte) []byte {
	for {
		i := bytes.IndexByte(s, 0)
		if i < 0 {
			return append(append(dst, s...), 0, 0)
		}
		dst = append(append(dst, s[:i]...), 0, 0xFF)
		s = s[i+1:]
	}
}
