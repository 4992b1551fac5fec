package segment

import (
	"encoding/binary"
	"fmt"

	"github.com/klauspost/compress/zstd"
	"github.com/zeebo/xxh3"

	"github.com/afterimagedb/afterimage"
)

// rows walks the rows of one row group after the other; keys and bodies alias its buffers, which are used again for the
// next group.
type rows struct {
	dec     *zstd.Decoder
	buffers [numColumns][]byte // memory of decompressed pages

	ints   [numColumns]intColumn
	table  []byte // 16 bytes per row, or one for all
	keys   []byte // what is left of the page
	bodies []byte
	n, i   int64 // rows in the group, rows read
}

// intColumn is a fixed-width column: a page of PLAIN values, or one value for all rows.
type intColumn struct {
	page     []byte
	constant uint64
}

func (c *intColumn) u32(i int64) uint32 {
	if c.page == nil {
		return uint32(c.constant)
	}
	return binary.LittleEndian.Uint32(c.page[4*i:])
}

func (c *intColumn) u64(i int64) uint64 {
	if c.page == nil {
		return c.constant
	}
	return binary.LittleEndian.Uint64(c.page[8*i:])
}

// load decodes a row group from its stored bytes, after checking them against their sum: nothing damaged is decoded.
func (r *rows) load(g *group, stored []byte) error {
	if sum := xxh3.Hash(stored); sum != g.sum || int64(len(stored)) != g.length {
		return fmt.Errorf("damaged: checksum %016x of %d bytes, the index says %016x of %d", sum, len(stored), g.sum, g.length)
	}
	for i := range g.chunks {
		c := &g.chunks[i]
		r.ints[i] = intColumn{}
		switch {
		case c.constant == nil:
			page, err := inflate(r.dec, r.buffers[i], stored[c.offset:c.offset+c.stored], int(c.raw))
			if err != nil {
				return fmt.Errorf("column %d: %w", i, err)
			}
			r.buffers[i], r.ints[i].page = page, page
		case widths[i] == 4:
			r.ints[i].constant = uint64(binary.LittleEndian.Uint32(c.constant))
		case widths[i] == 8:
			r.ints[i].constant = binary.LittleEndian.Uint64(c.constant)
		}
	}
	r.table = g.chunks[colTable].constant
	if r.table == nil {
		r.table = r.buffers[colTable]
	}
	r.keys, r.bodies = r.buffers[colKey], r.buffers[colBody]
	r.n, r.i = g.rows, 0
	return nil
}

// next reads the next row into c; the caller checks that there is one.
func (r *rows) next(c *afterimage.Change) error {
	i := r.i
	r.i++
	var ok1, ok2 bool
	c.Key, r.keys, ok1 = takeBytes(r.keys)
	c.Body, r.bodies, ok2 = takeBytes(r.bodies)
	if !ok1 || !ok2 {
		return fmt.Errorf("row %d: key or body reaches past its page", i)
	}
	if len(r.table) == 16 {
		c.Table = afterimage.TableID(r.table)
	} else {
		c.Table = afterimage.TableID(r.table[16*i : 16*i+16])
	}
	c.Time = afterimage.Time(r.ints[colTime].u64(i))
	c.Order = r.ints[colOrder].u32(i)
	c.Born.Time = afterimage.Time(r.ints[colBornTime].u64(i))
	c.Born.Order = r.ints[colBornOrder].u32(i)
	c.Wall = int64(r.ints[colWall].u64(i))
	c.Lane = afterimage.LaneID(r.ints[colLane].u32(i))
	c.Op = afterimage.Op(r.ints[colOp].u32(i))
	c.From = afterimage.Provenance(r.ints[colFrom].u32(i))
	return nil
}

// end checks that the group's pages held its rows and nothing more.
func (r *rows) end() error {
	if len(r.keys) != 0 || len(r.bodies) != 0 {
		return fmt.Errorf("%d bytes of keys and %d of bodies left after %d rows", len(r.keys), len(r.bodies), r.n)
	}
	return nil
}

// takeBytes takes a PLAIN byte array off the page.
func takeBytes(page []byte) (value, rest []byte, ok bool) {
	if len(page) < 4 {
		return nil, nil, false
	}
	n := uint64(binary.LittleEndian.Uint32(page))
	if n > uint64(len(page)-4) {
		return nil, nil, false
	}
	return page[4 : 4+n : 4+n], page[4+n:], true
}
