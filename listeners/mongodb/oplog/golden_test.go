package oplog

import (
	"encoding/binary"
	"encoding/hex"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"go.mongodb.org/mongo-driver/bson"

	"github.com/afterimagedb/afterimage"
	"github.com/afterimagedb/afterimage/manifest"
)

var update = flag.Bool("update", false, "rewrite testdata/*.golden")

// split cuts concatenated documents.
func split(tb testing.TB, b []byte) [][]byte {
	tb.Helper()
	var docs [][]byte
	for len(b) >= 4 {
		n := int(binary.LittleEndian.Uint32(b))
		if n < 5 || n > len(b) {
			break
		}
		docs = append(docs, b[:n:n])
		b = b[n:]
	}
	if len(b) != 0 {
		tb.Fatal("damaged test data")
	}
	return docs
}

// captured returns the entries that real servers wrote, by file name.
func captured(tb testing.TB) map[string][][]byte {
	tb.Helper()
	names, err := filepath.Glob("testdata/*.bson")
	if err != nil || len(names) == 0 {
		tb.Fatal("no captured entries", err)
	}
	all := map[string][][]byte{}
	for _, name := range names {
		b, err := os.ReadFile(name)
		if err != nil {
			tb.Fatal(err)
		}
		all[name] = split(tb, b)
	}
	return all
}

// result is what a run of entries decodes to, copied.
type result struct {
	changes []afterimage.Change
	notes   []manifest.Note
}

// gather copies what d holds and clears it.
func (r *result) gather(d *Decoder) {
	for _, c := range d.Changes() {
		c.Key, c.Body = append([]byte(nil), c.Key...), append([]byte(nil), c.Body...)
		r.changes = append(r.changes, c)
	}
	r.notes = append(r.notes, d.Notes()...)
	d.Clear()
}

// decode feeds entries, clearing after every entry and every part.
func decode(tb testing.TB, d *Decoder, entries [][]byte) *result {
	tb.Helper()
	r := &result{}
	for _, e := range entries {
		if err := d.Add(e); err != nil {
			tb.Fatal(err)
		}
		for d.Pending() {
			r.gather(d)
			if err := d.Continue(); err != nil {
				tb.Fatal(err)
			}
		}
		r.gather(d)
	}
	return r
}

// position prints a position as its time and, within a transaction given out in parts, the part.
func position(p afterimage.Position) string {
	if p.Lo != 0 {
		return fmt.Sprintf("%s/%d", afterimage.Time(p.Hi), p.Lo)
	}
	return afterimage.Time(p.Hi).String()
}

func printChange(c *afterimage.Change) string {
	body := hex.EncodeToString(c.Body)
	if s, err := bson.MarshalExtJSON(bson.Raw(c.Body), false, false); err == nil {
		body = string(s)
	}
	table := c.Table.String()[:8]
	if c.Table == afterimage.CatalogTable {
		table = "catalog "
	}
	return fmt.Sprintf("%s.%d at %s %s %s %x %s", c.Time, c.Order, position(c.Pos), table, c.Op, c.Key, body)
}

// TestGolden decodes the captured entries and prints, for each, what came out and where the decoder stands.
func TestGolden(t *testing.T) {
	for name, entries := range captured(t) {
		t.Run(filepath.Base(name), func(t *testing.T) {
			var out strings.Builder
			d := NewDecoder(Options{})
			for _, e := range entries {
				r := decode(t, d, [][]byte{e})
				for i := range r.changes {
					fmt.Fprintln(&out, printChange(&r.changes[i]))
				}
				for _, n := range r.notes {
					fmt.Fprintf(&out, "note %s %s %s\n", n.Kind, n.Time, n.Reason)
				}
				if len(d.open.list) > 0 {
					fmt.Fprintf(&out, "  open %d, horizon %s, restart from %s\n", d.OpenTransactions(), d.Horizon(), position(d.RestartFrom()))
				}
			}
			golden := strings.TrimSuffix(name, ".bson") + ".golden"
			if *update {
				if err := os.WriteFile(golden, []byte(out.String()), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(golden)
			if err != nil {
				t.Fatal(err)
			}
			if string(want) != out.String() {
				t.Errorf("not as in %s: run with -update and look at the difference", golden)
			}
		})
	}
}
