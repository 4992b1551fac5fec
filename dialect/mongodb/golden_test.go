package mongodb_test

import (
	"bufio"
	"bytes"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"go.mongodb.org/mongo-driver/bson"
	"go.mongodb.org/mongo-driver/bson/primitive"

	"github.com/afterimagedb/afterimage"
	"github.com/afterimagedb/afterimage/dialect"
	"github.com/afterimagedb/afterimage/dialect/mongodb"
)

// goldenStep is a line of testdata/ddl-*.jsonl: a command that a real server ran, what it logged, and which rows its own
// listing had changed to or lost. TestCatalogAgainstServer writes it with -update.
type goldenStep struct {
	Command string        `bson:"command"`
	Error   string        `bson:"error,omitempty"`
	Entries []goldenEntry `bson:"entries"`
	Rows    []goldenRow   `bson:"rows,omitempty"`
	Dropped []string      `bson:"dropped,omitempty"`
}

type goldenEntry struct {
	Op string            `bson:"op"`
	NS string            `bson:"ns"`
	UI *primitive.Binary `bson:"ui,omitempty"`
	O  bson.Raw          `bson:"o"`
	O2 bson.Raw          `bson:"o2,omitempty"`
}

type goldenRow struct {
	ID  string   `bson:"id"`
	Row bson.Raw `bson:"row"`
}

// golden folds the catalog from logged commands.
type golden struct {
	rows map[afterimage.TableID][]byte
	time afterimage.Time
}

func (g *golden) ids() []afterimage.TableID {
	return slices.SortedFunc(maps.Keys(g.rows), func(a, b afterimage.TableID) int { return bytes.Compare(a[:], b[:]) })
}

// TestGoldenDDL folds what real servers logged and compares the rows with their listings.
func TestGoldenDDL(t *testing.T) {
	files, err := filepath.Glob("testdata/ddl-*.jsonl")
	if err != nil || len(files) != 3 {
		t.Fatalf("files %v: %v", files, err)
	}
	for _, name := range files {
		t.Run(filepath.Base(name), func(t *testing.T) {
			f, err := os.Open(name)
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()
			g := &golden{rows: map[afterimage.TableID][]byte{}}
			lines := bufio.NewScanner(f)
			lines.Buffer(nil, 1<<20)
			steps := 0
			for lines.Scan() {
				var s goldenStep
				if err := bson.UnmarshalExtJSON(lines.Bytes(), true, &s); err != nil {
					t.Fatal(err)
				}
				g.step(t, &s)
				steps++
			}
			if lines.Err() != nil || steps < 40 {
				t.Fatalf("%d steps, %v", steps, lines.Err())
			}
		})
	}
}

func (g *golden) step(t *testing.T, s *goldenStep) {
	t.Helper()
	for _, e := range s.Entries {
		for _, c := range g.changes(t, e) {
			g.apply(t, c)
		}
	}
	for _, row := range s.Rows {
		var id afterimage.TableID
		if err := id.UnmarshalText([]byte(row.ID)); err != nil {
			t.Fatal(err)
		}
		if g.rows[id] == nil {
			t.Errorf("%s: %s is not there, want %s", s.Command, row.ID, row.Row)
			continue
		}
		if a, b := normalRow(t, g.rows[id]), normalRow(t, row.Row); a != b {
			t.Errorf("%s: %s", s.Command, difference(a, b))
			g.rows[id] = row.Row
		} else if get, _ := mongodb.ParseCatalog(g.rows[id]); !bytes.Equal(get.Options, row.Row.Lookup("options").Document()) {
			t.Errorf("%s: options differ: %s", s.Command, difference(bson.Raw(get.Options).String(), row.Row.Lookup("options").String()))
		}
	}
	for _, text := range s.Dropped {
		var id afterimage.TableID
		if err := id.UnmarshalText([]byte(text)); err != nil {
			t.Fatal(err)
		}
		if g.rows[id] != nil {
			t.Errorf("%s: %s is still there: %s", s.Command, text, bson.Raw(g.rows[id]))
		}
	}
}

