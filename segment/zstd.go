package segment

import (
	"fmt"
	"sync"

	"github.com/klauspost/compress/zstd"
)

// pageBytesMax bounds what one page may decompress to, and so the size of a row.
const pageBytesMax = 1 << 30

// effort is how hard the writer compresses.
type effort int

const (
	effortLow  effort = iota // about 220 MB of documents per CPU-second: what is merged again soon
	effortMid                // about 185, 8% smaller
	effortHigh               // about 145, 11% smaller: what is kept for long
)

// effortFor spends time where bytes stay: level 0 lives until the next merge, images live for weeks.
func effortFor(k Kind, level int) effort {
	switch {
	case k == Image:
		return effortHigh
	case level > 0:
		return effortMid
	}
	return effortLow
}

// Compressors hold megabytes of tables and are costly to make, so they are pooled for the whole process; they keep no
// state between two uses.
var (
	encoders [effortHigh + 1]sync.Pool
	decoders sync.Pool
)

func getEncoder(e effort) (*zstd.Encoder, error) {
	if enc, ok := encoders[e].Get().(*zstd.Encoder); ok {
		return enc, nil
	}
	level := [...]zstd.EncoderLevel{zstd.SpeedFastest, zstd.SpeedDefault, zstd.SpeedBetterCompression}[e]
	// Zero frames: an empty page must still be a frame, other readers insist on it. No CRC: row groups have a sum.
	// The window is a page: nothing farther away can match, and the default takes 8 to 16 MB for each encoder.
	enc, err := zstd.NewWriter(nil, zstd.WithEncoderConcurrency(1), zstd.WithEncoderLevel(level), zstd.WithWindowSize(RowGroupBytes),
		zstd.WithZeroFrames(true), zstd.WithEncoderCRC(false))
	if err != nil {
		return nil, fmt.Errorf("zstd: %w", err)
	}
	return enc, nil
}

func putEncoder(e effort, enc *zstd.Encoder) { encoders[e].Put(enc) }

func getDecoder() (*zstd.Decoder, error) {
	if dec, ok := decoders.Get().(*zstd.Decoder); ok {
		return dec, nil
	}
	// The cap limit makes a decoder fail rather than allocate more than the index promised.
	dec, err := zstd.NewReader(nil, zstd.WithDecoderConcurrency(1), zstd.WithDecodeAllCapLimit(true),
		zstd.WithDecoderMaxMemory(pageBytesMax))
	if err != nil {
		return nil, fmt.Errorf("zstd: %w", err)
	}
	return dec, nil
}

func putDecoder(dec *zstd.Decoder) { decoders.Put(dec) }

// inflate decompresses src into dst's memory, which grows when it must. The result is exactly n bytes.
func inflate(dec *zstd.Decoder, dst, src []byte, n int) ([]byte, error) {
	if n < 0 || n > pageBytesMax {
		return nil, fmt.Errorf("claims %d bytes uncompressed, the most is %d", n, pageBytesMax)
	}
	if cap(dst) < n {
		dst = make([]byte, 0, n+n/4) // pages are about the same size: leave room for the next
	}
	out, err := dec.DecodeAll(src, dst[:0:n])
	if err != nil {
		return nil, err
	}
	if len(out) != n {
		return nil, fmt.Errorf("decompresses to %d bytes, the index says %d", len(out), n)
	}
	return out, nil
}
