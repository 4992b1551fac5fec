package segment

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"slices"

	"github.com/klauspost/compress/zstd"
	"github.com/zeebo/xxh3"

	"github.com/afterimagedb/afterimage"
)

// chunk says how to read one column of a row group without the Parquet footer.
type chunk struct {
	constant []byte // the value that all rows share (PLAIN); nil when there is a page
	offset   int64  // of the page's compressed values, from the row group's start
	stored   int64  // compressed bytes
	raw      int64  // uncompressed bytes: PLAIN values
}

// group describes one row group.
type group struct {
	rows    int64
	offset  int64 // in the object
	length  int64
	sum     uint64 // XXH3-64 of the stored bytes
	minTime afterimage.Time
	maxTime afterimage.Time
	first   afterimage.Bound
	chunks  [numColumns]chunk

	filterOffset int64 // from the end of the index section
	filterLength int64
	filterSum    uint64
}

const (
	indexMagic  = "AFIX"
	indexHeader = 4 + 4 + 8 + 8 // magic, version, uncompressed length, sum of what follows the header
)

// encodeIndex builds the index section of the object.
func encodeIndex(groups []group) ([]byte, error) {
	raw := binary.AppendUvarint(nil, uint64(len(groups)))
	for i := range groups {
		raw = groups[i].append(raw)
	}
	enc, err := getEncoder(effortMid)
	if err != nil {
		return nil, err
	}
	defer putEncoder(effortMid, enc)
	out := make([]byte, indexHeader, indexHeader+len(raw)/2)
	out = enc.EncodeAll(raw, out)
	copy(out, indexMagic)
	binary.LittleEndian.PutUint32(out[4:], FormatVersion)
	binary.LittleEndian.PutUint64(out[8:], uint64(len(raw)))
	binary.LittleEndian.PutUint64(out[16:], xxh3.Hash(out[indexHeader:]))
	return out, nil
}

func (g *group) append(b []byte) []byte {
	for _, v := range []int64{g.rows, g.offset, g.length} {
		b = binary.AppendUvarint(b, uint64(v))
	}
	b = binary.LittleEndian.AppendUint64(b, g.sum)
	b = binary.AppendUvarint(b, uint64(g.minTime))
	b = binary.AppendUvarint(b, uint64(g.maxTime))
	b = append(b, g.first.Table[:]...)
	b = binary.AppendUvarint(b, uint64(len(g.first.Key)))
	b = append(b, g.first.Key...)
	b = binary.AppendUvarint(b, uint64(g.filterOffset))
	b = binary.AppendUvarint(b, uint64(g.filterLength))
	b = binary.LittleEndian.AppendUint64(b, g.filterSum)
	for i := range g.chunks {
		c := &g.chunks[i]
		if c.constant != nil {
			b = append(append(b, 0), c.constant...)
			continue
		}
		b = append(b, 1)
		for _, v := range []int64{c.offset, c.stored, c.raw} {
			b = binary.AppendUvarint(b, uint64(v))
		}
	}
	return b
}

// decodeIndex reads the index section of the segment m: row groups lie before it, filters behind.
func decodeIndex(section []byte, m *Meta, dec *zstd.Decoder) ([]group, error) {
	if len(section) < indexHeader || string(section[:4]) != indexMagic {
		return nil, errors.New("the key index is not where the segment's description says")
	}
	if v := binary.LittleEndian.Uint32(section[4:]); v != FormatVersion {
		return nil, fmt.Errorf("the key index has format version %d, this program reads %d: use a newer afterimage", v, FormatVersion)
	}
	if got, want := xxh3.Hash(section[indexHeader:]), binary.LittleEndian.Uint64(section[16:]); got != want {
		return nil, fmt.Errorf("the key index is damaged: checksum %016x, stored %016x", got, want)
	}
	n := binary.LittleEndian.Uint64(section[8:])
	if n > pageBytesMax {
		return nil, fmt.Errorf("the key index claims %d bytes uncompressed", n)
	}
	raw, err := inflate(dec, nil, section[indexHeader:], int(n))
	if err != nil {
		return nil, fmt.Errorf("the key index is damaged: %w", err)
	}
	groups, err := parseIndex(raw, m)
	if err != nil {
		return nil, fmt.Errorf("the key index is damaged: %w", err)
	}
	return groups, nil
}

