package mongodb

import (
	"bytes"
	"fmt"
	"slices"
	"strconv"
)

// Updates of version 1: {$set: {"a.b": v, ...}, $unset: {"a.0": true, ...}}, with dotted paths. Servers up to 4.4 log
// them.

// pathMod is one path of $set or $unset; value is nil for $unset.
type pathMod struct {
	path  []byte
	typ   byte
	value []byte
	unset bool
}

// modifiers appends base with $set and $unset applied, path by path.
func (up *updater) modifiers(dst, base, update []byte) ([]byte, error) {
	paths, err := readModifiers(update)
	if err != nil {
		return dst, err
	}
	doc := base
	for i := range paths {
		out, err := setPath(up.a[:0], doc, paths[i].path, &paths[i], 1)
		if err != nil {
			return dst, err
		}
		up.a = out
		up.a, up.b = up.b, up.a
		doc = up.b
	}
	return append(dst, doc...), nil
}

func readModifiers(update []byte) ([]pathMod, error) {
	var paths []pathMod
	for pos := 4; ; {
		f, ok, err := nextField(update, pos)
		if err != nil {
			return nil, err
		}
		if !ok {
			break
		}
		pos = f.end
		name, doc := string(f.name(update)), f.val(update)
		if name == "$v" {
			continue
		}
		if name != "$set" && name != "$unset" || f.typ(update) != typeObject {
			return nil, fmt.Errorf("update of version 1 has a modifier %q, known are $set and $unset", name)
		}
		if err := checkDoc(doc); err != nil {
			return nil, err
		}
		for p := 4; ; {
			e, ok, err := nextField(doc, p)
			if err != nil {
				return nil, err
			}
			if !ok {
				break
			}
			paths = append(paths, pathMod{path: e.name(doc), typ: e.typ(doc), value: e.val(doc), unset: name == "$unset"})
			p = e.end
		}
	}
	sortPaths(paths)
	return paths, nil
}

// sortPaths puts the paths in the order in which the server creates new fields. What a server itself logs is in that
// order, which is by bytes up to 4.4 and with array indexes as numbers from 5.0 on; only an applyOps of a user can
// come in another one.
func sortPaths(paths []pathMod) {
	logged := func(cmp func(a, b []byte) int) bool {
		var last []byte
		var seen bool
		for i := range paths {
			if paths[i].unset {
				continue
			}
			if seen && comparePaths(last, paths[i].path, cmp) > 0 {
				return false
			}
			last, seen = paths[i].path, true
		}
		return true
	}
	if !logged(bytes.Compare) && !logged(compareParts) {
		slices.SortStableFunc(paths, func(a, b pathMod) int { return comparePaths(a.path, b.path, compareParts) })
	}
}

func comparePaths(a, b []byte, cmp func(a, b []byte) int) int {
	for {
		x, restA, moreA := bytes.Cut(a, []byte{'.'})
		y, restB, moreB := bytes.Cut(b, []byte{'.'})
		if n := cmp(x, y); n != 0 {
			return n
		}
		if !moreA || !moreB {
			return len(restA) - len(restB)
		}
		a, b = restA, restB
	}
}

func compareParts(a, b []byte) int {
	x, y := parseIndex(a), parseIndex(b)
	if x >= 0 && y >= 0 && x != y {
		return x - y
	}
	return bytes.Compare(a, b)
}

// setPath appends doc with one path set or unset. A path through a scalar changes nothing, as in the server when it
// applies an oplog: a later entry replaces the scalar's parent.
func setPath(dst, doc, path []byte, m *pathMod, depth int) ([]byte, error) {
	if depth > depthMax {
		return dst, errTooDeep
	}
	part, rest, more := bytes.Cut(path, []byte{'.'})
	start := len(dst)
	end := len(doc) - 1
	for pos := 4; pos < end; {
		f, _, err := nextField(doc, pos)
		if err != nil {
			return dst, err
		}
		pos = f.end
		if !bytes.Equal(f.name(doc), part) {
			continue
		}
		dst = append(dst, doc[:f.start]...)
		if dst, err = setElement(dst, part, f.typ(doc), f.val(doc), rest, more, m, depth); err != nil {
			return dst, err
		}
		dst = append(dst, doc[f.end:end]...)
		return endDoc(dst, start), nil
	}
	dst = append(dst, doc[:end]...)
	if !m.unset {
		dst = createPath(dst, part, rest, more, m)
	}
	return endDoc(dst, start), nil
}

