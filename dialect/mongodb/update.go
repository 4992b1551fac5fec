package mongodb

import (
	"encoding/binary"
	"fmt"
	"math"
	"slices"
	"sync"

	"github.com/afterimagedb/afterimage"
)

// UpdateOp says what the `o` of an oplog update entry is: OpPut for a whole document, OpPatch for an update that
// [ApplyUpdate] applies, OpUnknown for anything else. As in the server, an `o` with a top-level _id is a document,
// whatever its other names are; otherwise the value of $v decides.
func UpdateOp(o []byte) afterimage.Op {
	if _, ok, err := lookup(o, "_id"); err != nil {
		return afterimage.OpUnknown
	} else if ok {
		return afterimage.OpPut
	}
	u, err := readUpdate(o)
	switch {
	case err != nil:
		return afterimage.OpUnknown
	case u.version == 2, u.modifiers:
		return afterimage.OpPatch
	case u.version == 0:
		return afterimage.OpPut // a document of a collection without _id
	}
	return afterimage.OpUnknown
}

// oplogUpdate is an update as logged, taken apart.
type oplogUpdate struct {
	version   int    // value of $v, 0 if absent
	diff      []byte // $v:2
	modifiers bool   // $v:1: the first name that is not $v begins with $
}

func readUpdate(o []byte) (u oplogUpdate, err error) {
	if err := checkDoc(o); err != nil {
		return u, err
	}
	first := true
	for pos := 4; ; {
		f, ok, err := nextField(o, pos)
		if err != nil {
			return u, err
		}
		if !ok {
			break
		}
		pos = f.end
		name := f.name(o)
		switch {
		case string(name) == "$v":
			u.version = smallInt(f.typ(o), f.val(o))
			continue
		case string(name) == "diff" && f.typ(o) == typeObject:
			u.diff = f.val(o)
		}
		if first {
			u.modifiers = len(name) > 0 && name[0] == '$'
			first = false
		}
	}
	if u.version == 2 && u.diff == nil {
		return u, fmt.Errorf("update of version 2 has no diff")
	}
	if u.version != 0 && u.version != 1 && u.version != 2 {
		return u, fmt.Errorf("update has version %d, known are 1 and 2", u.version)
	}
	if u.version == 1 && first {
		u.modifiers = true // {$v: 1} changes nothing
	}
	return u, nil
}

// smallInt reads a whole number of any numeric type; -1 if it is none.
func smallInt(typ byte, v []byte) int {
	switch typ {
	case typeInt32:
		return int(int32(binary.LittleEndian.Uint32(v)))
	case typeInt64:
		return int(int64(binary.LittleEndian.Uint64(v)))
	case typeDouble:
		if f := math.Float64frombits(binary.LittleEndian.Uint64(v)); f == math.Trunc(f) && math.Abs(f) < 1<<31 {
			return int(f)
		}
	}
	return -1
}

var updaters = sync.Pool{New: func() any { return new(updater) }}

// ApplyUpdate appends to dst the document that the server gets from base by the `o` of an oplog update entry
// ({$v: 2, diff: ...}, or {$v: 1, $set: ..., $unset: ...}). dst must not overlap base or update. A diff that does not
// fit base (a sub-diff of a scalar) sets null or nothing, as in the server, which expects a later entry to mend it.
// On error dst is returned as it was.
func ApplyUpdate(dst, base, update []byte) ([]byte, error) {
	up, _ := updaters.Get().(*updater)
	defer updaters.Put(up)
	return up.apply(dst, base, update)
}

// updater holds the scratch space of an update, so that applying one allocates nothing.
type updater struct {
	mods  []mod
	index []int32
	a, b  []byte // $v:1: the document between two paths
}

func (up *updater) apply(dst, base, update []byte) ([]byte, error) {
	u, err := readUpdate(update)
	if err == nil {
		err = checkDoc(base)
	}
	if err != nil {
		return dst, fmt.Errorf("apply update: %w", err)
	}
	n := len(dst)
	up.mods = up.mods[:0]
	up.index = up.index[:0]
	if u.version == 2 {
		if dst, err = up.object(dst, base, u.diff, 1); err == nil {
			dst, err = up.idFirst(dst, n, base)
		}
	} else {
		dst, err = up.modifiers(dst, base, update)
	}
	if err != nil {
		return dst[:n], fmt.Errorf("apply update: %w", err)
	}
	return dst, nil
}

// idFirst puts the _id of the document at dst[start:] first: a pipeline that moves it logs it as a new field, and the
// server does the same after it has applied the diff. If the diff removed it, that of base stays.
func (up *updater) idFirst(dst []byte, start int, base []byte) ([]byte, error) {
	const idName = "_id\x00"
	if doc := dst[start:]; len(doc) > 9 && string(doc[5:9]) == idName {
		return dst, nil
	}
	doc := dst[start:]
	f, ok, err := lookup(doc, "_id")
	if err != nil {
		return dst, err
	}
	if ok {
		up.a = append(up.a[:0], f.raw(doc)...)
		copy(doc[4+len(up.a):f.end], doc[4:f.start])
		copy(doc[4:], up.a)
		return dst, nil
	}
	if f, ok, err = lookup(base, "_id"); err != nil || !ok {
		return dst, err
	}
	dst = slices.Insert(dst, start+4, f.raw(base)...)
	binary.LittleEndian.PutUint32(dst[start:], uint32(len(dst)-start))
	return dst, nil
}

// ReplacementDocument appends the document that the server stores for a replacement logged as o: _id comes first.
// What is no document is appended as it is.
func ReplacementDocument(dst, o []byte) []byte {
	f, ok, err := lookup(o, "_id")
	if !ok || err != nil || f.start == 4 {
		return append(dst, o...)
	}
	dst = append(dst, o[:4]...)
	dst = append(dst, f.raw(o)...)
	dst = append(dst, o[4:f.start]...)
	return append(dst, o[f.end:]...)
}
