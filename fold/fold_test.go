package fold

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/afterimagedb/afterimage"
	"github.com/afterimagedb/afterimage/dialect"
	"github.com/afterimagedb/afterimage/segment"
)

// appender is a dialect in which a patch appends its last byte to the row.
type appender struct{ dialect.Dialect }

func (appender) NewFolder() dialect.Folder { return &appendFolder{} }

var errNoBase = errors.New("no base")

type appendFolder struct {
	st   dialect.State
	lost bool
}

func (f *appendFolder) Reset(afterimage.TableID, []byte) { *f = appendFolder{} }

func (f *appendFolder) Apply(c *afterimage.Change) error {
	switch c.Op {
	case afterimage.OpInsert, afterimage.OpPut:
		born := c.Born
		if born == (afterimage.Born{}) {
			born = afterimage.Born{Time: c.Time, Order: c.Order}
		}
		*f = appendFolder{st: dialect.State{Exists: true, Body: c.Body, Time: c.Time, Born: born}}
	case afterimage.OpDelete:
		*f = appendFolder{}
	case afterimage.OpPatch:
		if !f.st.Exists {
			f.lost = true
			return nil
		}
		f.st.Body = append(slices.Clone(f.st.Body), c.Body[len(c.Body)-1])
		f.st.Time = c.Time
	case afterimage.OpUnknown:
	}
	return nil
}

func (f *appendFolder) State() (dialect.State, error) {
	if f.lost {
		return dialect.State{}, errNoBase
	}
	return f.st, nil
}

func fold(t *testing.T, changes []afterimage.Change, skip func(afterimage.TableID) bool) ([]string, error) {
	t.Helper()
	r := New(segment.SliceIterator(changes), appender{}, skip)
	defer r.Close()
	var out []string
	for r.Next() {
		row := r.Row()
		out = append(out, fmt.Sprintf("%d %s lane%d %s born%d at%d", row.Table[15], row.Key, row.Lane, row.Body, row.Born.Time, row.Time))
	}
	return out, r.Err()
}

func change(table byte, key string, at afterimage.Time, lane afterimage.LaneID, op afterimage.Op, body string) afterimage.Change {
	return afterimage.Change{Table: afterimage.TableID{15: table}, Key: []byte(key), Time: at, Lane: lane, Op: op, Body: []byte(body)}
}

func TestRows(t *testing.T) {
	changes := []afterimage.Change{
		change(1, "a", 1, 0, afterimage.OpInsert, "x"), change(1, "a", 2, 0, afterimage.OpPatch, "y"),
		change(1, "b", 1, 0, afterimage.OpInsert, "x"), change(1, "b", 2, 0, afterimage.OpDelete, ""),
		// One key on two lanes: each folds by itself.
		change(1, "c", 1, 0, afterimage.OpInsert, "p"), change(1, "c", 2, 1, afterimage.OpInsert, "q"), change(1, "c", 3, 0, afterimage.OpPatch, "r"),
		change(2, "a", 1, 0, afterimage.OpInsert, "left out"),
		change(3, "a", 1, 0, afterimage.OpInsert, "z"),
	}
	got, err := fold(t, changes, func(id afterimage.TableID) bool { return id[15] == 2 })
	want := []string{"1 a lane0 xy born1 at2", "1 c lane0 pr born1 at3", "1 c lane1 q born2 at2", "3 a lane0 z born1 at1"}
	if err != nil || !slices.Equal(got, want) {
		t.Errorf("got %q, %v\nwant %q", got, err, want)
	}
}

func TestPatchWithoutBase(t *testing.T) {
	lost := change(1, "a", 1, 0, afterimage.OpPatch, "y")
	if _, err := fold(t, []afterimage.Change{lost}, nil); !errors.Is(err, errNoBase) || !strings.Contains(err.Error(), "key 61") {
		t.Errorf("patch without base: %v", err)
	}
	got, err := fold(t, []afterimage.Change{lost, change(1, "a", 2, 0, afterimage.OpInsert, "x")}, nil)
	if err != nil || len(got) != 1 {
		t.Errorf("a patch before the image: %q, %v", got, err)
	}
}

// TestHotRow folds far more than the arena holds: memory stays bounded and nothing is lost.
func TestHotRow(t *testing.T) {
	changes := []afterimage.Change{change(1, "a", 1, 0, afterimage.OpInsert, "0")}
	want := []byte("0")
	filler := strings.Repeat(".", 64<<10)
	for i := range 300 {
		last := byte('a' + i%26)
		changes = append(changes, change(1, "a", afterimage.Time(i+2), 0, afterimage.OpPatch, filler+string(last)))
		want = append(want, last)
	}
	r := New(segment.SliceIterator(changes), appender{}, nil)
	defer r.Close()
	if !r.Next() || !bytes.Equal(r.Row().Body, want) || r.Row().Born.Time != 1 || r.Row().Time != 301 {
		t.Fatalf("row %+v, %v", r.Row().State, r.Err())
	}
	if n := cap(r.arena); n > 4*arenaBytesMax {
		t.Errorf("the arena grew to %d bytes", n)
	}
}
