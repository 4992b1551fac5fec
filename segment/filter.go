package segment

import (
	"encoding/binary"
	"math/bits"

	"github.com/zeebo/xxh3"

	"github.com/afterimagedb/afterimage"
)

// A filter tells which rows a row group surely does not hold, so that the history of one row skips most row groups at
// the cost of about 1 KB. It is a split block Bloom filter: blocks of 32 bytes, eight words of 32 bits, one bit of each
// word set per row; at 10.5 bits per row about one in a hundred absent rows passes.
const (
	filterBlock      = 32
	filterBitsPerRow = 10.5
)

// filterSalts spread one hash over the eight words of a block; those of the Parquet specification.
var filterSalts = [8]uint32{
	0x47b6137b, 0x44974d91, 0x8824ad5b, 0xa2b7289d, 0x705495c7, 0x2df1424b, 0x9efc4947, 0x5c6bfb31,
}

// rowHash is the hash of a row's place that filters are built from.
func rowHash(table afterimage.TableID, key []byte) uint64 {
	seed := binary.LittleEndian.Uint64(table[:8]) ^ bits.RotateLeft64(binary.LittleEndian.Uint64(table[8:]), 32)
	return xxh3.HashSeed(key, seed)
}

// appendFilter appends the filter of the rows with these hashes.
func appendFilter(dst []byte, hashes []uint64) []byte {
	blocks := max(1, (int(float64(len(hashes))*filterBitsPerRow)+filterBlock*8-1)/(filterBlock*8))
	start := len(dst)
	dst = append(dst, make([]byte, blocks*filterBlock)...)
	f := dst[start:]
	for _, h := range hashes {
		b := filterBlockOf(f, h)
		for i, salt := range filterSalts {
			bit := uint32(h) * salt >> 27
			binary.LittleEndian.PutUint32(b[4*i:], binary.LittleEndian.Uint32(b[4*i:])|1<<bit)
		}
	}
	return dst
}

// filterHas reports whether the filter may hold the hash. A filter of the wrong size holds everything.
func filterHas(f []byte, h uint64) bool {
	if len(f) == 0 || len(f)%filterBlock != 0 {
		return true
	}
	b := filterBlockOf(f, h)
	for i, salt := range filterSalts {
		bit := uint32(h) * salt >> 27
		if binary.LittleEndian.Uint32(b[4*i:])&(1<<bit) == 0 {
			return false
		}
	}
	return true
}

// filterBlockOf picks the block by the high half of the hash.
func filterBlockOf(f []byte, h uint64) []byte {
	n := uint64(len(f) / filterBlock)
	i := (h >> 32) * n >> 32
	return f[i*filterBlock : (i+1)*filterBlock]
}
