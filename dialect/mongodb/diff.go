package mongodb

import (
	"fmt"
	"strconv"
)

// documentMax bounds what a patch may grow a document to: four times what a server stores, so that a malformed array
// index can't exhaust memory.
const documentMax = 64 << 20

type modKind uint8

const (
	modDelete modKind = iota
	modUpdate
	modInsert
	modSub
)

// mod is what a diff does to one field.
type mod struct {
	name []byte
	raw  []byte // update, insert: the whole element; sub: the sub-diff
	kind modKind
	used bool // an update that found its field
}

// Above this many modifications of one document fields are looked up by hash. A table is worth its cost only then.
const linearMax = 8

// object appends base with a document diff applied. Its rules are those of the server's diff applier: updated fields
// keep their place, inserted ones go last in the order given even if base has them, updates of fields that base lacks
// go before those.
func (up *updater) object(dst, base, diff []byte, depth int) ([]byte, error) {
	if depth > depthMax {
		return dst, errTooDeep
	}
	firstMod, firstIndex := len(up.mods), len(up.index)
	if err := up.readDiff(diff); err != nil {
		return dst, err
	}
	lastMod := len(up.mods)
	if lastMod-firstMod > linearMax {
		up.buildIndex(firstMod)
	}
	start := len(dst)
	dst = beginDoc(dst)
	end := len(base) - 1
	run := 4 // start of what is still to be copied unchanged
	for pos := 4; pos < end; {
		f, _, err := nextField(base, pos)
		if err != nil {
			return dst, err
		}
		pos = f.end
		i := up.find(f.name(base), firstMod, lastMod, firstIndex)
		if i < 0 {
			continue
		}
		dst = append(dst, base[run:f.start]...)
		run = f.end
		m := &up.mods[i]
		switch m.kind {
		case modUpdate:
			dst = append(dst, m.raw...)
			m.used = true
		case modSub:
			if dst, err = up.sub(dst, f.name(base), f.typ(base), f.val(base), m.raw, depth); err != nil {
				return dst, err
			}
		case modDelete, modInsert:
		}
	}
	dst = append(dst, base[run:end]...)
	for i := firstMod; i < lastMod; i++ {
		if m := &up.mods[i]; m.kind == modInsert || m.kind == modUpdate && !m.used {
			dst = append(dst, m.raw...)
		}
	}
	up.mods, up.index = up.mods[:firstMod], up.index[:firstIndex]
	return endDoc(dst, start), nil
}

// sub appends the element of base called name with a sub-diff applied. Where the diff does not fit the value the server
// puts null.
func (up *updater) sub(dst, name []byte, typ byte, value, diff []byte, depth int) ([]byte, error) {
	array, err := isArrayDiff(diff)
	if err != nil {
		return dst, err
	}
	switch {
	case array && typ == typeArray:
		return up.array(appendField(dst, typeArray, name, nil), value, diff, depth+1)
	case !array && typ == typeObject:
		return up.object(appendField(dst, typeObject, name, nil), value, diff, depth+1)
	}
	return appendField(dst, typeNull, name, nil), nil
}

// isArrayDiff tells the two kinds of diff apart by the name of the first field.
func isArrayDiff(diff []byte) (bool, error) {
	if err := checkDoc(diff); err != nil {
		return false, err
	}
	f, ok, err := nextField(diff, 4)
	if err != nil {
		return false, err
	}
	if !ok {
		return false, fmt.Errorf("diff is empty")
	}
	return string(f.name(diff)) == "a", nil
}

// readDiff puts the modifications of a document diff at the end of up.mods: deletes, updates, inserts, sub-diffs.
func (up *updater) readDiff(diff []byte) error {
	if err := checkDoc(diff); err != nil {
		return err
	}
	last := byte(0)
	for pos := 4; ; {
		f, ok, err := nextField(diff, pos)
		if err != nil || !ok {
			return err
		}
		pos = f.end
		name := f.name(diff)
		if len(name) == 0 || f.typ(diff) != typeObject {
			return fmt.Errorf("diff has a section %q of type 0x%02x", name, f.typ(diff))
		}
		if name[0] == 's' {
			up.mods = append(up.mods, mod{name: name[1:], raw: f.val(diff), kind: modSub})
			last = 's'
			continue
		}
		order := sectionOrder(name)
		if order == 0 || order <= last {
			return fmt.Errorf("diff has an unexpected section %q", name)
		}
		last = order
		if err := up.readSection(f.val(diff), modKind(order-1)); err != nil {
			return err
		}
	}
}

// sectionOrder numbers the sections of single fields in the order in which they must come, 0 for other names.
func sectionOrder(name []byte) byte {
	if len(name) != 1 {
		return 0
	}
	switch name[0] {
	case 'd':
		return byte(modDelete) + 1
	case 'u':
		return byte(modUpdate) + 1
	case 'i':
		return byte(modInsert) + 1
	}
	return 0
}

func (up *updater) readSection(doc []byte, kind modKind) error {
	if err := checkDoc(doc); err != nil {
		return err
	}
	for pos := 4; ; {
		f, ok, err := nextField(doc, pos)
		if err != nil || !ok {
			return err
		}
		up.mods = append(up.mods, mod{name: f.name(doc), raw: f.raw(doc), kind: kind})
		pos = f.end
	}
}

