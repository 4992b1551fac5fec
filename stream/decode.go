package stream

import (
	"encoding/binary"
	"fmt"
	"math"

	"github.com/klauspost/compress/s2"
	"github.com/zeebo/xxh3"

	"github.com/afterimagedb/afterimage"
)

// Decoder decodes batches and reuses its memory. Not safe for concurrent use.
type Decoder struct {
	body   []byte
	tables []afterimage.TableID
	batch  afterimage.Batch
}

// DecodeBatch decodes an encoded batch; the result belongs to the caller, except that keys and bodies of a batch that
// was stored uncompressed point into msg.
func DecodeBatch(msg []byte) (*afterimage.Batch, error) {
	var d Decoder
	return d.Decode(msg)
}

// Decode decodes an encoded batch. The result, with all it points to, is valid until the next call and while msg is
// not changed. Errors are [ErrCorrupt].
func (d *Decoder) Decode(msg []byte) (*afterimage.Batch, error) {
	in, flags, err := openBatch(msg)
	if err != nil {
		return nil, err
	}
	b := &d.batch
	in.header(&b.BatchHeader)
	notes, changes, size := in.uvarint(), in.uvarint(), in.uvarint()
	switch {
	case in.bad:
		return nil, corrupt("the header is cut off")
	case size > BodyBytesMax:
		return nil, corrupt("the body claims %d bytes", size)
	case notes > NotesMax || changes > ChangesMax || changes*minChangeSize > size:
		return nil, corrupt("%d notes and %d changes can't be in %d bytes", notes, changes, size)
	}
	body, err := d.unpack(in.p, int(size), flags)
	if err != nil {
		return nil, err
	}
	if err := d.readBody(body, int(notes), int(changes)); err != nil {
		return nil, err
	}
	return b, nil
}

// decodeHeader reads the header only.
func decodeHeader(msg []byte) (afterimage.BatchHeader, error) {
	var h afterimage.BatchHeader
	in, _, err := openBatch(msg)
	if err != nil {
		return h, err
	}
	in.header(&h)
	if in.bad {
		return h, corrupt("the header is cut off")
	}
	return h, nil
}

// openBatch checks magic and checksum and returns what follows the flags.
func openBatch(msg []byte) (cursor, byte, error) {
	if len(msg) <= headSize {
		return cursor{}, 0, corrupt("%d bytes are too few", len(msg))
	}
	if string(msg[:len(batchMagic)]) != batchMagic {
		return cursor{}, 0, corrupt("magic and version are %q, want %q", msg[:len(batchMagic)], batchMagic)
	}
	if xxh3.Hash(msg[headSize:]) != batchSum(msg) {
		return cursor{}, 0, corrupt("the checksum does not match")
	}
	flags := msg[headSize]
	if flags&^flagS2 != 0 {
		return cursor{}, 0, corrupt("flags %#x are not known", flags)
	}
	return cursor{p: msg[headSize+1:]}, flags, nil
}

// batchSum returns the checksum field, which also serves as the identity of the encoded batch.
func batchSum(msg []byte) uint64 { return binary.LittleEndian.Uint64(msg[len(batchMagic):]) }

func (d *Decoder) unpack(p []byte, size int, flags byte) ([]byte, error) {
	if flags&flagS2 == 0 {
		if len(p) != size {
			return nil, corrupt("the body has %d bytes, the header says %d", len(p), size)
		}
		return p, nil
	}
	if n, err := s2.DecodedLen(p); err != nil || n != size {
		return nil, corrupt("the compressed body does not hold %d bytes", size)
	}
	if cap(d.body) < size {
		d.body = make([]byte, size)
	}
	body, err := s2.Decode(d.body[:cap(d.body)], p)
	if err != nil {
		return nil, corrupt("body: %v", err)
	}
	return body, nil
}

