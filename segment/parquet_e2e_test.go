//go:build e2e

package segment

import (
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/afterimagedb/afterimage"
)

// readerPy opens the segment with both libraries and prints the same line of sums from each.
const readerPy = `
import sys, duckdb, pyarrow.parquet as pq
path = sys.argv[1]
t = pq.read_table(path).to_pydict()
assert b"afterimage-segment" in pq.ParquetFile(path).metadata.metadata
print(len(t["key"]), sum(t["time"]), sum(t["order"]), sum(t["lane"]), sum(t["op"]), sum(t["from"]), sum(map(len, t["key"])), sum(map(len, t["body"])), len(set(t["table"])))
print(*duckdb.sql('''select count(*), sum("time"), sum("order"), sum(lane), sum(op), sum("from"), sum(octet_length(key)), sum(octet_length(body)),
  count(distinct "table") from read_parquet(?)''', params=[path]).fetchall()[0])
`

// TestOtherReaders opens a segment with DuckDB and pyarrow.
func TestOtherReaders(t *testing.T) {
	python := os.Getenv("AFTERIMAGE_PYTHON")
	if python == "" {
		home, err := os.UserHomeDir()
		if err != nil {
			t.Fatal(err)
		}
		python = filepath.Join(home, ".cache/afterimage-deps/venv/bin/python")
	}
	// Row groups with constant columns come first, then ones without.
	rows := documents(5000)
	r := rand.New(rand.NewPCG(3, 3))
	for i := 2500; i < len(rows); i++ {
		c := &rows[i]
		c.Table[15]++
		c.Time += afterimage.Time(r.IntN(1000))
		c.Order, c.Lane, c.Op, c.From = uint32(r.IntN(9)), afterimage.LaneID(r.IntN(2)), afterimage.Op(1+r.IntN(4)), afterimage.FromLog
		if i%7 == 0 {
			c.Body = nil
		}
	}
	data, m := write(t, WriterOptions{Kind: Image}, rows)
	path := filepath.Join(t.TempDir(), m.ID+".parquet")
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
	out, err := exec.CommandContext(t.Context(), python, "-c", readerPy, path).CombinedOutput()
	if err != nil {
		t.Fatalf("%s: %v\n%s\nrun `make deps`, or name a Python with duckdb and pyarrow in AFTERIMAGE_PYTHON", python, err, out)
	}
	want := make([]uint64, 6)
	tables := map[afterimage.TableID]bool{}
	for i := range rows {
		c := &rows[i]
		for j, v := range []uint64{uint64(c.Order), uint64(c.Lane), uint64(c.Op), uint64(c.From), uint64(len(c.Key)), uint64(len(c.Body))} {
			want[j] += v
		}
		tables[c.Table] = true
	}
	lines := strings.Split(strings.TrimSpace(string(out)), "\n")
	if len(lines) != 2 || lines[0] != lines[1] {
		t.Fatalf("pyarrow and DuckDB disagree:\n%s", out)
	}
	f := strings.Fields(lines[0])
	got := strings.Join(append([]string{f[0]}, f[2:]...), " ")
	written := strings.NewReplacer("[", "", "]", "").Replace(fmt.Sprint(len(rows), want, len(tables)))
	if got != written {
		t.Fatalf("read %s, written %s", got, written)
	}
}