// find returns the place of the modification of a field in up.mods, or -1.
func (up *updater) find(name []byte, first, last, firstIndex int) int {
	if last-first > linearMax {
		table := up.index[firstIndex:]
		for h := hashName(name); ; h++ {
			i := table[h&uint32(len(table)-1)]
			if i < 0 {
				return -1
			}
			if string(up.mods[i].name) == string(name) {
				return int(i)
			}
		}
	}
	mods := up.mods[first:last]
	for i := range mods {
		if string(mods[i].name) == string(name) {
			return first + i
		}
	}
	return -1
}

// buildIndex appends to up.index a hash table of the modifications from first on, at most half full.
func (up *updater) buildIndex(first int) {
	size := 16
	for size < 2*(len(up.mods)-first) {
		size *= 2
	}
	start := len(up.index)
	for range size {
		up.index = append(up.index, -1)
	}
	table := up.index[start:]
	for i := first; i < len(up.mods); i++ {
		h := hashName(up.mods[i].name)
		for table[h&uint32(size-1)] >= 0 {
			h++
		}
		table[h&uint32(size-1)] = int32(i)
	}
}

func hashName(name []byte) uint32 {
	h := uint32(2166136261)
	for _, c := range name {
		h = (h ^ uint32(c)) * 16777619
	}
	return h ^ h>>15
}

// array appends base with an array diff applied. Elements are numbered anew, as the server does.
func (up *updater) array(dst, base, diff []byte, depth int) ([]byte, error) {
	if depth > depthMax {
		return dst, errTooDeep
	}
	next, size, err := readArrayHeader(diff)
	if err != nil {
		return dst, err
	}
	mod, err := next.read()
	if err != nil {
		return dst, err
	}
	start := len(dst)
	dst = beginDoc(dst)
	idx := 0
	var number [20]byte
	for pos, end := 4, len(base)-1; pos < end && (size < 0 || idx < size); idx++ {
		f, _, err := nextField(base, pos)
		if err != nil {
			return dst, err
		}
		pos = f.end
		name := strconv.AppendUint(number[:0], uint64(idx), 10)
		if !mod.ok || mod.idx != idx {
			dst = appendField(dst, f.typ(base), name, f.val(base))
			continue
		}
		if mod.sub {
			dst, err = up.sub(dst, name, f.typ(base), f.val(base), mod.value, depth)
		} else {
			dst = appendField(dst, mod.typ, name, mod.value)
		}
		if err != nil {
			return dst, err
		}
		if mod, err = next.read(); err != nil {
			return dst, err
		}
	}
	for ; mod.ok || idx < size; idx++ {
		if len(dst)-start > documentMax {
			return dst, fmt.Errorf("diff grows an array beyond %d bytes", documentMax)
		}
		name := strconv.AppendUint(number[:0], uint64(idx), 10)
		if !mod.ok || mod.idx != idx {
			dst = appendField(dst, typeNull, name, nil)
			continue
		}
		if mod.sub {
			dst = appendField(dst, typeNull, name, nil)
		} else {
			dst = appendField(dst, mod.typ, name, mod.value)
		}
		if mod, err = next.read(); err != nil {
			return dst, err
		}
	}
	if size >= 0 && idx != size {
		return dst, fmt.Errorf("diff sets element %d of an array that it makes %d long", idx-1, size)
	}
	return endDoc(dst, start), nil
}

// arrayMods reads the modifications of an array diff, which come in rising order.
type arrayMods struct {
	diff []byte
	pos  int
	last int
}

type arrayMod struct {
	ok, sub bool
	typ     byte
	idx     int
	value   []byte
}

// readArrayHeader checks {a: true, l: n, ...}; size is -1 without l.
func readArrayHeader(diff []byte) (next arrayMods, size int, err error) {
	f, ok, err := nextField(diff, 4)
	if err != nil {
		return next, 0, err
	}
	if !ok || string(f.name(diff)) != "a" || f.typ(diff) != typeBool || f.val(diff)[0] == 0 {
		return next, 0, fmt.Errorf("array diff does not begin with a: true")
	}
	next, size = arrayMods{diff: diff, pos: f.end, last: -1}, -1
	l, ok, err := nextField(diff, f.end)
	if err != nil {
		return next, 0, err
	}
	if ok && string(l.name(diff)) == "l" {
		if size = smallInt(l.typ(diff), l.val(diff)); l.typ(diff) != typeInt32 || size < 0 {
			return next, 0, fmt.Errorf("array diff has a length %d", size)
		}
		next.pos = l.end
	}
	return next, size, nil
}

func (m *arrayMods) read() (arrayMod, error) {
	f, ok, err := nextField(m.diff, m.pos)
	if err != nil || !ok {
		return arrayMod{}, err
	}
	name := f.name(m.diff)
	idx := -1
	if len(name) > 1 {
		idx = parseIndex(name[1:])
	}
	sub := idx >= 0 && name[0] == 's'
	if idx <= m.last || !sub && name[0] != 'u' || sub && f.typ(m.diff) != typeObject {
		return arrayMod{}, fmt.Errorf("array diff has an unexpected field %q of type 0x%02x", name, f.typ(m.diff))
	}
	m.pos, m.last = f.end, idx
	return arrayMod{ok: true, sub: sub, typ: f.typ(m.diff), idx: idx, value: f.val(m.diff)}, nil
}

// parseIndex reads a decimal array index, -1 if it is none.
func parseIndex(s []byte) int {
	if len(s) == 0 || len(s) > 9 {
		return -1
	}
	n := 0
	for _, c := range s {
		if c < '0' || c > '9' {
			return -1
		}
		n = n*10 + int(c-'0')
	}
	return n
}
