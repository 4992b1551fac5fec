package mongodb

import (
	"bytes"
	"iter"
	"slices"
)

// rowBuffer gathers the rows of a range, in memory that is used again.
type rowBuffer struct {
	mem  []byte
	rows []rowAt
	base uint32 // ordinal of the first row
	mess bool   // some row came before one with a smaller key
}

// rowAt is where a row lies in the memory.
type rowAt struct {
	key, body, end int
	ordinal        uint32
}

// row is one row of a range. Its slices are valid until the next reset.
type row struct {
	key, body []byte
	ordinal   uint32 // place in the order of reading
}

func (b *rowBuffer) reset() { b.mem, b.rows, b.mess, b.base = b.mem[:0], b.rows[:0], false, 0 }

// next empties the buffer; ordinals count on.
func (b *rowBuffer) next() {
	n := b.base + uint32(len(b.rows))
	b.reset()
	b.base = n
}

// size is the number of bytes held.
func (b *rowBuffer) size() int64 { return int64(len(b.mem)) }

func (b *rowBuffer) at(i int) row {
	r := b.rows[i]
	return row{key: b.mem[r.key:r.body], body: b.mem[r.body:r.end], ordinal: r.ordinal}
}

// lastKey is the key of the row added last, nil if there is none.
func (b *rowBuffer) lastKey() []byte {
	if len(b.rows) == 0 {
		return nil
	}
	return b.at(len(b.rows) - 1).key
}

// add copies a row.
func (b *rowBuffer) add(key, body []byte) {
	at := len(b.mem)
	b.mem = append(append(b.mem, key...), body...)
	b.push(at, at+len(key))
}

// push adds the row whose key lies at [key, body) and whose body reaches to the end of the memory.
func (b *rowBuffer) push(key, body int) {
	if !b.mess && len(b.rows) > 0 && bytes.Compare(b.lastKey(), b.mem[key:body]) >= 0 {
		b.mess = true
	}
	b.rows = append(b.rows, rowAt{key: key, body: body, end: len(b.mem), ordinal: b.base + uint32(len(b.rows))})
}

// sorted yields the rows by key. Of rows with one key the last one read counts: it was read later.
func (b *rowBuffer) sorted() iter.Seq[row] {
	return func(yield func(row) bool) {
		if b.mess {
			slices.SortFunc(b.rows, func(x, y rowAt) int {
				if n := bytes.Compare(b.mem[x.key:x.body], b.mem[y.key:y.body]); n != 0 {
					return n
				}
				return int(int64(x.ordinal) - int64(y.ordinal))
			})
		}
		for i := range b.rows {
			r := b.at(i)
			if b.mess && i+1 < len(b.rows) && bytes.Equal(r.key, b.at(i+1).key) {
				continue
			}
			if !yield(r) {
				return
			}
		}
	}
}
