package segment

import (
	"bytes"
	"errors"
	"fmt"
	"math"
	"slices"

	"github.com/apache/arrow/go/v15/arrow/memory"
	"github.com/apache/arrow/go/v15/parquet"
	"github.com/apache/arrow/go/v15/parquet/compress"
	"github.com/apache/arrow/go/v15/parquet/file"
	"github.com/apache/arrow/go/v15/parquet/metadata"
	"github.com/klauspost/compress/zstd"
	"github.com/zeebo/xxh3"

	"github.com/afterimagedb/afterimage"
)

// ErrOrder means that a row does not sort after the one before it.
var ErrOrder = errors.New("rows out of order")

// ErrEmpty means that a segment without rows was closed: there is nothing to store.
var ErrEmpty = errors.New("segment has no rows")

// WriterOptions says what a segment is; the rest of its [Meta] follows from its rows.
type WriterOptions struct {
	ID      string   // NewID when empty
	Kind    Kind     // what it holds
	Level   int      // 0 for changes fresh from the stream; images and higher levels are compressed harder
	Parents []string // ids of the segments it is made from
}

// Writer builds one segment in memory. It is not safe for concurrent use.
type Writer struct {
	meta   Meta
	effort effort
	enc    *zstd.Encoder
	sink   sink
	file   *metadata.FileMetaDataBuilder
	pager  file.PageWriter
	err    error // what made the writer useless

	pages   pages
	current group    // of the rows pending
	hashes  []uint64 // of the distinct rows pending
	scratch []byte

	last    afterimage.Change // place of the last row; its key is ours
	lane    afterimage.LaneID // of the last row, a shortcut
	groups  []group
	filters []byte
	flushed int64 // uncompressed bytes of the row groups written
}

// sinkStepBytes is by how much a large object's buffer grows.
const sinkStepBytes = 16 << 20

// sink is the object as it grows; arrow asks it where it is.
type sink struct{ buf []byte }

func (s *sink) Write(p []byte) (int, error) {
	if cap(s.buf)-len(s.buf) < len(p) {
		// Doubling at first, then in steps: what a large segment copies and what it wastes both stay small.
		s.buf = slices.Grow(s.buf, max(len(p), min(cap(s.buf), sinkStepBytes)))
	}
	s.buf = append(s.buf, p...)
	return len(p), nil
}

func (s *sink) Tell() int64 { return int64(len(s.buf)) }

// parquetMagic begins and ends a Parquet file.
const parquetMagic = "PAR1"

// NewWriter begins a segment.
func NewWriter(o WriterOptions) (*Writer, error) {
	if o.ID == "" {
		o.ID = NewID()
	}
	if o.Kind != Changes && o.Kind != Image {
		return nil, fmt.Errorf("segment %s: unknown kind %q", o.ID, o.Kind)
	}
	sc, err := parquetSchema()
	if err != nil {
		return nil, fmt.Errorf("segment %s: schema: %w", o.ID, err)
	}
	props := parquet.NewWriterProperties(
		parquet.WithVersion(parquet.V2_LATEST),
		parquet.WithDataPageVersion(parquet.DataPageV1),
		parquet.WithCompression(compress.Codecs.Zstd),
		parquet.WithCreatedBy("afterimage"),
		parquet.WithDictionaryDefault(false),
		parquet.WithStats(false),
	)
	w := &Writer{
		meta:   Meta{ID: o.ID, Kind: o.Kind, Level: o.Level, Parents: slices.Clone(o.Parents)},
		effort: effortFor(o.Kind, o.Level),
		file:   metadata.NewFileMetadataBuilder(sc, props, metadata.NewKeyValueMetadata()),
	}
	w.sink.buf = append(w.sink.buf, parquetMagic...)
	if w.enc, err = getEncoder(w.effort); err != nil {
		return nil, err
	}
	return w, nil
}

// Append adds a row, which must sort after the last one (else [ErrOrder]). It keeps nothing of c.
func (w *Writer) Append(c *afterimage.Change) error {
	if w.err != nil {
		return w.err
	}
	size := len(c.Key) + len(c.Body)
	if size > pageBytesMax-RowGroupBytes {
		return fmt.Errorf("segment %s: a row of table %s has %d bytes, the most is %d", w.meta.ID, c.Table, size, pageBytesMax-RowGroupBytes)
	}
	fresh := true // first change of its row
	if w.meta.Rows > 0 {
		n := w.last.Compare(c)
		if n >= 0 {
			return fmt.Errorf("segment %s: %w: %s %x %s/%d after %s %x %s/%d", w.meta.ID, ErrOrder,
				c.Table, c.Key, c.Time, c.Order, w.last.Table, w.last.Key, w.last.Time, w.last.Order)
		}
		fresh = w.last.Table != c.Table || !bytes.Equal(w.last.Key, c.Key)
	}
	if w.current.rows > 0 && w.pending()+size+rowOverhead > RowGroupBytes {
		if err := w.flush(); err != nil {
			w.err = err
			return err
		}
	}
	w.place(c, fresh)
	w.pages.add(c)
	return nil
}

