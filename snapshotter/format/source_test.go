package format_test

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc64"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"go.mongodb.org/mongo-driver/bson"
	"go.uber.org/goleak"

	"github.com/afterimagedb/afterimage"
	"github.com/afterimagedb/afterimage/dialect"
	"github.com/afterimagedb/afterimage/dialect/mongodb"
	"github.com/afterimagedb/afterimage/snapshotter/format"
	bsondump "github.com/afterimagedb/afterimage/snapshotter/format/bson"
	"github.com/afterimagedb/afterimage/snapshotter/format/jsonl"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// fakeSource is a source in memory.
type fakeSource struct {
	tables []dialect.Table
	rows   map[afterimage.TableID][][]byte
	fail   error // what the walk of the last table ends with
	open   atomic.Int32
}

func (s *fakeSource) Tables(context.Context) ([]dialect.Table, error) { return s.tables, nil }

func (s *fakeSource) Rows(_ context.Context, t dialect.Table) (format.Rows, error) {
	s.open.Add(1)
	r := &fakeRows{rows: s.rows[t.ID], open: &s.open}
	if t.ID == s.tables[len(s.tables)-1].ID {
		r.err = s.fail
	}
	return r, nil
}

type fakeRows struct {
	rows [][]byte
	buf  []byte // reused, as the real one does
	err  error
	open *atomic.Int32
}

func (r *fakeRows) Next() bool {
	for i := range r.buf {
		r.buf[i] = 0xEE
	}
	if len(r.rows) == 0 {
		return false
	}
	r.buf = append(r.buf[:0], r.rows[0]...)
	r.rows = r.rows[1:]
	return true
}
func (r *fakeRows) Body() []byte { return r.buf }
func (r *fakeRows) Err() error   { return r.err }
func (r *fakeRows) Close() error { r.open.Add(-1); return nil }

