package segment

import (
	"bytes"
	"testing"

	"github.com/apache/arrow/go/v15/parquet"
	"github.com/apache/arrow/go/v15/parquet/file"
	"pgregory.net/rapid"

	"github.com/afterimagedb/afterimage"
)

// TestArrowReads reads segments as plain Parquet, with arrow's reader and without our index.
func TestArrowReads(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		changes := genChanges(rt)
		data, m := write(t, WriterOptions{}, changes)
		pf, err := file.NewParquetReader(bytes.NewReader(data))
		if err != nil {
			rt.Fatal(err)
		}
		defer pf.Close() //nolint:errcheck // memory
		if pf.NumRows() != m.Rows || pf.MetaData().KeyValueMetadata().FindValue(envelopeKey) == nil {
			rt.Fatal(pf.NumRows(), m.Rows)
		}
		var got []afterimage.Change
		for i := range pf.NumRowGroups() {
			got = append(got, arrowRows(rt, pf.RowGroup(i))...)
		}
		if err := same(got, changes); err != nil {
			rt.Fatal(err)
		}
	})
}

func arrowRows(t *rapid.T, rg *file.RowGroupReader) []afterimage.Change {
	n := rg.NumRows()
	out := make([]afterimage.Change, n)
	for col, c := range columns() {
		r, err := rg.Column(col)
		if err != nil || r.Descriptor().Name() != c.name || r.Descriptor().MaxDefinitionLevel() != 0 {
			t.Fatal(c.name, err)
		}
		var read int64
		switch r := r.(type) {
		case *file.Int32ColumnChunkReader:
			v := make([]int32, n)
			read, _, err = r.ReadBatch(n, v, nil, nil)
			for i := range v {
				u := uint32(v[i])
				switch col {
				case colOrder:
					out[i].Order = u
				case colBornOrder:
					out[i].Born.Order = u
				case colLane:
					out[i].Lane = afterimage.LaneID(u)
				case colOp:
					out[i].Op = afterimage.Op(u)
				case colFrom:
					out[i].From = afterimage.Provenance(u)
				}
			}
		case *file.Int64ColumnChunkReader:
			v := make([]int64, n)
			read, _, err = r.ReadBatch(n, v, nil, nil)
			for i := range v {
				switch col {
				case colTime:
					out[i].Time = afterimage.Time(v[i])
				case colBornTime:
					out[i].Born.Time = afterimage.Time(v[i])
				case colWall:
					out[i].Wall = v[i]
				}
			}
		case *file.ByteArrayColumnChunkReader:
			v := make([]parquet.ByteArray, n)
			read, _, err = r.ReadBatch(n, v, nil, nil)
			for i := range v {
				if col == colKey {
					out[i].Key = bytes.Clone(v[i])
				} else {
					out[i].Body = bytes.Clone(v[i])
				}
			}
		case *file.FixedLenByteArrayColumnChunkReader:
			v := make([]parquet.FixedLenByteArray, n)
			read, _, err = r.ReadBatch(n, v, nil, nil)
			for i := range v {
				out[i].Table = afterimage.TableID(v[i])
			}
		}
		if err != nil || read != n {
			t.Fatal(c.name, read, n, err)
		}
	}
	return out
}