// pending is the uncompressed size in bytes of the rows not yet written.
func (w *Writer) pending() int {
	return len(w.pages[colKey]) + len(w.pages[colBody]) + int(w.current.rows)*rowOverhead
}

// place takes note of where and when a row is.
func (w *Writer) place(c *afterimage.Change, fresh bool) {
	g, m := &w.current, &w.meta
	if g.rows == 0 {
		g.first = afterimage.Bound{Table: c.Table, Key: bytes.Clone(c.Key)}
		g.minTime, g.maxTime = c.Time, c.Time
		fresh = true
	}
	if m.Rows == 0 {
		m.First, m.MinTime, m.MaxTime = g.first, c.Time, c.Time
	}
	if fresh {
		w.hashes = append(w.hashes, rowHash(c.Table, c.Key))
	}
	g.rows++
	g.minTime, g.maxTime = min(g.minTime, c.Time), max(g.maxTime, c.Time)
	m.Rows++
	m.RawBytes += int64(len(c.Key) + len(c.Body))
	m.MinTime, m.MaxTime = min(m.MinTime, c.Time), max(m.MaxTime, c.Time)
	if m.Rows == 1 || c.Lane != w.lane {
		w.lane = c.Lane
		if i, found := slices.BinarySearch(m.Lanes, c.Lane); !found {
			m.Lanes = slices.Insert(m.Lanes, i, c.Lane)
		}
	}
	w.last.Table, w.last.Time, w.last.Order = c.Table, c.Time, c.Order
	w.last.Key = append(w.last.Key[:0], c.Key...)
}

// Rows is the number of rows appended so far.
func (w *Writer) Rows() int64 { return w.meta.Rows }

// Bytes estimates the object's size if it were closed now: what is written, and what is pending at the ratio so far.
func (w *Writer) Bytes() int64 {
	written, pending := int64(len(w.sink.buf)+len(w.filters)), int64(w.pending())
	if w.flushed == 0 {
		return written + pending/3
	}
	return written + int64(float64(pending)*float64(len(w.sink.buf))/float64(w.flushed))
}

// flush writes the pending rows as a row group.
func (w *Writer) flush() error {
	if len(w.groups) == math.MaxInt16 {
		return fmt.Errorf("segment %s: has %d row groups, the most that Parquet can number: close it earlier", w.meta.ID, len(w.groups))
	}
	g := w.current
	g.offset = w.sink.Tell()
	rg := w.file.AppendRowGroup()
	rg.SetNumRows(int(g.rows))
	for i := range numColumns {
		c, err := w.writeChunk(rg.NextColumnChunk(), i)
		if err != nil {
			return fmt.Errorf("segment %s: row group %d: column %d: %w", w.meta.ID, len(w.groups), i, err)
		}
		c.offset -= g.offset
		g.chunks[i] = c
	}
	g.length = w.sink.Tell() - g.offset
	g.sum = xxh3.Hash(w.sink.buf[g.offset:])
	if err := rg.Finish(int64(w.pending()), int16(len(w.groups))); err != nil {
		return fmt.Errorf("segment %s: row group %d: %w", w.meta.ID, len(w.groups), err)
	}
	start := len(w.filters)
	w.filters = appendFilter(w.filters, w.hashes)
	g.filterOffset, g.filterLength = int64(start), int64(len(w.filters)-start)
	g.filterSum = xxh3.Hash(w.filters[start:])

	w.flushed += int64(w.pending())
	w.groups = append(w.groups, g)
	w.current, w.hashes = group{}, w.hashes[:0]
	w.pages.reset()
	return nil
}

