package snapshotter

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"

	"github.com/afterimagedb/afterimage"
	"github.com/afterimagedb/afterimage/dialect"
	"github.com/afterimagedb/afterimage/segment"
)

// plain is a dialect made for tests: a body is any bytes, a patch appends to it. A row of the catalog is the namespace,
// behind an exclamation mark when the table is ordered.
type plain struct{}

var (
	_ dialect.Dialect = plain{}
	_ EventDescriber  = plain{}
	_ FieldNamer      = plain{}
)

func (plain) Name() string                        { return "plain" }
func (plain) NewFolder() dialect.Folder           { return &plainFolder{} }
func (plain) FormatKey(b []byte) string           { return string(b) }
func (plain) ParseKey(s string) ([][]byte, error) { return [][]byte{[]byte(s)}, nil }

func (plain) Table(id afterimage.TableID, row []byte) (dialect.Table, error) {
	ns, ordered := strings.CutPrefix(string(row), "!")
	if ns == "" {
		return dialect.Table{}, fmt.Errorf("table %s has no name", id)
	}
	return dialect.Table{ID: id, Namespace: ns, Ordered: ordered, Row: row}, nil
}

func (plain) Event(op afterimage.Op, body, before []byte) (kind, ns, detail string, destructive bool) {
	switch op {
	case afterimage.OpInsert:
		return "create", string(body), "", false
	case afterimage.OpPatch:
		return "rename", string(before), "to " + string(before) + string(body), false
	case afterimage.OpDelete:
		return "drop", string(before), "", true
	default:
	}
	return "", "", "", false
}

// ChangedFields calls every byte a field, named by its place.
func (plain) ChangedFields(before, after []byte) []string {
	var out []string
	for i := range max(len(before), len(after)) {
		if i >= len(before) || i >= len(after) || before[i] != after[i] {
			out = append(out, fmt.Sprint(i))
		}
	}
	return out
}

type plainFolder struct {
	st     dialect.State
	orphan bool
	buf    []byte
}

func (f *plainFolder) Reset(afterimage.TableID, []byte) {
	f.st, f.orphan, f.buf = dialect.State{}, false, f.buf[:0]
}

func (f *plainFolder) Apply(c *afterimage.Change) error {
	switch c.Op {
	case afterimage.OpInsert, afterimage.OpPut:
		born := f.st.Born
		if c.Op == afterimage.OpInsert && c.From != afterimage.FromImage {
			born = afterimage.Born{Time: c.Time, Order: c.Order}
		}
		if c.Born != (afterimage.Born{}) {
			born = c.Born
		}
		f.st, f.orphan = dialect.State{Exists: true, Body: c.Body, Born: born, Time: c.Time}, false
	case afterimage.OpPatch:
		if !f.st.Exists {
			f.orphan = true
		}
		if f.orphan {
			return nil
		}
		if bytes.Equal(c.Body, []byte("bad")) {
			return errors.New("a bad patch")
		}
		f.st.Body = append(append([]byte(nil), f.st.Body...), c.Body...)
		f.st.Time = c.Time
	case afterimage.OpDelete:
		f.st, f.orphan = dialect.State{Time: c.Time}, false
	case afterimage.OpUnknown:
	}
	return nil
}

func (f *plainFolder) State() (dialect.State, error) {
	if f.orphan {
		return dialect.State{}, errors.New("a patch has no version before it")
	}
	return f.st, nil
}

// objects is a bucket of segments in memory that counts what is read.
type objects struct {
	mu    sync.Mutex
	data  map[string][]byte
	reads int
	bytes int64
	fail  map[string]error
}

func newObjects() *objects { return &objects{data: map[string][]byte{}, fail: map[string]error{}} }

func (o *objects) GetRange(_ context.Context, name string, offset, length int64) ([]byte, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.reads++
	o.bytes += length
	if err := o.fail[name]; err != nil {
		return nil, err
	}
	d, ok := o.data[name]
	if !ok || offset+length > int64(len(d)) {
		return nil, fmt.Errorf("%s: no bytes %d to %d", name, offset, offset+length)
	}
	return bytes.Clone(d[offset : offset+length]), nil
}

// tester is a test, or a run of one by rapid.
type tester interface {
	Helper()
	Fatal(args ...any)
}

// put stores changes, sorted, as a segment.
func (o *objects) put(t tester, id string, kind segment.Kind, changes []afterimage.Change) segment.Meta {
	t.Helper()
	w, err := segment.NewWriter(segment.WriterOptions{ID: id, Kind: kind})
	if err != nil {
		t.Fatal(err)
	}
	for i := range changes {
		if err := w.Append(&changes[i]); err != nil {
			t.Fatal(err)
		}
	}
	data, m, err := w.Close()
	if err != nil {
		t.Fatal(err)
	}
	o.data[segment.ObjectName(id)] = data
	return m
}