func (d *Decoder) readBody(body []byte, notes, changes int) error {
	in := cursor{p: body}
	b := &d.batch
	b.Notes, b.Changes = b.Notes[:0], b.Changes[:0]
	for range notes {
		b.Notes = append(b.Notes, in.bytes())
		if in.bad {
			return corrupt("the notes are cut off")
		}
	}
	tables := in.uvarint()
	if in.bad || tables > uint64(len(in.p)/len(afterimage.TableID{})) {
		return corrupt("the table dictionary is cut off")
	}
	d.tables = d.tables[:0]
	for range tables {
		d.tables = append(d.tables, afterimage.TableID(in.take(len(afterimage.TableID{}))))
	}
	var prev afterimage.Change
	for i := range changes {
		b.Changes = append(b.Changes, afterimage.Change{})
		c := &b.Changes[i]
		if !in.change(c, &prev, d.tables) {
			return corrupt("change %d of %d is damaged", i, changes)
		}
		prev = *c
	}
	if len(in.p) != 0 {
		return corrupt("%d bytes after the last change", len(in.p))
	}
	return nil
}

// cursor reads from p and remembers that it ran out of it.
type cursor struct {
	p   []byte
	bad bool
}

func (in *cursor) header(h *afterimage.BatchHeader) {
	h.Lane = in.name(h.Lane)
	h.Incarnation = in.name(h.Incarnation)
	h.Epoch = in.uint32()
	for _, p := range [...]*afterimage.Position{&h.From, &h.To, &h.RestartFrom} {
		p.Hi, p.Lo = in.uvarint(), in.uvarint()
	}
	h.Horizon = afterimage.Time(in.uvarint())
}

func (in *cursor) change(c, prev *afterimage.Change, tables []afterimage.TableID) bool {
	head := in.byte()
	c.Op = afterimage.Op(head & headOp)
	c.From = afterimage.Provenance(head >> headFromShift & headFromMask)
	if c.Op > afterimage.OpUnknown || c.Op == 0 || c.From > afterimage.FromLate {
		return false
	}
	c.Time, c.Pos, c.Wall, c.Table = prev.Time, prev.Pos, prev.Wall, prev.Table
	if head&headSameEntry == 0 {
		c.Time = afterimage.Time(in.delta(uint64(prev.Time)))
		c.Pos.Hi = in.delta(uint64(c.Time))
		c.Pos.Lo = in.delta(prev.Pos.Lo)
		c.Wall = int64(in.delta(uint64(prev.Wall)))
	}
	order := in.delta(uint64(prev.Order))
	if order > math.MaxUint32 {
		return false
	}
	c.Order = uint32(order)
	if head&headSameTable == 0 {
		t := in.uvarint()
		if t >= uint64(len(tables)) {
			return false
		}
		c.Table = tables[t]
	}
	if head&headBorn != 0 {
		c.Born.Time = afterimage.Time(in.delta(uint64(c.Time)))
		c.Born.Order = in.uint32()
	}
	c.Key = in.bytes()
	c.Body = in.bytes()
	return !in.bad
}

func (in *cursor) take(n int) []byte {
	if n > len(in.p) {
		in.bad = true
		in.p = nil
		return make([]byte, 0)
	}
	b := in.p[:n:n]
	in.p = in.p[n:]
	return b
}

func (in *cursor) byte() byte {
	if len(in.p) == 0 {
		in.bad = true
		return 0
	}
	b := in.p[0]
	in.p = in.p[1:]
	return b
}

func (in *cursor) uvarint() uint64 {
	v, n := binary.Uvarint(in.p)
	if n <= 0 {
		in.bad = true
		in.p = nil
		return 0
	}
	in.p = in.p[n:]
	return v
}

func (in *cursor) uint32() uint32 {
	v := in.uvarint()
	if v > math.MaxUint32 {
		in.bad = true
		return 0
	}
	return uint32(v)
}

func (in *cursor) delta(base uint64) uint64 {
	v, n := binary.Varint(in.p)
	if n <= 0 {
		in.bad = true
		in.p = nil
		return base
	}
	in.p = in.p[n:]
	return base + uint64(v)
}

func (in *cursor) bytes() []byte {
	n := in.uvarint()
	if n > uint64(len(in.p)) {
		in.bad = true
		in.p = nil
		return nil
	}
	return in.take(int(n))
}

// name reads a string and returns was, without allocating, when it is the same.
func (in *cursor) name(was string) string {
	b := in.bytes()
	if len(b) > nameMax {
		in.bad = true
		return ""
	}
	if string(b) == was {
		return was
	}
	return string(b)
}

func corrupt(format string, args ...any) error {
	return fmt.Errorf("%w: %s", ErrCorrupt, fmt.Sprintf(format, args...))
}
