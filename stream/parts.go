package stream

import (
	"encoding/binary"

	"github.com/zeebo/xxh3"
)

const (
	partMagic = "AIP\x01"
	// partHead is the size of what stands before a part's bytes: magic, checksum, k, n, identity of the batch.
	partHead = headSize + 4 + 4 + 8
	// encodedBytesMax bounds what is gathered from parts: a body that did not compress, with room for the header.
	encodedBytesMax = BodyBytesMax + 1<<20
	// partsMax bounds n; at the smallest message size in use (64 KB) an encoded batch has fewer.
	partsMax = 2048
)

// part is one message of a batch: the whole of it when n is 1.
type part struct {
	k, n uint32 // k counts from 1
	id   uint64 // identity of the batch: its checksum
	data []byte // the encoded batch, or the k-th piece of it
}

// parsePart reads a message. A piece is checked here; a whole batch is checked when it is decoded.
func parsePart(msg []byte) (part, error) {
	if len(msg) <= headSize {
		return part{}, corrupt("a message of %d bytes is too short", len(msg))
	}
	if string(msg[:len(partMagic)]) != partMagic {
		return part{k: 1, n: 1, id: batchSum(msg), data: msg}, nil
	}
	if len(msg) <= partHead {
		return part{}, corrupt("a part of %d bytes is too short", len(msg))
	}
	if xxh3.Hash(msg[headSize:]) != batchSum(msg) {
		return part{}, corrupt("the checksum of a part does not match")
	}
	p := part{
		k:    binary.LittleEndian.Uint32(msg[headSize:]),
		n:    binary.LittleEndian.Uint32(msg[headSize+4:]),
		id:   binary.LittleEndian.Uint64(msg[headSize+8:]),
		data: msg[partHead:],
	}
	if p.k == 0 || p.k > p.n || p.n < 2 || p.n > partsMax {
		return part{}, corrupt("part %d of %d", p.k, p.n)
	}
	return p, nil
}

// partCount says how many messages of at most limit bytes the encoded batch takes.
func partCount(encoded []byte, limit int) int {
	if len(encoded) <= limit {
		return 1
	}
	piece := limit - partHead
	return (len(encoded) + piece - 1) / piece
}

// appendPart appends message k of n (k counts from 1) of an encoded batch to dst.
func appendPart(dst, encoded []byte, k, n, limit int) []byte {
	if n == 1 {
		return append(dst, encoded...)
	}
	piece := limit - partHead
	at := (k - 1) * piece
	start := len(dst)
	dst = append(dst, partMagic...)
	dst = append(dst, make([]byte, 8)...)
	dst = binary.LittleEndian.AppendUint32(dst, uint32(k))
	dst = binary.LittleEndian.AppendUint32(dst, uint32(n))
	dst = binary.LittleEndian.AppendUint64(dst, batchSum(encoded))
	dst = append(dst, encoded[at:min(at+piece, len(encoded))]...)
	binary.LittleEndian.PutUint64(dst[start+len(partMagic):], xxh3.Hash(dst[start+headSize:]))
	return dst
}

// gatherer puts parts together again.
type gatherer struct {
	next uint32 // the k that goes on with what is gathered; 0 when nothing is
	n    uint32
	id   uint64
	seq  uint64 // sequence of the last part
	buf  []byte
}

// add takes the message with stream sequence seq and returns the encoded batch that it completes, or nil. A piece that
// does not go on with what was gathered drops that: its publisher died or was fenced in the middle.
func (g *gatherer) add(msg []byte, seq uint64) ([]byte, error) {
	p, err := parsePart(msg)
	if err != nil {
		g.next = 0
		return nil, err
	}
	if p.n == 1 {
		g.next = 0
		return p.data, nil
	}
	switch {
	case p.k == 1:
		g.next, g.n, g.id, g.buf = 1, p.n, p.id, g.buf[:0]
	case g.next != p.k || g.n != p.n || g.id != p.id || seq != g.seq+1:
		g.next = 0
		return nil, nil
	}
	if len(g.buf)+len(p.data) > encodedBytesMax {
		g.next = 0
		return nil, corrupt("its parts hold more than %d bytes", encodedBytesMax)
	}
	g.buf = append(g.buf, p.data...)
	g.next, g.seq = p.k+1, seq
	if p.k < p.n {
		return nil, nil
	}
	g.next = 0
	return g.buf, nil
}
