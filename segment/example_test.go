package segment

import (
	"encoding/binary"
	"flag"
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/afterimagedb/afterimage"
)

var update = flag.Bool("update", false, "rewrite testdata/example.parquet and the example in docs/format/segment.md")

const (
	examplePath = "testdata/example.parquet"
	formatPage  = "../docs/format/segment.md"
)

// exampleRows are the rows of the example in docs/format/segment.md.
func exampleRows() []afterimage.Change {
	table := afterimage.TableID{0x70, 0xa1, 0x0f, 0x5e, 0x11, 0x22, 0x43, 0x44, 0x85, 0x55, 1, 2, 3, 4, 5, 6}
	doc := []byte("\x13\x00\x00\x00\x10_id\x00\x01\x00\x00\x00\x10n\x00\x07\x00\x00\x00\x00")
	binary.LittleEndian.PutUint32(doc, uint32(len(doc)))
	return []afterimage.Change{
		{
			Time: afterimage.MongoTime(1795252050, 1), Wall: 1795252050001, Lane: 1, Op: afterimage.OpInsert,
			Table: afterimage.CatalogTable, Key: table[:], Body: []byte("\x05\x00\x00\x00\x00"),
		},
		{Time: afterimage.MongoTime(1795252057, 9), Wall: 1795252057123, Order: 2, Lane: 1, Op: afterimage.OpInsert, Table: table, Key: []byte("\x10\x01"), Body: doc},
		{Time: afterimage.MongoTime(1795252058, 1), Wall: 1795252058000, Lane: 1, Op: afterimage.OpDelete, Table: table, Key: []byte("\x10\x01"), Body: doc[:0]},
	}
}

// TestExample reads the stored example, as every later version of this package must, and holds the format page to it.
func TestExample(t *testing.T) {
	if *update {
		data, _ := write(t, WriterOptions{ID: "example", Kind: Changes, Level: 1, Parents: []string{"parent"}}, exampleRows())
		if err := os.WriteFile(examplePath, data, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	data, err := os.ReadFile(examplePath)
	if err != nil {
		t.Fatal(err)
	}
	m, err := ReadMeta(data)
	if err != nil {
		t.Fatal(err)
	}
	if err := Verify(data, m); err != nil {
		t.Fatal(err)
	}
	if err := same(drain(t, open(t, data, m, ReadOptions{})), exampleRows()); err != nil {
		t.Fatal(err)
	}
	page, err := os.ReadFile(formatPage)
	if err != nil {
		t.Fatal(err)
	}
	const begin, end = "```text\nexample.parquet", "```"
	from := strings.Index(string(page), begin)
	if from < 0 {
		t.Fatalf("%s has no example", formatPage)
	}
	to := from + len(begin) + strings.Index(string(page[from+len(begin):]), end)
	want := "```text\n" + dump(t, data, m)
	if *update {
		page = []byte(string(page[:from]) + want + string(page[to:]))
		if err := os.WriteFile(formatPage, page, 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	if got := string(page[from:to]); got != want {
		t.Fatalf("the example in %s is\n%s\nbut the file is\n%s", formatPage, got, want)
	}
}

// dump prints a segment's parts as the format page shows them.
func dump(t *testing.T, data []byte, m Meta) string {
	t.Helper()
	dec, err := getDecoder()
	if err != nil {
		t.Fatal(err)
	}
	defer putDecoder(dec)
	var b strings.Builder
	x := m.Index
	section := data[x.Offset : x.Offset+x.Length]
	groups, err := decodeIndex(section, &m, dec)
	if err != nil {
		t.Fatal(err)
	}
	raw, err := inflate(dec, nil, section[indexHeader:], int(binary.LittleEndian.Uint64(section[8:])))
	if err != nil {
		t.Fatal(err)
	}
	fmt.Fprintf(&b, "example.parquet: %d bytes, XXH3-64 %016x\n", m.Bytes, m.Sum)
	fmt.Fprintf(&b, "index header at %d: % x\n", x.Offset, section[:indexHeader])
	fmt.Fprintf(&b, "index payload, %d bytes stored, %d decompressed:\n", x.Length-indexHeader, len(raw))
	for len(raw) > 0 {
		n := min(32, len(raw))
		fmt.Fprintf(&b, "  % x\n", raw[:n])
		raw = raw[n:]
	}
	for i, g := range groups {
		fmt.Fprintf(&b, "row group %d: %d rows at %d, %d bytes, sum %016x, times %s to %s\n", i, g.rows, g.offset, g.length, g.sum, g.minTime, g.maxTime)
		fmt.Fprintf(&b, "  first: table %s key %x\n", g.first.Table, g.first.Key)
		fmt.Fprintf(&b, "  filter: %d bytes at %d behind the index, sum %016x\n", g.filterLength, g.filterOffset, g.filterSum)
		f := x.Offset + x.Length + g.filterOffset
		fmt.Fprintf(&b, "  % x\n", data[f:f+g.filterLength])
		for j, c := range g.chunks {
			if c.constant != nil {
				fmt.Fprintf(&b, "  %-10s constant %x\n", columns()[j].name, c.constant)
				continue
			}
			page, err := inflate(dec, nil, data[g.offset+c.offset:g.offset+c.offset+c.stored], int(c.raw))
			if err != nil {
				t.Fatal(err)
			}
			fmt.Fprintf(&b, "  %-10s page at %d, %d stored, %d raw: %x\n", columns()[j].name, c.offset, c.stored, c.raw, page)
		}
	}
	for _, r := range exampleRows() {
		fmt.Fprintf(&b, "row hash of table %s key %x: %016x\n", r.Table, r.Key, rowHash(r.Table, r.Key))
	}
	return b.String()
}
