package stream

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"

	"github.com/klauspost/compress/s2"
	"github.com/zeebo/xxh3"

	"github.com/afterimagedb/afterimage"
)

// Limits of a batch. They bound what a decoder allocates for bytes it can't trust.
const (
	// BodyBytesMax is the largest uncompressed body of a batch.
	BodyBytesMax = 64 << 20
	// ChangesMax is the largest number of changes in a batch.
	ChangesMax = 1 << 20
	// NotesMax is the largest number of notes in a batch.
	NotesMax = 1 << 16
)

const (
	batchMagic = "AIB\x01" // the last byte is the version
	headSize   = 12        // magic and checksum
	flagS2     = 1 << 0
	// compressMin is the body size below which compression isn't tried.
	compressMin = 128
	nameMax     = 1 << 10 // bytes of a lane name or an incarnation
)

// The head byte of a change.
const (
	headOp        = 0x07
	headFromShift = 3
	headFromMask  = 0x03
	headSameEntry = 1 << 5 // time, position and wall clock are those of the change before
	headBorn      = 1 << 6
	headSameTable = 1 << 7
	minChangeSize = 4 // head, order, key length, body length
)

// ErrCorrupt means that bytes are not a batch: damaged, cut off, or of another version.
var ErrCorrupt = errors.New("corrupt batch")

// Encoder encodes batches and reuses its memory. Not safe for concurrent use.
type Encoder struct {
	body   []byte
	tables map[afterimage.TableID]uint64
	order  []afterimage.TableID
}

// EncodeBatch encodes b. See docs/format/batch.md.
func EncodeBatch(b *afterimage.Batch) ([]byte, error) {
	var e Encoder
	return e.Encode(nil, b)
}

// Encode appends the encoding of b to dst. It keeps nothing of b.
func (e *Encoder) Encode(dst []byte, b *afterimage.Batch) ([]byte, error) {
	if len(b.Changes) > ChangesMax || len(b.Notes) > NotesMax {
		return nil, fmt.Errorf("batch of lane %q has %d changes and %d notes: the limits are %d and %d", b.Lane, len(b.Changes), len(b.Notes), ChangesMax, NotesMax)
	}
	if len(b.Lane) > nameMax || len(b.Incarnation) > nameMax {
		return nil, fmt.Errorf("lane name and incarnation must be at most %d bytes", nameMax)
	}
	if err := e.makeBody(b); err != nil {
		return nil, err
	}
	start := len(dst)
	dst = append(dst, batchMagic...)
	dst = append(dst, make([]byte, headSize-len(batchMagic))...)
	flagsAt := len(dst)
	dst = append(dst, 0)
	dst = appendHeader(dst, &b.BatchHeader)
	dst = binary.AppendUvarint(dst, uint64(len(b.Notes)))
	dst = binary.AppendUvarint(dst, uint64(len(b.Changes)))
	dst = binary.AppendUvarint(dst, uint64(len(e.body)))
	dst, packed := appendBody(dst, e.body)
	if packed {
		dst[flagsAt] |= flagS2
	}
	binary.LittleEndian.PutUint64(dst[start+len(batchMagic):], xxh3.Hash(dst[start+headSize:]))
	return dst, nil
}

// appendBody adds body, compressed when that makes it smaller.
func appendBody(dst, body []byte) ([]byte, bool) {
	if len(body) < compressMin {
		return append(dst, body...), false
	}
	n := len(dst)
	need := s2.MaxEncodedLen(len(body))
	if cap(dst)-n < need {
		grown := make([]byte, n, n+need)
		copy(grown, dst)
		dst = grown
	}
	packed := s2.Encode(dst[n:n+need], body)
	if len(packed) >= len(body) {
		return append(dst[:n], body...), false
	}
	return dst[:n+len(packed)], true
}