// setElement appends an existing element with the rest of the path applied to it.
func setElement(dst, name []byte, typ byte, value, rest []byte, more bool, m *pathMod, depth int) ([]byte, error) {
	switch {
	case !more && m.unset:
		return dst, nil
	case !more:
		return appendField(dst, m.typ, name, m.value), nil
	case typ == typeObject:
		return setPath(appendField(dst, typ, name, nil), value, rest, m, depth+1)
	case typ == typeArray:
		return setInArray(appendField(dst, typ, name, nil), value, rest, m, depth+1)
	}
	return appendField(dst, typ, name, value), nil
}

// setInArray appends an array with a path applied that begins with an index.
func setInArray(dst, array, path []byte, m *pathMod, depth int) ([]byte, error) {
	if depth > depthMax {
		return dst, errTooDeep
	}
	part, rest, more := bytes.Cut(path, []byte{'.'})
	target := parseIndex(part)
	if target < 0 {
		return append(dst, array...), nil
	}
	start, end, idx := len(dst), len(array)-1, 0
	var number [20]byte
	for pos := 4; pos < end; idx++ {
		f, _, err := nextField(array, pos)
		if err != nil {
			return dst, err
		}
		pos = f.end
		if idx != target {
			continue
		}
		inPlace := !more && !m.unset && len(m.value) == len(f.val(array))
		if dst, err = appendNumbered(dst, array, 0, f.start, 0, !inPlace); err != nil {
			return dst, err
		}
		name := f.name(array)
		if !inPlace {
			name = strconv.AppendUint(number[:0], uint64(idx), 10)
		}
		if !more && m.unset {
			dst = appendField(dst, typeNull, name, nil)
		} else if dst, err = setElement(dst, name, f.typ(array), f.val(array), rest, more, m, depth); err != nil {
			return dst, err
		}
		if dst, err = appendNumbered(dst, array, f.end, end, idx+1, !inPlace); err != nil {
			return dst, err
		}
		return endDoc(dst, start), nil
	}
	if m.unset {
		return append(dst, array...), nil
	}
	dst, err := appendNumbered(dst, array, 0, end, 0, true)
	if err != nil {
		return dst, err
	}
	for ; idx < target; idx++ {
		if len(dst)-start > documentMax {
			return dst, fmt.Errorf("update grows an array beyond %d bytes", documentMax)
		}
		dst = appendField(dst, typeNull, strconv.AppendUint(number[:0], uint64(idx), 10), nil)
	}
	dst = createPath(dst, strconv.AppendUint(number[:0], uint64(target), 10), rest, more, m)
	return endDoc(dst, start), nil
}

// appendNumbered appends the bytes [from, to) of an array whose elements count from idx, numbered anew if asked: the
// server does that to an array that it can't change in place, whatever the names of its elements were.
func appendNumbered(dst, array []byte, from, to, idx int, anew bool) ([]byte, error) {
	if !anew {
		return append(dst, array[from:to]...), nil
	}
	if from == 0 {
		dst, from = append(dst, array[:4]...), 4
	}
	var number [20]byte
	for from < to {
		f, _, err := nextField(array, from)
		if err != nil {
			return dst, err
		}
		dst = appendField(dst, f.typ(array), strconv.AppendUint(number[:0], uint64(idx), 10), f.val(array))
		from, idx = f.end, idx+1
	}
	return dst, nil
}

// createPath appends an element called name: the value of m, inside one document for each part of rest.
func createPath(dst, name, rest []byte, more bool, m *pathMod) []byte {
	if !more {
		return appendField(dst, m.typ, name, m.value)
	}
	dst = appendField(dst, typeObject, name, nil)
	start := len(dst)
	part, rest, more := bytes.Cut(rest, []byte{'.'})
	return endDoc(createPath(beginDoc(dst), part, rest, more, m), start)
}