// changes makes the catalog changes of a logged command, as a listener does.
func (g *golden) changes(t *testing.T, e goldenEntry) []afterimage.Change {
	t.Helper()
	first, err := e.O.IndexErr(0)
	if err != nil {
		t.Fatal(err)
	}
	if e.UI == nil {
		if first.Key() != "dropDatabase" {
			t.Fatalf("%s has no ui", e.O)
		}
		return nil
	}
	g.time++
	c := afterimage.Change{Time: g.time, Table: afterimage.CatalogTable, Key: e.UI.Data}
	switch first.Key() {
	case "create":
		c.Op = afterimage.OpInsert
		if c.Body, err = mongodb.CatalogCreate(e.NS, e.O); err != nil {
			t.Fatal(err)
		}
	case "drop":
		c.Op, c.Body = afterimage.OpDelete, mongodb.CatalogDelete(e.NS, e.O)
	case "renameCollection":
		c.Op, c.Body = afterimage.OpPatch, mongodb.CatalogPatch(e.NS, e.O, e.O2)
		if v, err := e.O.LookupErr("dropTarget"); err == nil && v.Type == bson.TypeBinary {
			_, id := v.Binary()
			gone := afterimage.Change{Time: g.time, Table: c.Table, Key: id, Op: afterimage.OpDelete, Body: mongodb.CatalogDelete(e.NS, e.O)}
			return []afterimage.Change{gone, c}
		}
	default:
		c.Op, c.Body = afterimage.OpPatch, mongodb.CatalogPatch(e.NS, e.O, e.O2)
	}
	return []afterimage.Change{c}
}

func (g *golden) apply(t *testing.T, c afterimage.Change) {
	t.Helper()
	id := afterimage.TableID(c.Key)
	f := mongodb.New().NewFolder()
	f.Reset(c.Table, c.Key)
	if row := g.rows[id]; row != nil {
		if err := f.Apply(&afterimage.Change{Op: afterimage.OpPut, Body: row}); err != nil {
			t.Fatal(err)
		}
	}
	if err := f.Apply(&c); err != nil {
		t.Errorf("%v", err)
		return
	}
	s, err := f.State()
	if err != nil {
		t.Fatal(err)
	}
	if s.Exists {
		g.rows[id] = bytes.Clone(s.Body)
	} else {
		delete(g.rows, id)
	}
}

var _ dialect.Dialect = mongodb.New()

// normalRow prints a row with the fields of index specs in order of name; everything else as it is.
func normalRow(t *testing.T, row []byte) string {
	t.Helper()
	r, err := mongodb.ParseCatalog(row)
	if err != nil {
		t.Fatalf("%v: %x", err, row)
	}
	return r.Namespace + " " + r.Type + " " + bson.Raw(r.Options).String() + " " + normalIndexes(r.Indexes)
}

func normalIndexes(specs [][]byte) string {
	var out []string
	for _, spec := range specs {
		es, err := bson.Raw(spec).Elements()
		if err != nil {
			return err.Error()
		}
		slices.SortFunc(es, func(a, b bson.RawElement) int { return strings.Compare(a.Key(), b.Key()) })
		var fields []string
		for _, e := range es {
			text := e.String()
			// Versions list a TTL in different types, rounded or not.
			if seconds, ok := e.Value().AsInt64OK(); ok && e.Key() == "expireAfterSeconds" {
				text = fmt.Sprint("ttl ", seconds)
			}
			fields = append(fields, text)
		}
		out = append(out, "{"+strings.Join(fields, ",")+"}")
	}
	return strings.Join(out, " ")
}

// difference shows two texts round the place where they part.
func difference(get, want string) string {
	i := 0
	for i < min(len(get), len(want)) && get[i] == want[i] {
		i++
	}
	from := max(0, i-80)
	return "get  ..." + get[from:min(len(get), i+120)] + "\nwant ..." + want[from:min(len(want), i+120)]
}