// parseIndex reads the index's payload. First keys alias raw.
func parseIndex(raw []byte, m *Meta) ([]group, error) {
	c := &cursor{b: raw}
	n := c.size()
	if n > int64(len(raw)) {
		return nil, fmt.Errorf("claims %d row groups in %d bytes", n, len(raw))
	}
	groups := make([]group, 0, min(n, 1<<16))
	for i := range n {
		g := c.group()
		if c.failed {
			return nil, fmt.Errorf("row group %d: cut off or out of range", i)
		}
		if err := g.check(m); err != nil {
			return nil, fmt.Errorf("row group %d: %w", i, err)
		}
		if i > 0 {
			p := &groups[i-1]
			if g.first.Compare(p.first) < 0 || g.offset != p.offset+p.length {
				return nil, fmt.Errorf("row group %d: does not follow the one before it", i)
			}
		}
		groups = append(groups, g)
	}
	if len(c.b) != 0 {
		return nil, fmt.Errorf("%d bytes too long", len(c.b))
	}
	return groups, nil
}

// check keeps later arithmetic within bounds.
func (g *group) check(m *Meta) error {
	inside := func(offset, length, end int64) bool { return offset <= end && length <= end-offset }
	if g.rows == 0 || g.rows > math.MaxInt32 || g.minTime > g.maxTime || !inside(g.offset, g.length, m.Index.Offset) ||
		!inside(g.filterOffset, g.filterLength, m.Bytes-m.Index.Offset-m.Index.Length) {
		return errors.New("impossible counts, times or places")
	}
	for i := range g.chunks {
		c := &g.chunks[i]
		if c.constant != nil {
			continue
		}
		if c.offset > g.length || c.stored > g.length-c.offset || c.raw > pageBytesMax {
			return fmt.Errorf("column %d lies outside", i)
		}
		if w := int64(widths[i]); w != 0 && c.raw != w*g.rows {
			return fmt.Errorf("column %d has %d bytes for %d rows", i, c.raw, g.rows)
		}
	}
	return nil
}

// cursor reads the index's payload; once it failed, everything it returns is zero.
type cursor struct {
	b      []byte
	failed bool
}

func (c *cursor) uvarint() uint64 {
	v, n := binary.Uvarint(c.b)
	if n <= 0 {
		c.b, c.failed = nil, true
		return 0
	}
	c.b = c.b[n:]
	return v
}

func (c *cursor) size() int64 {
	v := c.uvarint()
	if v > math.MaxInt64 {
		c.b, c.failed = nil, true
		return 0
	}
	return int64(v)
}

func (c *cursor) bytes(n int64) []byte {
	if n > int64(len(c.b)) {
		c.b, c.failed = nil, true
		return nil
	}
	v := c.b[:n:n]
	c.b = c.b[n:]
	return v
}

func (c *cursor) fixed64() uint64 {
	if v := c.bytes(8); v != nil {
		return binary.LittleEndian.Uint64(v)
	}
	return 0
}

func (c *cursor) group() group {
	g := group{rows: c.size(), offset: c.size(), length: c.size(), sum: c.fixed64()}
	g.minTime, g.maxTime = afterimage.Time(c.uvarint()), afterimage.Time(c.uvarint())
	copy(g.first.Table[:], c.bytes(16))
	g.first.Key = c.bytes(c.size())
	g.filterOffset, g.filterLength, g.filterSum = c.size(), c.size(), c.fixed64()
	for i := range g.chunks {
		k := c.bytes(1)
		switch {
		case k == nil:
		case k[0] == 0 && widths[i] != 0:
			g.chunks[i].constant = c.bytes(int64(widths[i]))
		case k[0] == 1:
			g.chunks[i] = chunk{offset: c.size(), stored: c.size(), raw: c.size()}
		default:
			c.b, c.failed = nil, true
		}
	}
	return g
}

// span returns the row groups that may hold rows of r: [from, to).
func span(groups []group, r afterimage.Range) (from, to int) {
	// The last group that begins at or before r.From may reach into r, and so may those before it that begin at the same
	// place; a group that begins exactly at r.From may follow one that ends there.
	from, _ = slices.BinarySearchFunc(groups, r.From, func(g group, b afterimage.Bound) int { return g.first.Compare(b) })
	from = max(0, from-1)
	to = len(groups)
	if !r.Open() {
		to, _ = slices.BinarySearchFunc(groups, r.To, func(g group, b afterimage.Bound) int { return g.first.Compare(b) })
	}
	return from, max(from, to)
}