func doc(t testing.TB, v any) []byte {
	t.Helper()
	b, err := bson.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func (s *fakeSource) add(t testing.TB, ns string, options any, indexes []bson.D, rows ...any) {
	t.Helper()
	r := mongodb.CatalogRow{Namespace: ns, Type: "collection", Options: doc(t, options)}
	for _, ix := range indexes {
		r.Indexes = append(r.Indexes, doc(t, ix))
	}
	id := afterimage.TableID{0xAB, 15: byte(len(s.tables) + 10)}
	s.tables = append(s.tables, dialect.Table{ID: id, Namespace: ns, Row: r.Append(nil)})
	for _, row := range rows {
		s.rows[id] = append(s.rows[id], doc(t, row))
	}
}

func idIndex() bson.D {
	return bson.D{{Key: "v", Value: int32(2)}, {Key: "key", Value: bson.D{{Key: "_id", Value: int32(1)}}}, {Key: "name", Value: "_id_"}}
}

var longName = strings.Repeat("long/name ", 20) + "end"

// everything is a source with one of each kind.
func everything(t testing.TB) *fakeSource {
	s := &fakeSource{rows: map[afterimage.TableID][][]byte{}}
	s.add(t, "admin.system.users", bson.D{}, []bson.D{idIndex()}, bson.D{{Key: "_id", Value: "admin.bob"}})
	s.add(t, "shop.system.views", bson.D{}, []bson.D{idIndex()},
		bson.D{{Key: "_id", Value: "shop.cheap"}, {Key: "viewOn", Value: "items"}, {Key: "pipeline", Value: bson.A{bson.D{{Key: "$match", Value: bson.D{}}}}}},
		bson.D{{Key: "_id", Value: "shop.weather"}, {Key: "viewOn", Value: "system.buckets.weather"}, {Key: "pipeline", Value: bson.A{}}})
	s.add(t, "shop.items", bson.D{}, []bson.D{idIndex()},
		bson.D{{Key: "_id", Value: int32(2)}}, bson.D{{Key: "_id", Value: int32(1)}, {Key: "x", Value: "y"}})
	s.add(t, "shop.empty", bson.D{{Key: "capped", Value: true}, {Key: "size", Value: 4096.0}}, []bson.D{idIndex()})
	s.add(t, "shop.odd $name/%", bson.D{}, nil, bson.D{{Key: "_id", Value: "odd"}})
	s.add(t, "shop."+longName, bson.D{}, nil, bson.D{{Key: "_id", Value: "long"}})
	s.add(t, "shop.system.buckets.weather", bson.D{
		{Key: "validator", Value: bson.D{}},
		{Key: "clusteredIndex", Value: true},
		{Key: "expireAfterSeconds", Value: int64(60)},
		{Key: "timeseries", Value: bson.D{{Key: "timeField", Value: "t"}, {Key: "metaField", Value: "m"}}},
	}, []bson.D{{{Key: "v", Value: int32(2)}, {Key: "key", Value: bson.D{{Key: "meta", Value: int32(1)}, {Key: "control.min.t", Value: int32(1)}, {Key: "control.max.t", Value: int32(1)}}}, {Key: "name", Value: "m_1_t_1"}}},
		bson.D{{Key: "_id", Value: "bucket"}})
	s.add(t, "shop.system.buckets.orphan", bson.D{{Key: "timeseries", Value: bson.D{{Key: "timeField", Value: "t"}}}}, nil, bson.D{{Key: "_id", Value: "left"}})
	return s
}

// wanted is what a dump of everything holds: documents by file, without an extension.
func wanted(s *fakeSource) map[string][][]byte {
	want := map[string][][]byte{"admin/system.version": {mustDoc(bson.D{{Key: "_id", Value: "authSchema"}, {Key: "currentVersion", Value: int32(5)}})}}
	for _, t := range s.tables {
		db, name, _ := strings.Cut(t.Namespace, ".")
		if name != "system.views" {
			want[db+"/"+format.FileName(name)] = s.rows[t.ID]
		}
	}
	return want
}

func mustDoc(v any) []byte {
	b, err := bson.Marshal(v)
	if err != nil {
		panic(err)
	}
	return b
}

// readFolder returns every file by its name in the folder, uncompressed.
func readFolder(t *testing.T, dir string) map[string][]byte {
	t.Helper()
	out := map[string][]byte{}
	err := filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		data, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		name, err := filepath.Rel(dir, path)
		if plain, zipped := strings.CutSuffix(name, ".gz"); zipped {
			zr, zerr := gzip.NewReader(bytes.NewReader(data))
			if zerr != nil {
				return zerr
			}
			data, err = io.ReadAll(zr)
			name = plain
		}
		out[name] = data
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func TestDirectory(t *testing.T) {
	for _, o := range []bsondump.Options{{}, {Gzip: true, Workers: 4}} {
		s := everything(t)
		dir := filepath.Join(t.TempDir(), "new", "dump")
		sum, err := bsondump.WriteDirectory(t.Context(), dir, s, o)
		if err != nil {
			t.Fatal(err)
		}
		files := readFolder(t, dir)
		for name, docs := range wanted(s) {
			if got := files[name+".bson"]; !bytes.Equal(got, bytes.Join(docs, nil)) {
				t.Errorf("%s: %x", name, got)
			}
		}
		wantMetadata(t, files)
		wantSummary(t, s, sum)
		if n := s.open.Load(); n != 0 {
			t.Errorf("%d readings were not closed", n)
		}
		if left, _ := filepath.Glob(dir + ".*"); len(left) > 0 {
			t.Errorf("left %q", left)
		}
	}
}

func wantMetadata(t *testing.T, files map[string][]byte) {
	t.Helper()
	id := func(n int) string { return fmt.Sprintf("ab%028d%02x", 0, n) }
	indexID := `{"v":{"$numberInt":"2"},"key":{"_id":{"$numberInt":"1"}},"name":"_id_"}`
	for name, want := range map[string]string{
		"shop/cheap": `{"options":{"viewOn":"items","pipeline":[{"$match":{}}]},"indexes":[],"collectionName":"cheap","type":"view"}`,
		"shop/items": `{"indexes":[` + indexID + `],"uuid":"` + id(12) + `","collectionName":"items","type":"collection"}`,
		"shop/empty": `{"options":{"capped":true,"size":{"$numberDouble":"4096.0"}},"indexes":[` + indexID + `],"uuid":"` + id(13) + `","collectionName":"empty","type":"collection"}`,
		"shop/weather": `{"options":{"expireAfterSeconds":{"$numberLong":"60"},"timeseries":{"timeField":"t","metaField":"m"}},` +
			`"indexes":[{"v":{"$numberInt":"2"},"key":{"m":{"$numberInt":"1"},"t":{"$numberInt":"1"}},"name":"m_1_t_1"}],"collectionName":"weather","type":"timeseries"}`,
		"shop/odd+%24name%2F%25": `{"indexes":[],"uuid":"` + id(14) + `","collectionName":"odd $name/%","type":"collection"}`,
	} {
		if got := string(files[name+".metadata.json"]); got != want {
			t.Errorf("%s:\n%s, want\n%s", name, got, want)
		}
	}
	for _, none := range []string{"shop/system.views.bson", "shop/system.views.metadata.json", "shop/cheap.bson", "admin/system.version.metadata.json"} {
		if _, ok := files[none]; ok {
			t.Errorf("%s should not be there", none)
		}
	}
	var long struct{ CollectionName string }
	file := "shop/" + format.FileName(longName)
	if err := json.Unmarshal(files[file+".metadata.json"], &long); err != nil || long.CollectionName != longName || len(filepath.Base(file)) != 238 {
		t.Errorf("%s: %+v, %v", file, long, err)
	}
}

func wantSummary(t *testing.T, s *fakeSource, sum *format.Summary) {
	t.Helper()
	count, size := int64(0), int64(0)
	for _, docs := range wanted(s) {
		count += int64(len(docs))
		for _, d := range docs {
			size += int64(len(d))
		}
	}
	if sum.Count != count || sum.Bytes != size {
		t.Errorf("counted %d documents of %d bytes, want %d of %d", sum.Count, sum.Bytes, count, size)
	}
	for _, w := range sum.Namespaces {
		if w.Namespace != "shop.items" {
			continue
		}
		var h format.Hash
		rows := slices.Clone(s.rows[s.tables[2].ID])
		slices.Reverse(rows)
		for _, d := range rows {
			h.Add(d)
		}
		if w.Count != 2 || w.Hash != h || h == (format.Hash{}) || w.Type != "collection" {
			t.Errorf("%+v, want 2 documents of hash %v", w, h)
		}
	}
}

// readArchive is a reader of archives after the specification, without mercy.
func readArchive(t *testing.T, r io.Reader) (metadata map[string]string, docs map[string][][]byte) {
	t.Helper()
	in := bufio.NewReader(r)
	next := func() bson.Raw { // nil at a terminator
		head := make([]byte, 4)
		if _, err := io.ReadFull(in, head); err != nil {
			t.Fatal(err)
		}
		n := binary.LittleEndian.Uint32(head)
		if n == 0xffffffff {
			return nil
		}
		rest := make([]byte, n-4)
		if _, err := io.ReadFull(in, rest); err != nil {
			t.Fatal(err)
		}
		return append(head, rest...)
	}
	text := func(d bson.Raw, name string) string { return d.Lookup(name).StringValue() }
	magic := make([]byte, 4)
	if _, err := io.ReadFull(in, magic); err != nil || binary.LittleEndian.Uint32(magic) != 0x8199e26d {
		t.Fatalf("magic %x, %v", magic, err)
	}
	if head := next(); text(head, "version") != "0.1" || head.Lookup("concurrent_collections").Int32() != 1 || text(head, "server_version") != "6.0.5" {
		t.Fatalf("header %v", head)
	}
	metadata, docs = map[string]string{}, map[string][][]byte{}
	for d := next(); d != nil; d = next() {
		metadata[text(d, "db")+"/"+format.FileName(text(d, "collection"))+".metadata.json"] = text(d, "metadata")
	}
	for {
		if _, err := in.Peek(1); errors.Is(err, io.EOF) {
			return metadata, docs
		}
		head := next()
		ns := text(head, "db") + "/" + format.FileName(text(head, "collection"))
		if head.Lookup("EOF").Boolean() {
			sum := crc64.Checksum(bytes.Join(docs[ns], nil), crc64.MakeTable(crc64.ECMA))
			if got := uint64(head.Lookup("CRC").Int64()); got != sum {
				t.Errorf("%s: CRC %x, want %x", ns, got, sum)
			}
			if next() != nil {
				t.Fatalf("%s: documents after its end", ns)
			}
			continue
		}
		docs[ns] = [][]byte{}
		for d := next(); d != nil; d = next() {
			docs[ns] = append(docs[ns], d)
		}
	}
}

func TestArchive(t *testing.T) {
	for _, zip := range []bool{false, true} {
		s := everything(t)
		path := filepath.Join(t.TempDir(), "dump.archive")
		sum, err := bsondump.WriteArchive(t.Context(), path, s, bsondump.Options{Gzip: zip, ServerVersion: "6.0.5"})
		if err != nil {
			t.Fatal(err)
		}
		file, err := os.Open(path)
		if err != nil {
			t.Fatal(err)
		}
		var in io.Reader = file
		if zip {
			if in, err = gzip.NewReader(file); err != nil {
				t.Fatal(err)
			}
		}
		metadata, docs := readArchive(t, in)
		if err := file.Close(); err != nil {
			t.Fatal(err)
		}
		want := wanted(s)
		for name, d := range docs {
			if !bytes.Equal(bytes.Join(d, nil), bytes.Join(want[name], nil)) {
				t.Errorf("%s: %x", name, d)
			}
		}
		if len(docs) != len(want)+1 || docs["shop/cheap"] == nil { // a view has an empty block
			t.Errorf("%d namespaces, want %d", len(docs), len(want)+1)
		}
		files := map[string][]byte{}
		for name, text := range metadata {
			if text != "" {
				files[name] = []byte(text)
			}
		}
		wantMetadata(t, files)
		wantSummary(t, s, sum)
		if _, err := bsondump.WriteArchive(t.Context(), path, s, bsondump.Options{}); err == nil {
			t.Error("an archive was overwritten")
		}
	}
}

func TestJSONLines(t *testing.T) {
	s := everything(t)
	dir := filepath.Join(t.TempDir(), "dump")
	sum, err := jsonl.WriteDirectory(t.Context(), dir, s, jsonl.Options{Gzip: true})
	if err != nil {
		t.Fatal(err)
	}
	files := readFolder(t, dir)
	if got, want := string(files["shop/items.jsonl"]), "{\"_id\":{\"$numberInt\":\"2\"}}\n{\"_id\":{\"$numberInt\":\"1\"},\"x\":\"y\"}\n"; got != want {
		t.Errorf("%s, want %s", got, want)
	}
	wantMetadata(t, files)
	wantSummary(t, s, sum)
}

// TestFailuresLeaveNothing: what is not complete has no name that looks complete, and no rest.
func TestFailuresLeaveNothing(t *testing.T) {
	broken := errors.New("broken segment")
	damage := func(s *fakeSource) { s.rows[s.tables[3].ID] = [][]byte{{6, 0, 0, 0, 0}} }
	for name, spoil := range map[string]func(*fakeSource){
		"the source fails":       func(s *fakeSource) { s.fail = broken },
		"no document":            damage,
		"a name that leads away": func(s *fakeSource) { s.add(t, "../x.y", bson.D{}, nil) },
		"twice in the catalog":   func(s *fakeSource) { s.add(t, "shop.items", bson.D{}, nil) },
		"not a view": func(s *fakeSource) {
			s.rows[s.tables[1].ID] = append(s.rows[s.tables[1].ID], doc(t, bson.D{{Key: "_id", Value: "other.x"}}))
		},
	} {
		for kind, write := range map[string]func(string, format.Source) (*format.Summary, error){
			"dir": func(p string, s format.Source) (*format.Summary, error) {
				return bsondump.WriteDirectory(t.Context(), p, s, bsondump.Options{Workers: 2})
			},
			"archive": func(p string, s format.Source) (*format.Summary, error) {
				return bsondump.WriteArchive(t.Context(), p, s, bsondump.Options{})
			},
			"jsonl": func(p string, s format.Source) (*format.Summary, error) {
				return jsonl.WriteDirectory(t.Context(), p, s, jsonl.Options{})
			},
		} {
			s := everything(t)
			spoil(s)
			root := t.TempDir()
			sum, err := write(filepath.Join(root, "out"), s)
			if err == nil || sum != nil || name == "the source fails" && !errors.Is(err, broken) {
				t.Errorf("%s to %s: %v, %v", name, kind, sum, err)
			}
			if left := readFolder(t, root); len(left) > 0 || s.open.Load() != 0 {
				t.Errorf("%s to %s: left %v, %d readings open", name, kind, left, s.open.Load())
			}
		}
	}
}

func TestTargets(t *testing.T) {
	s := everything(t)
	root := t.TempDir()
	write := func(dir string) error {
		_, err := bsondump.WriteDirectory(t.Context(), dir, s, bsondump.Options{})
		return err
	}
	if err := write(root); err != nil {
		t.Errorf("an empty folder: %v", err)
	}
	usage := new(afterimage.UsageError)
	if err := write(root); !errors.As(err, &usage) {
		t.Errorf("a folder that holds something: %v", err)
	}
	if err := write(filepath.Join(root, "shop", "items.bson")); !errors.As(err, &usage) {
		t.Errorf("a file: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	many := &fakeSource{rows: map[afterimage.TableID][][]byte{}}
	many.add(t, "a.b", bson.D{}, nil)
	for range 3000 {
		many.rows[many.tables[0].ID] = append(many.rows[many.tables[0].ID], []byte{5, 0, 0, 0, 0})
	}
	if _, err := bsondump.StreamArchive(ctx, io.Discard, many, bsondump.Options{}); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
}

func BenchmarkWrite(b *testing.B) {
	s := &fakeSource{rows: map[afterimage.TableID][][]byte{}}
	s.add(b, "shop.items", bson.D{}, nil)
	row := doc(b, bson.D{{Key: "_id", Value: int32(1)}, {Key: "x", Value: strings.Repeat("x", 950)}})
	for range 30_000 {
		s.rows[s.tables[0].ID] = append(s.rows[s.tables[0].ID], row)
	}
	bytes := int64(len(row)) * 30_000
	b.Run("directory", func(b *testing.B) {
		b.SetBytes(bytes)
		b.ReportAllocs()
		for b.Loop() {
			if _, err := bsondump.WriteDirectory(b.Context(), filepath.Join(b.TempDir(), "d"), s, bsondump.Options{}); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("archive", func(b *testing.B) {
		b.SetBytes(bytes)
		b.ReportAllocs()
		for b.Loop() {
			if _, err := bsondump.StreamArchive(b.Context(), io.Discard, s, bsondump.Options{}); err != nil {
				b.Fatal(err)
			}
		}
	})
}
