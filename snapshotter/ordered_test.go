package snapshotter

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"pgregory.net/rapid"

	"github.com/afterimagedb/afterimage"
	"github.com/afterimagedb/afterimage/dialect"
	"github.com/afterimagedb/afterimage/fold"
)

// listed is a source of given rows, which it hands out in memory that it uses again.
type listed struct {
	rows   []fold.Row
	cur    fold.Row
	end    error
	closed bool
}

func (l *listed) next() bool {
	if len(l.rows) == 0 {
		return false
	}
	next := l.rows[0]
	next.Key, next.Body = append(l.cur.Key[:0], next.Key...), append(l.cur.Body[:0], next.Body...)
	l.cur, l.rows = next, l.rows[1:]
	return true
}

func (l *listed) row() *fold.Row { return &l.cur }

func (l *listed) err() error {
	if len(l.rows) > 0 {
		return nil
	}
	return l.end
}

func (l *listed) Close() error {
	l.closed = true
	return nil
}

// TestSortByBirth sorts random rows in memory and through scratch files of many runs.
func TestSortByBirth(t *testing.T) {
	dir := t.TempDir()
	rapid.Check(t, func(rt *rapid.T) {
		n := rapid.IntRange(0, 60).Draw(rt, "rows")
		in := &listed{}
		for i := range n {
			r := fold.Row{Table: tableNo(1), Key: fmt.Appendf(nil, "%03d", i), Lane: 3}
			r.Body = bytes.Repeat([]byte{byte(i)}, rapid.SampledFrom([]int{0, 1, 20, 300}).Draw(rt, "size"))
			r.Born = afterimage.Born{Time: afterimage.Time(rapid.IntRange(0, 9).Draw(rt, "born")), Order: uint32(rapid.IntRange(0, 2).Draw(rt, "order"))}
			r.Time, r.Exists = afterimage.Time(i), true
			in.rows = append(in.rows, r)
		}
		all := map[string]fold.Row{}
		for _, r := range in.rows {
			all[string(r.Key)] = r
		}
		out, err := sortByBirth(in, dir, rapid.SampledFrom([]int{1, 100, 1000, 1 << 20}).Draw(rt, "memory"))
		if err != nil || !in.closed {
			rt.Fatal(err, in.closed)
		}
		var last fold.Row
		for i := 0; out.next(); i++ {
			r := out.row()
			want := all[string(r.Key)]
			if !bytes.Equal(r.Body, want.Body) || r.Born != want.Born || r.Time != want.Time || r.Table != want.Table || r.Lane != want.Lane || !r.Exists {
				rt.Fatalf("row %+v, want %+v", r, want)
			}
			order := r.Born.Compare(last.Born)
			if i > 0 && (order < 0 || order == 0 && bytes.Compare(last.Key, r.Key) >= 0) {
				rt.Fatalf("%+v after %+v", r, last)
			}
			last = *r
			last.Key = bytes.Clone(r.Key)
			delete(all, string(r.Key))
		}
		if out.err() != nil || len(all) > 0 {
			rt.Fatalf("%v, lost %v", out.err(), all)
		}
		for range 2 {
			if err := out.Close(); err != nil {
				rt.Fatal(err)
			}
		}
		if left, _ := filepath.Glob(filepath.Join(dir, "*")); len(left) > 0 {
			rt.Fatalf("left in the scratch folder: %v", left)
		}
	})
}

func TestSortByBirthErrors(t *testing.T) {
	rows := func() []fold.Row {
		return []fold.Row{
			{Key: []byte("a"), State: dialect.State{Body: []byte("aaaa")}},
			{Key: []byte("b"), State: dialect.State{Body: []byte("bbbb")}},
		}
	}
	broken := errors.New("broken")
	in := &listed{rows: rows(), end: broken}
	if _, err := sortByBirth(in, t.TempDir(), 4); !errors.Is(err, broken) || !in.closed {
		t.Errorf("error %v, closed %v", err, in.closed)
	}
	in = &listed{rows: rows()}
	if _, err := sortByBirth(in, filepath.Join(t.TempDir(), "absent"), 4); !errors.Is(err, os.ErrNotExist) || !in.closed {
		t.Errorf("error %v, closed %v", err, in.closed)
	}
}