func appendHeader(dst []byte, h *afterimage.BatchHeader) []byte {
	dst = appendString(dst, h.Lane)
	dst = appendString(dst, h.Incarnation)
	dst = binary.AppendUvarint(dst, uint64(h.Epoch))
	for _, p := range [...]afterimage.Position{h.From, h.To, h.RestartFrom} {
		dst = binary.AppendUvarint(dst, p.Hi)
		dst = binary.AppendUvarint(dst, p.Lo)
	}
	return binary.AppendUvarint(dst, uint64(h.Horizon))
}

// makeBody fills e.body with notes, table dictionary and changes.
func (e *Encoder) makeBody(b *afterimage.Batch) error {
	e.collectTables(b.Changes)
	p := e.body[:0]
	for _, n := range b.Notes {
		p = appendBytes(p, n)
	}
	p = binary.AppendUvarint(p, uint64(len(e.order)))
	for i := range e.order {
		p = append(p, e.order[i][:]...)
	}
	prev := &afterimage.Change{}
	table := uint64(math.MaxUint64)
	for i := range b.Changes {
		c := &b.Changes[i]
		if c.Op > afterimage.OpUnknown || c.Op == 0 || c.From > afterimage.FromLate {
			return fmt.Errorf("change %d of a batch of lane %q: operation %d, provenance %d is not one that the format knows", i, b.Lane, c.Op, c.From)
		}
		t := table
		if i == 0 || c.Table != prev.Table {
			t = e.tables[c.Table]
		}
		p = appendChange(p, c, prev, t, t == table)
		if len(p) > BodyBytesMax {
			break
		}
		table, prev = t, c
	}
	e.body = p
	if len(p) > BodyBytesMax {
		e.body = nil
		return fmt.Errorf("batch of lane %q is larger than %d MB: cut it", b.Lane, BodyBytesMax>>20)
	}
	return nil
}

func (e *Encoder) collectTables(changes []afterimage.Change) {
	if e.tables == nil {
		e.tables = make(map[afterimage.TableID]uint64)
	}
	clear(e.tables)
	e.order = e.order[:0]
	for i := range changes {
		if i > 0 && changes[i].Table == changes[i-1].Table {
			continue
		}
		if _, ok := e.tables[changes[i].Table]; !ok {
			e.tables[changes[i].Table] = uint64(len(e.order))
			e.order = append(e.order, changes[i].Table)
		}
	}
}

func appendChange(p []byte, c, prev *afterimage.Change, table uint64, sameTable bool) []byte {
	head := byte(c.Op) | byte(c.From)<<headFromShift
	same := c.Time == prev.Time && c.Pos == prev.Pos && c.Wall == prev.Wall
	if same {
		head |= headSameEntry
	}
	born := c.Born != (afterimage.Born{})
	if born {
		head |= headBorn
	}
	if sameTable {
		head |= headSameTable
	}
	p = append(p, head)
	if !same {
		p = appendDelta(p, uint64(c.Time), uint64(prev.Time))
		p = appendDelta(p, c.Pos.Hi, uint64(c.Time))
		p = appendDelta(p, c.Pos.Lo, prev.Pos.Lo)
		p = appendDelta(p, uint64(c.Wall), uint64(prev.Wall))
	}
	p = appendDelta(p, uint64(c.Order), uint64(prev.Order))
	if !sameTable {
		p = binary.AppendUvarint(p, table)
	}
	if born {
		p = appendDelta(p, uint64(c.Born.Time), uint64(c.Time))
		p = binary.AppendUvarint(p, uint64(c.Born.Order))
	}
	p = appendBytes(p, c.Key)
	return appendBytes(p, c.Body)
}

// appendDelta adds v-base, modulo 2^64, as a zigzag varint.
func appendDelta(p []byte, v, base uint64) []byte { return binary.AppendVarint(p, int64(v-base)) }

func appendBytes(p, b []byte) []byte {
	return append(binary.AppendUvarint(p, uint64(len(b))), b...)
}

func appendString(p []byte, s string) []byte {
	return append(binary.AppendUvarint(p, uint64(len(s))), s...)
}
