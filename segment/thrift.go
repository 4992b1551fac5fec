package segment

import (
	"encoding/binary"
	"errors"
)

// errThrift means that a footer is not what the compact protocol allows.
var errThrift = errors.New("not Thrift compact protocol")

// Types of the compact protocol.
const (
	thriftTrue   = 1
	thriftFalse  = 2
	thriftByte   = 3
	thriftI16    = 4
	thriftI32    = 5
	thriftI64    = 6
	thriftDouble = 7
	thriftBinary = 8
	thriftList   = 9
	thriftSet    = 10
	thriftStruct = 12
)

// thriftDepthMax bounds the nesting of a footer; Parquet's own is 5.
const thriftDepthMax = 16

// footerValue finds a value of the footer's key_value_metadata (field 5 of FileMetaData), nil if there is none. We read
// nothing else of the footer, and arrow's reader panics on damaged ones, so this walks just far enough.
func footerValue(footer []byte, key string) ([]byte, error) {
	t := &thrift{b: footer}
	var id int16
	for {
		typ, err := t.field(&id)
		if err != nil || typ == 0 {
			return nil, err
		}
		if id != 5 || typ != thriftList {
			if err := t.skip(typ, thriftDepthMax); err != nil {
				return nil, err
			}
			continue
		}
		elem, n, err := t.list()
		if err != nil || elem != thriftStruct {
			return nil, errThrift
		}
		for range n {
			k, v, err := t.keyValue()
			if err != nil {
				return nil, err
			}
			if string(k) == key {
				return v, nil
			}
		}
	}
}

// thrift reads the compact protocol from b.
type thrift struct{ b []byte }

// keyValue reads a KeyValue struct: field 1 key, field 2 value.
func (t *thrift) keyValue() (key, value []byte, err error) {
	var id int16
	for {
		typ, err := t.field(&id)
		if err != nil || typ == 0 {
			return key, value, err
		}
		if typ != thriftBinary || id != 1 && id != 2 {
			if err := t.skip(typ, thriftDepthMax); err != nil {
				return nil, nil, err
			}
			continue
		}
		v, err := t.binary()
		if err != nil {
			return nil, nil, err
		}
		if id == 1 {
			key = v
		} else {
			value = v
		}
	}
}

// field reads a field header; type 0 ends the struct. id holds the number of the field before.
func (t *thrift) field(id *int16) (typ byte, err error) {
	h, err := t.byte()
	if err != nil || h == 0 {
		return 0, err
	}
	if delta := h >> 4; delta != 0 {
		*id += int16(delta)
		return h & 15, nil
	}
	v, err := t.uvarint()
	*id = int16(v>>1) ^ -int16(v&1)
	return h & 15, err
}

// list reads a list header.
func (t *thrift) list() (elem byte, n uint64, err error) {
	h, err := t.byte()
	if err != nil {
		return 0, 0, err
	}
	if n = uint64(h >> 4); n == 15 {
		n, err = t.uvarint()
	}
	// Every element takes a byte at least.
	if n > uint64(len(t.b)) {
		return 0, 0, errThrift
	}
	return h & 15, n, err
}

// skip steps over a value.
func (t *thrift) skip(typ byte, depth int) error {
	if depth == 0 {
		return errThrift
	}
	var err error
	switch typ {
	case thriftTrue, thriftFalse:
	case thriftByte:
		_, err = t.byte()
	case thriftI16, thriftI32, thriftI64:
		_, err = t.uvarint()
	case thriftDouble:
		_, err = t.bytes(8)
	case thriftBinary:
		_, err = t.binary()
	case thriftList, thriftSet:
		return t.skipList(depth)
	case thriftStruct:
		return t.skipStruct(depth)
	default:
		return errThrift
	}
	return err
}

func (t *thrift) skipList(depth int) error {
	elem, n, err := t.list()
	if err != nil {
		return err
	}
	for range n {
		if elem == thriftTrue || elem == thriftFalse {
			_, err = t.byte()
		} else {
			err = t.skip(elem, depth-1)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func (t *thrift) skipStruct(depth int) error {
	var id int16
	for {
		typ, err := t.field(&id)
		if err != nil || typ == 0 {
			return err
		}
		if err := t.skip(typ, depth-1); err != nil {
			return err
		}
	}
}

func (t *thrift) byte() (byte, error) {
	b, err := t.bytes(1)
	if err != nil {
		return 0, err
	}
	return b[0], nil
}

func (t *thrift) uvarint() (uint64, error) {
	v, n := binary.Uvarint(t.b)
	if n <= 0 {
		return 0, errThrift
	}
	t.b = t.b[n:]
	return v, nil
}

func (t *thrift) binary() ([]byte, error) {
	n, err := t.uvarint()
	if err != nil {
		return nil, err
	}
	return t.bytes(n)
}

func (t *thrift) bytes(n uint64) ([]byte, error) {
	if n > uint64(len(t.b)) {
		return nil, errThrift
	}
	b := t.b[:n]
	t.b = t.b[n:]
	return b, nil
}
