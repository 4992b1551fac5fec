package compactor

import (
	"slices"
	"unsafe"

	"github.com/afterimagedb/afterimage"
)

// arenaBlock is the size of the blocks that hold keys and bodies; one larger than a block gets its own.
const arenaBlock = 1 << 20

// changeBytes is what a change and its place in the order take beside its key and body.
const changeBytes = int64(unsafe.Sizeof(afterimage.Change{}) + unsafe.Sizeof((*afterimage.Change)(nil)))

// memtable gathers changes until they are written as level 0. It copies keys and bodies into blocks that it keeps for the
// next round, so gathering does not allocate once warm.
type memtable struct {
	changes []afterimage.Change
	order   []*afterimage.Change
	blocks  [][]byte
	used    int   // blocks in use
	bytes   int64 // held: keys, bodies and the changes themselves
}

func (m *memtable) len() int { return len(m.changes) }

func (m *memtable) add(c *afterimage.Change) {
	d := *c
	d.Key, d.Body = m.copy(c.Key), m.copy(c.Body)
	m.bytes += int64(len(c.Key)+len(c.Body)) + changeBytes
	m.changes = append(m.changes, d)
}

func (m *memtable) copy(b []byte) []byte {
	if len(b) == 0 {
		return nil
	}
	if len(b) > arenaBlock {
		return slices.Clone(b)
	}
	if m.used == 0 || len(m.blocks[m.used-1])+len(b) > arenaBlock {
		if m.used == len(m.blocks) {
			m.blocks = append(m.blocks, make([]byte, 0, arenaBlock))
		}
		m.blocks[m.used] = m.blocks[m.used][:0]
		m.used++
	}
	p := &m.blocks[m.used-1]
	n := len(*p)
	*p = append(*p, b...)
	return (*p)[n:len(*p):len(*p)]
}

// sorted returns the changes in ascending order; valid until reset.
func (m *memtable) sorted() []*afterimage.Change {
	m.order = m.order[:0]
	for i := range m.changes {
		m.order = append(m.order, &m.changes[i])
	}
	slices.SortFunc(m.order, (*afterimage.Change).Compare)
	return m.order
}

func (m *memtable) reset() {
	clear(m.changes)
	m.changes = m.changes[:0]
	m.used = 0
	m.bytes = 0
}
