package mongodb

import (
	"bytes"
	"context"
	"slices"
	"testing"

	"github.com/afterimagedb/afterimage"
	"github.com/afterimagedb/afterimage/dialect"
	"github.com/afterimagedb/afterimage/dialect/mongodb"
	"github.com/afterimagedb/afterimage/restorer"
)

// memory is a source that holds its rows.
type memory struct {
	list []dialect.Table
	rows map[string][]memoryRow // by namespace
	at   func(ns string, n int) // called before row n is returned
}

type memoryRow struct{ key, body []byte }

var (
	_ restorer.Source      = (*memory)(nil)
	_ restorer.PointSource = (*memory)(nil)
)

func newMemory() *memory { return &memory{rows: map[string][]memoryRow{}} }

// add puts a collection in; bodies are in their natural order.
func (m *memory) add(t testing.TB, id afterimage.TableID, row []byte, bodies ...[]byte) {
	t.Helper()
	table, err := mongodb.New().Table(id, row)
	if err != nil {
		t.Fatal(err)
	}
	m.list = append(m.list, table)
	var rows []memoryRow
	for _, b := range bodies {
		key, err := mongodb.AppendDocKey(nil, b)
		if err != nil {
			t.Fatal(err)
		}
		rows = append(rows, memoryRow{key, b})
	}
	if !table.Ordered {
		slices.SortFunc(rows, func(a, b memoryRow) int { return bytes.Compare(a.key, b.key) })
	}
	m.rows[table.Namespace] = rows
}

// table makes a plain collection of documents.
func (m *memory) table(t testing.TB, ns string, bodies ...[]byte) {
	t.Helper()
	row := mongodb.CatalogRow{Namespace: ns, Type: "collection", Options: newDocument().end(), Indexes: [][]byte{idIndex()}}
	m.add(t, afterimage.TableID{0: 9, 15: byte(len(m.list) + 1)}, row.Append(nil), bodies...)
}

func idIndex() []byte {
	return newDocument().i32("v", 2).doc("key", newDocument().i32("_id", 1).end()).str("name", "_id_").end()
}

func (m *memory) Tables(context.Context) ([]dialect.Table, error) { return m.list, nil }

func (m *memory) Rows(_ context.Context, t dialect.Table) (restorer.Rows, error) {
	return &memoryRows{source: m, ns: t.Namespace, rows: m.rows[t.Namespace], n: -1}, nil
}

func (m *memory) Row(_ context.Context, t dialect.Table, key []byte) ([]byte, error) {
	for _, r := range m.rows[t.Namespace] {
		if bytes.Equal(r.key, key) {
			return bytes.Clone(r.body), nil
		}
	}
	return nil, nil
}

type memoryRows struct {
	source *memory
	ns     string
	rows   []memoryRow
	n      int
	buf    []byte
}

func (r *memoryRows) Next() bool {
	r.n++
	if r.n >= len(r.rows) {
		return false
	}
	if r.source.at != nil {
		r.source.at(r.ns, r.n)
	}
	r.buf = append(r.buf[:0], r.rows[r.n].body...) // what is kept past Next is a defect: make it show
	return true
}

func (r *memoryRows) Key() []byte  { return r.rows[r.n].key }
func (r *memoryRows) Body() []byte { return r.buf }
func (r *memoryRows) Err() error   { return nil }
func (r *memoryRows) Close() error { return nil }
