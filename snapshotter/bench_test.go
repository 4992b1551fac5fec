package snapshotter

import (
	"context"
	"testing"

	"github.com/afterimagedb/afterimage"
	"github.com/afterimagedb/afterimage/dialect"
	"github.com/afterimagedb/afterimage/manifest"
)

// benchFixture is a table of 60,000 rows of 1 KB and 100,000 changes in ten segments, each of one row in six.
func benchFixture(b *testing.B) (*fixture, dialect.Table) {
	f := newFixture(b)
	id := tableNo(1)
	const rows, changes, segments = 60_000, 100_000, 10
	f.many(id, rows, 1000)
	f.state.Windows[id] = []manifest.Interval{{From: 50}}
	f.ddl(3, afterimage.OpInsert, id, "db.t")
	patch := make([]byte, 100)
	for s := range segments {
		var part []afterimage.Change
		for i := range changes / segments {
			part = append(part, afterimage.Change{
				Time: afterimage.Time(51 + s), Order: uint32(i), Op: afterimage.OpPatch, Table: id,
				Key: manyKey((i*7919 + s) % rows), Body: patch,
			})
		}
		f.changes(part...)
	}
	b.ReportAllocs()
	return f, dialect.Table{ID: id, Namespace: "db.t"}
}

func benchRows(b *testing.B, at afterimage.Time) {
	f, table := benchFixture(b)
	s := f.snapshotter()
	for b.Loop() {
		rows, err := s.Rows(context.Background(), table, at, afterimage.Range{})
		if err != nil {
			b.Fatal(err)
		}
		n, size := 0, int64(0)
		for rows.Next() {
			n++
			size += int64(len(rows.Body()))
		}
		if rows.Err() != nil || n != 60_000 {
			b.Fatal(n, rows.Err())
		}
		discard(rows)
		b.SetBytes(size)
	}
}

// BenchmarkImage reads rows that have no changes.
func BenchmarkImage(b *testing.B) { benchRows(b, 50) }

// BenchmarkImageAndChanges reads rows with eleven segments to merge.
func BenchmarkImageAndChanges(b *testing.B) { benchRows(b, 100) }

// BenchmarkRow reads one row, each time with nothing in the cache.
func BenchmarkRow(b *testing.B) {
	f, table := benchFixture(b)
	for b.Loop() {
		st, err := f.snapshotter().Row(context.Background(), table, manyKey(31_337), 100)
		if err != nil || !st.Exists {
			b.Fatal(st.Exists, err)
		}
	}
}

// BenchmarkHistory reads one row's history, each time with nothing in the cache.
func BenchmarkHistory(b *testing.B) {
	f, table := benchFixture(b)
	for b.Loop() {
		v, err := f.snapshotter().History(context.Background(), table, manyKey(31_337), 0, 100)
		if err != nil || len(v) == 0 {
			b.Fatal(len(v), err)
		}
	}
}

// BenchmarkDiff compares two times with 10,000 changed rows between them.
func BenchmarkDiff(b *testing.B) {
	f, table := benchFixture(b)
	s := f.snapshotter()
	for b.Loop() {
		d, err := s.Diff(context.Background(), table, 55, 56)
		if err != nil {
			b.Fatal(err)
		}
		n := 0
		for d.Next() {
			n++
		}
		if d.Err() != nil || n == 0 {
			b.Fatal(n, d.Err())
		}
		discard(d)
	}
}
