package segment

import (
	"encoding/binary"

	"github.com/apache/arrow/go/v15/parquet"
	"github.com/apache/arrow/go/v15/parquet/schema"

	"github.com/afterimagedb/afterimage"
)

// The columns, in the order in which a row group stores them. Their order and names are part of the format.
const (
	colTable = iota
	colKey
	colTime
	colOrder
	colBornTime
	colBornOrder
	colWall
	colLane
	colOp
	colFrom
	colBody
	numColumns
)

// column describes a column. Width is the size of a PLAIN value in bytes, 0 for byte arrays.
type column struct {
	name    string
	width   int
	typ     parquet.Type
	logical schema.LogicalType
}

// columns returns the columns by number.
func columns() [numColumns]column {
	u64, u32, u8 := schema.NewIntLogicalType(64, false), schema.NewIntLogicalType(32, false), schema.NewIntLogicalType(8, false)
	return [numColumns]column{
		colTable:     {"table", 16, parquet.Types.FixedLenByteArray, schema.UUIDLogicalType{}},
		colKey:       {"key", 0, parquet.Types.ByteArray, schema.NoLogicalType{}},
		colTime:      {"time", 8, parquet.Types.Int64, u64},
		colOrder:     {"order", 4, parquet.Types.Int32, u32},
		colBornTime:  {"born_time", 8, parquet.Types.Int64, u64},
		colBornOrder: {"born_order", 4, parquet.Types.Int32, u32},
		colWall:      {"wall", 8, parquet.Types.Int64, schema.NewTimestampLogicalType(true, schema.TimeUnitMillis)},
		colLane:      {"lane", 4, parquet.Types.Int32, u32},
		colOp:        {"op", 4, parquet.Types.Int32, u8},
		colFrom:      {"from", 4, parquet.Types.Int32, u8},
		colBody:      {"body", 0, parquet.Types.ByteArray, schema.NoLogicalType{}},
	}
}

// widths of PLAIN values in bytes by column number; 0 is a byte array.
var widths = [numColumns]int{colTable: 16, colTime: 8, colOrder: 4, colBornTime: 8, colBornOrder: 4, colWall: 8, colLane: 4, colOp: 4, colFrom: 4}

// rowOverhead is the uncompressed size in bytes of a row's fixed columns.
const rowOverhead = 16 + 8 + 4 + 8 + 4 + 8 + 4 + 4 + 4

// parquetSchema is the schema of every segment: all columns required.
func parquetSchema() (*schema.Schema, error) {
	var fields schema.FieldList
	for i, c := range columns() {
		n, err := schema.NewPrimitiveNodeLogical(c.name, parquet.Repetitions.Required, c.logical, c.typ, c.width, int32(i+1))
		if err != nil {
			return nil, err
		}
		fields = append(fields, n)
	}
	root, err := schema.NewGroupNode("change", parquet.Repetitions.Required, fields, -1)
	if err != nil {
		return nil, err
	}
	return schema.NewSchema(root), nil
}

// pages holds the PLAIN values of the row group being written, one buffer per column.
type pages [numColumns][]byte

// add appends a row.
func (p *pages) add(c *afterimage.Change) {
	le := binary.LittleEndian
	p[colTable] = append(p[colTable], c.Table[:]...)
	p[colKey] = append(le.AppendUint32(p[colKey], uint32(len(c.Key))), c.Key...)
	p[colTime] = le.AppendUint64(p[colTime], uint64(c.Time))
	p[colOrder] = le.AppendUint32(p[colOrder], c.Order)
	p[colBornTime] = le.AppendUint64(p[colBornTime], uint64(c.Born.Time))
	p[colBornOrder] = le.AppendUint32(p[colBornOrder], c.Born.Order)
	p[colWall] = le.AppendUint64(p[colWall], uint64(c.Wall))
	p[colLane] = le.AppendUint32(p[colLane], uint32(c.Lane))
	p[colOp] = le.AppendUint32(p[colOp], uint32(c.Op))
	p[colFrom] = le.AppendUint32(p[colFrom], uint32(c.From))
	p[colBody] = append(le.AppendUint32(p[colBody], uint32(len(c.Body))), c.Body...)
}

// reset empties the buffers and keeps their memory.
func (p *pages) reset() {
	for i := range p {
		p[i] = p[i][:0]
	}
}

// constant reports whether all values of width w are the same.
func constant(values []byte, w int) bool {
	if w == 0 || len(values) < w {
		return false
	}
	// A run of equal values equals itself shifted by one value.
	return string(values[w:]) == string(values[:len(values)-w])
}

// appendRun appends the values of a data page whose rows all are index 0 of the dictionary: bit width 1, one RLE run.
func appendRun(dst []byte, rows int32) []byte {
	return append(binary.AppendUvarint(append(dst, 1), uint64(rows)<<1), 0)
}