// writeChunk writes one column of the pending rows: a dictionary of one value if they are all the same, else one PLAIN
// page. The chunk's offset is from the start of the object.
func (w *Writer) writeChunk(meta *metadata.ColumnChunkMetaDataBuilder, col int) (chunk, error) {
	values, rows := w.pages[col], int32(w.current.rows)
	if constant(values, widths[col]) {
		value := slices.Clone(values[:widths[col]])
		return chunk{constant: value}, w.writeConstant(meta, col, value, rows)
	}
	if err := w.resetPager(meta, col, compress.Codecs.Zstd); err != nil {
		return chunk{}, err
	}
	// Our own pooled compressor: arrow would make a new one for every page.
	w.scratch = w.enc.EncodeAll(values, w.scratch[:0])
	if err := w.writePage(w.scratch, len(values), rows, parquet.Encodings.Plain); err != nil {
		return chunk{}, err
	}
	n := int64(len(w.scratch))
	c := chunk{offset: w.sink.Tell() - n, stored: n, raw: int64(len(values))}
	return c, w.pager.Close(false, false)
}

// resetPager points arrow's page writer at the next column. One of them serves the whole file.
func (w *Writer) resetPager(meta *metadata.ColumnChunkMetaDataBuilder, col int, codec compress.Compression) (err error) {
	const level = compress.DefaultCompressionLevel
	if w.pager == nil {
		w.pager, err = file.NewPageWriter(&w.sink, codec, level, meta, int16(len(w.groups)), int16(col), memory.DefaultAllocator, false, nil, nil)
		return err
	}
	return w.pager.Reset(&w.sink, codec, level, meta, int16(len(w.groups)), int16(col), nil, nil)
}

// writePage lets arrow write a data page whose values are compressed already.
func (w *Writer) writePage(stored []byte, raw int, rows int32, enc parquet.Encoding) error {
	p := file.NewDataPageV1(memory.NewBufferBytes(stored), rows, enc, parquet.Encodings.RLE, parquet.Encodings.RLE, int32(raw))
	defer p.Release()
	_, err := w.pager.WriteDataPage(p)
	return err
}

// writeConstant writes a chunk whose rows all hold value: a dictionary page and one run of index 0, both so small that
// they are stored uncompressed.
func (w *Writer) writeConstant(meta *metadata.ColumnChunkMetaDataBuilder, col int, value []byte, rows int32) error {
	meta.Contents().MetaData.Codec = 0 // UNCOMPRESSED; the file's properties can say it per column only, not per chunk
	if err := w.resetPager(meta, col, compress.Codecs.Uncompressed); err != nil {
		return err
	}
	dict := file.NewDictionaryPage(memory.NewBufferBytes(value), 1, parquet.Encodings.Plain)
	defer dict.Release()
	if _, err := w.pager.WriteDictionaryPage(dict); err != nil {
		return err
	}
	w.scratch = appendRun(w.scratch[:0], rows)
	if err := w.writePage(w.scratch, len(w.scratch), rows, parquet.Encodings.RLEDict); err != nil {
		return err
	}
	return w.pager.Close(true, false)
}

// Close ends the segment and returns the object to store. The writer is of no use afterwards.
func (w *Writer) Close() (data []byte, m Meta, err error) {
	defer w.release()
	if w.err != nil {
		return nil, Meta{}, w.err
	}
	w.err = fmt.Errorf("segment %s: closed", w.meta.ID)
	if w.meta.Rows == 0 {
		return nil, Meta{}, fmt.Errorf("segment %s: %w", w.meta.ID, ErrEmpty)
	}
	if w.current.rows > 0 {
		if err := w.flush(); err != nil {
			return nil, Meta{}, err
		}
	}
	index, err := encodeIndex(w.groups)
	if err != nil {
		return nil, Meta{}, fmt.Errorf("segment %s: %w", w.meta.ID, err)
	}
	w.meta.Last = afterimage.Bound{Table: w.last.Table, Key: bytes.Clone(w.last.Key)}
	w.meta.Index = IndexRef{Offset: w.sink.Tell(), Length: int64(len(index))}
	// No column points at these bytes, so other Parquet readers step over them.
	w.sink.buf = append(w.sink.buf, index...)
	w.sink.buf = append(w.sink.buf, w.filters...)
	if err := w.writeFooter(); err != nil {
		return nil, Meta{}, fmt.Errorf("segment %s: footer: %w", w.meta.ID, err)
	}
	w.meta.Bytes = w.sink.Tell()
	w.meta.Sum = xxh3.Hash(w.sink.buf)
	return w.sink.buf, w.meta, nil
}

// release gives the compressor back; a writer that is dropped without Close leaves it to the garbage collector.
func (w *Writer) release() {
	if w.enc != nil {
		putEncoder(w.effort, w.enc)
		w.enc = nil
	}
}
