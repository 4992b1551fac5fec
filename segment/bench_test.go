package segment

import (
	"encoding/binary"
	"fmt"
	"os"
	"slices"
	"testing"

	"github.com/afterimagedb/afterimage"
)

// benchRows are the documents in the BSON dump that AFTERIMAGE_BENCH_BSON names, or made-up ones.
func benchRows(b *testing.B) []afterimage.Change {
	b.Helper()
	path := os.Getenv("AFTERIMAGE_BENCH_BSON")
	if path == "" {
		return documents(20000)
	}
	data, err := os.ReadFile(path)
	if err != nil {
		b.Fatal(err)
	}
	var rows []afterimage.Change
	for len(data) > 4 {
		n := binary.LittleEndian.Uint32(data)
		doc := data[:n]
		data = data[n:]
		c := afterimage.Change{
			Time: afterimage.MongoTime(1795252057, 7), Wall: 1795252057123, Order: afterimage.OrderImage, Lane: 1, Op: afterimage.OpPut,
			From: afterimage.FromImage, Body: doc, Table: afterimage.TableID{0x70, 15: doc[4]},
		}
		if c.Key = doc[9:21]; doc[4] == 2 {
			c.Key = doc[13:22]
		}
		rows = append(rows, c)
	}
	slices.SortFunc(rows, func(x, y afterimage.Change) int { return x.Compare(&y) })
	return rows
}

func rawBytes(rows []afterimage.Change) (n int64) {
	for i := range rows {
		n += int64(len(rows[i].Key) + len(rows[i].Body))
	}
	return n
}

func BenchmarkWrite(b *testing.B) {
	rows := benchRows(b)
	for _, o := range []WriterOptions{{Kind: Changes}, {Kind: Changes, Level: 1}, {Kind: Image}} {
		b.Run(fmt.Sprintf("%s-%d", o.Kind, o.Level), func(b *testing.B) {
			b.SetBytes(rawBytes(rows))
			b.ReportAllocs()
			for b.Loop() {
				_, m := write(b, o, rows)
				b.ReportMetric(float64(m.RawBytes)/float64(m.Bytes), "ratio")
				b.ReportMetric(float64(m.Bytes-m.Index.Offset)/float64(m.Rows), "index+footer-B/row")
			}
		})
	}
}

func BenchmarkRead(b *testing.B) {
	rows := benchRows(b)
	data, m := write(b, WriterOptions{Kind: Image}, rows)
	b.SetBytes(m.RawBytes)
	b.ReportAllocs()
	for b.Loop() {
		it := open(b, data, m, ReadOptions{})
		n := 0
		for it.Next() {
			n++
		}
		if it.Err() != nil || n != len(rows) {
			b.Fatal(it.Err(), n)
		}
		it.Close()
	}
}

func BenchmarkPointRead(b *testing.B) {
	rows := benchRows(b)
	data, m := write(b, WriterOptions{Kind: Image}, rows)
	b.ReportAllocs()
	i := 0
	for b.Loop() {
		c := &rows[i*7919%len(rows)]
		i++
		it := open(b, data, m, ReadOptions{Range: afterimage.KeyRange(c.Table, c.Key)})
		if !it.Next() {
			b.Fatal("not found")
		}
		it.Close()
	}
}

func BenchmarkMerge(b *testing.B) {
	rows := benchRows(b)
	for _, k := range []int{2, 16, 128} {
		b.Run(fmt.Sprintf("inputs=%d", k), func(b *testing.B) {
			parts := make([][]afterimage.Change, k)
			for i := range rows {
				p := int(rowHash(rows[i].Table, rows[i].Key) % uint64(k))
				parts[p] = append(parts[p], rows[i])
			}
			b.ReportAllocs()
			for b.Loop() {
				its := make([]Iterator, k)
				for i := range its {
					its[i] = SliceIterator(parts[i])
				}
				it := Merge(its...)
				n := 0
				for it.Next() {
					n++
				}
				if n != len(rows) {
					b.Fatal(n)
				}
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/float64(len(rows)), "ns/row")
		})
	}
}
