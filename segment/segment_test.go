package segment

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/afterimagedb/afterimage"
)

// copyChange copies what an iterator lends.
func copyChange(c *afterimage.Change) afterimage.Change {
	d := *c
	d.Key, d.Body = append([]byte{}, c.Key...), append([]byte{}, c.Body...)
	return d
}

func drain(t testing.TB, it Iterator) []afterimage.Change {
	t.Helper()
	var out []afterimage.Change
	for it.Next() {
		out = append(out, copyChange(it.Change()))
	}
	if err := it.Err(); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := it.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if it.Next() {
		t.Fatal("Next after Close")
	}
	return out
}

func write(t testing.TB, o WriterOptions, changes []afterimage.Change) ([]byte, Meta) {
	t.Helper()
	if o.Kind == "" {
		o.Kind = Changes
	}
	w, err := NewWriter(o)
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
	return data, m
}

func open(t testing.TB, data []byte, m Meta, o ReadOptions) Iterator {
	t.Helper()
	it, err := Open(t.Context(), object(data), m, o)
	if err != nil {
		t.Fatal(err)
	}
	return it
}

func same(a, b []afterimage.Change) error {
	for i := range min(len(a), len(b)) {
		x, y := a[i], b[i]
		if !bytes.Equal(x.Key, y.Key) || !bytes.Equal(x.Body, y.Body) {
			return fmt.Errorf("row %d: key or body differ", i)
		}
		x.Key, x.Body, x.Pos, y.Key, y.Body, y.Pos = nil, nil, afterimage.Position{}, nil, nil, afterimage.Position{}
		if fmt.Sprint(x) != fmt.Sprint(y) {
			return fmt.Errorf("row %d: %+v, want %+v", i, x, y)
		}
	}
	if len(a) != len(b) {
		return fmt.Errorf("%d rows, want %d", len(a), len(b))
	}
	return nil
}

func sortUnique(changes []afterimage.Change) []afterimage.Change {
	slices.SortStableFunc(changes, func(a, b afterimage.Change) int { return a.Compare(&b) })
	return slices.CompactFunc(changes, func(a, b afterimage.Change) bool { return a.Compare(&b) == 0 })
}

// genChanges draws sorted changes whose columns are now constant, now not, over several row groups or one.
func genChanges(t *rapid.T) []afterimage.Change {
	r := rand.New(rand.NewPCG(rapid.Uint64().Draw(t, "seed"), 1))
	n := rapid.IntRange(1, 400).Draw(t, "rows")
	tables := rapid.IntRange(1, 3).Draw(t, "tables")
	keys := rapid.SampledFrom([]int{1, 5, 100, 100000}).Draw(t, "keys")
	bodyMax := rapid.SampledFrom([]int{1, 100, 20000}).Draw(t, "body")
	vary := rapid.Bool().Draw(t, "vary")
	out := make([]afterimage.Change, n)
	for i := range out {
		c := &out[i]
		c.Table[15] = byte(r.IntN(tables))
		if k := r.IntN(keys); k > 0 {
			c.Key = fmt.Appendf(nil, "%d", k)
		}
		c.Time, c.Op = afterimage.Time(r.IntN(50)), afterimage.OpPut
		if vary {
			c.Time |= afterimage.Time(r.Uint64() << 6)
			c.Order, c.Wall, c.Lane = r.Uint32(), int64(r.Uint64()), afterimage.LaneID(r.IntN(3))
			c.Born = afterimage.Born{Time: afterimage.Time(r.Uint64()), Order: r.Uint32()}
			c.Op, c.From = afterimage.Op(1+r.IntN(5)), afterimage.Provenance(r.IntN(3))
		} else {
			c.Order = uint32(i)
		}
		c.Body = make([]byte, r.IntN(bodyMax))
		for j := range c.Body {
			c.Body[j] = byte(r.IntN(4))
		}
	}
	return sortUnique(out)
}

func genOptions(t *rapid.T, changes []afterimage.Change) ReadOptions {
	var o ReadOptions
	pick := func(name string) *afterimage.Change {
		return &changes[rapid.IntRange(0, len(changes)-1).Draw(t, name)]
	}
	bound := func(name string) afterimage.Bound {
		c := pick(name)
		b := afterimage.Bound{Table: c.Table, Key: bytes.Clone(c.Key)}
		if rapid.Bool().Draw(t, name+" beside") {
			b.Key = append(b.Key, 0)
		}
		return b
	}
	switch rapid.IntRange(0, 4).Draw(t, "range") {
	case 0:
		o.Range = afterimage.Range{From: bound("from"), To: bound("to")}
	case 1:
		o.Range.From = bound("from")
	case 2:
		b := bound("one")
		o.Range = afterimage.KeyRange(b.Table, b.Key)
	case 3:
		o.Range = afterimage.TableRange(pick("table").Table)
	}
	if rapid.Bool().Draw(t, "bounded below") {
		o.After = pick("after").Time
	}
	if rapid.Bool().Draw(t, "bounded above") {
		o.Until = pick("until").Time
	}
	return o
}

func wanted(changes []afterimage.Change, o ReadOptions) []afterimage.Change {
	var out []afterimage.Change
	for _, c := range changes {
		if o.Range.Contains(afterimage.Bound{Table: c.Table, Key: c.Key}) && (o.After == 0 || c.Time > o.After) && (o.Until == 0 || c.Time <= o.Until) {
			out = append(out, c)
		}
	}
	return out
}

func TestWriteReadEqual(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		changes := genChanges(rt)
		kind := rapid.SampledFrom([]Kind{Changes, Image}).Draw(rt, "kind")
		data, m := write(t, WriterOptions{Kind: kind, Level: rapid.IntRange(0, 2).Draw(rt, "level"), Parents: []string{"a", "b"}}, changes)
		if err := Verify(data, m); err != nil {
			rt.Fatal(err)
		}
		if err := same(drain(t, open(t, data, m, ReadOptions{})), changes); err != nil {
			rt.Fatal(err)
		}
		for range 8 {
			o := genOptions(rt, changes)
			if err := same(drain(t, open(t, data, m, o)), wanted(changes, o)); err != nil {
				rt.Fatalf("%+v: %v", o, err)
			}
		}
	})
}

func TestMergeEqualsSort(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		all := genChanges(rt)
		k := rapid.IntRange(0, 9).Draw(rt, "inputs")
		r := rand.New(rand.NewPCG(rapid.Uint64().Draw(rt, "seed"), 2))
		parts := make([][]afterimage.Change, k)
		var want []afterimage.Change
		for _, c := range all {
			if k == 0 {
				break
			}
			want = append(want, c)
			first := r.IntN(k)
			parts[first] = append(parts[first], c)
			if later := first + 1 + r.IntN(4); later < k { // the same change again, told apart by its wall
				c.Wall++
				parts[later] = append(parts[later], c)
			}
		}
		its := make([]Iterator, 0, k)
		for i, p := range parts {
			if i%2 == 0 && len(p) > 0 {
				data, m := write(t, WriterOptions{}, p)
				its = append(its, open(t, data, m, ReadOptions{}))
			} else {
				its = append(its, SliceIterator(p))
			}
		}
		if err := same(drain(t, Merge(its...)), want); err != nil {
			rt.Fatal(err)
		}
	})
}

// failing yields its rows and then an error.
type failing struct {
	Iterator
	err    error
	closed int
}

func (f *failing) Err() error { return f.err }

func (f *failing) Close() error {
	f.closed++
	return f.Iterator.Close()
}

func TestMergeStopsAtError(t *testing.T) {
	rows := documents(20)
	bad := &failing{Iterator: SliceIterator(rows[:5]), err: errors.New("disk on fire")}
	it := Merge(SliceIterator(rows[10:]), bad, SliceIterator(nil))
	n := 0
	for it.Next() {
		n++
	}
	if !errors.Is(it.Err(), bad.err) || n > 5 {
		t.Fatalf("%d rows, error %v", n, it.Err())
	}
	if err := it.Close(); err != nil || bad.closed != 1 {
		t.Fatalf("%v, closed %d times", err, bad.closed)
	}
}

func TestAppendRefusesDisorder(t *testing.T) {
	base := afterimage.Change{Table: afterimage.TableID{1}, Key: []byte("k"), Time: 5, Order: 5, Op: afterimage.OpPut}
	for name, edit := range map[string]func(*afterimage.Change){
		"same":  func(*afterimage.Change) {},
		"table": func(c *afterimage.Change) { c.Table[0], c.Key, c.Time = 0, []byte("z"), 9 },
		"key":   func(c *afterimage.Change) { c.Key, c.Time = []byte("j"), 9 },
		"time":  func(c *afterimage.Change) { c.Time, c.Order = 4, 9 },
		"order": func(c *afterimage.Change) { c.Order = 4 },
	} {
		t.Run(name, func(t *testing.T) {
			w, err := NewWriter(WriterOptions{Kind: Changes})
			if err != nil {
				t.Fatal(err)
			}
			if err := w.Append(&base); err != nil {
				t.Fatal(err)
			}
			c := copyChange(&base)
			edit(&c)
			if err := w.Append(&c); !errors.Is(err, ErrOrder) {
				t.Fatal(err)
			}
			c = copyChange(&base)
			c.Order++
			if err := w.Append(&c); err != nil {
				t.Fatal("a refused row must leave the writer whole:", err)
			}
			data, m, err := w.Close()
			if err != nil || m.Rows != 2 || Verify(data, m) != nil {
				t.Fatal(err, m)
			}
		})
	}
}

func TestEmptyIsRefused(t *testing.T) {
	w, err := NewWriter(WriterOptions{Kind: Changes})
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := w.Close(); !errors.Is(err, ErrEmpty) {
		t.Fatal(err)
	}
	if err := w.Append(&afterimage.Change{}); err == nil {
		t.Fatal("append after close")
	}
}

func TestLargeAndEmptyRows(t *testing.T) {
	big := make([]byte, 17<<20)
	r := rand.NewChaCha8([32]byte{})
	_, _ = r.Read(big)
	changes := []afterimage.Change{
		{Op: afterimage.OpPut},
		{Table: afterimage.TableID{1}, Time: 1, Op: afterimage.OpPut, Body: big},
		{Table: afterimage.TableID{1}, Key: big[:3<<20], Time: 2, Op: afterimage.OpDelete},
		{Table: afterimage.TableID{2}, Key: []byte{0}, Time: afterimage.MaxTime, Order: afterimage.OrderImage, Wall: -1, Body: []byte{}},
	}
	slices.SortFunc(changes, func(a, b afterimage.Change) int { return a.Compare(&b) })
	data, m := write(t, WriterOptions{Kind: Image}, changes)
	if err := Verify(data, m); err != nil {
		t.Fatal(err)
	}
	if err := same(drain(t, open(t, data, m, ReadOptions{})), changes); err != nil {
		t.Fatal(err)
	}
}

func TestBytesEstimatesTheObject(t *testing.T) {
	w, err := NewWriter(WriterOptions{Kind: Changes})
	if err != nil {
		t.Fatal(err)
	}
	rows := documents(6000)
	for i := range rows {
		if err := w.Append(&rows[i]); err != nil {
			t.Fatal(err)
		}
	}
	guess := w.Bytes()
	data, m, err := w.Close()
	if err != nil || w.Rows() != 6000 || m.Bytes != int64(len(data)) {
		t.Fatal(err, w.Rows(), m.Bytes)
	}
	if d := float64(guess) / float64(m.Bytes); d < 0.9 || d > 1.1 {
		t.Fatalf("estimated %d, is %d", guess, m.Bytes)
	}
}

func TestNewIDSorts(t *testing.T) {
	a, b := NewID(), NewID()
	if a == b || a[:12] > b[:12] || strings.ToLower(a) != a || len(a) != 29 {
		t.Fatal(a, b)
	}
}

// counting counts reads.
type counting struct {
	object
	reads       int
	bytes, most int64
}

func (c *counting) GetRange(ctx context.Context, name string, offset, length int64) ([]byte, error) {
	c.reads++
	c.bytes += length
	c.most = max(c.most, length)
	return c.object.GetRange(ctx, name, offset, length)
}

func TestPointReadIsSmall(t *testing.T) {
	rows := documents(8000)
	data, m := write(t, WriterOptions{Kind: Image}, rows)
	for _, i := range []int{0, 1, 777, 4000, 7999} {
		g := &counting{object: data}
		it, err := Open(t.Context(), g, m, ReadOptions{Range: afterimage.KeyRange(rows[i].Table, rows[i].Key)})
		if err != nil {
			t.Fatal(err)
		}
		if err := same(drain(t, it), rows[i:i+1]); err != nil {
			t.Fatal(err)
		}
		if g.reads > 3 || g.bytes > 600<<10 {
			t.Fatalf("row %d: %d reads, %d bytes", i, g.reads, g.bytes)
		}
	}
	passed := 0
	for i := range 1000 {
		g := &counting{object: data}
		absent := append(bytes.Clone(rows[i*7].Key), 'x')
		it, err := Open(t.Context(), g, m, ReadOptions{Range: afterimage.KeyRange(rows[0].Table, absent)})
		if err != nil {
			t.Fatal(err)
		}
		if len(drain(t, it)) != 0 {
			t.Fatal("found what is not there")
		}
		if g.bytes > 100<<10 {
			passed++
		}
	}
	if passed > 30 {
		t.Fatalf("the filter let %d of 1000 absent rows pass", passed)
	}
}

func TestScanFetchesBounded(t *testing.T) {
	rows := documents(30000)
	data, m := write(t, WriterOptions{Kind: Changes}, rows)
	for _, tc := range []struct {
		limit, most int64
		reads       int
	}{{0, fetchBytes, 7}, {1 << 20, 1 << 20, 14}, {1, 400 << 10, 100}} {
		g := &counting{object: data}
		it, err := Open(t.Context(), g, m, ReadOptions{FetchBytes: tc.limit})
		if err != nil {
			t.Fatal(err)
		}
		if n := len(drain(t, it)); n != len(rows) {
			t.Fatal(n)
		}
		if g.most > tc.most || g.reads > tc.reads {
			t.Fatalf("%d reads for %d bytes, the largest %d", g.reads, len(data), g.most)
		}
	}
}

// TestSkipsByTime sees that row groups outside the times asked for are not read.
func TestSkipsByTime(t *testing.T) {
	rows := documents(8000)
	for i := range rows {
		rows[i].Time = afterimage.MongoTime(uint32(i), 1)
	}
	data, m := write(t, WriterOptions{Kind: Changes}, rows)
	g := &counting{object: data}
	it, err := Open(t.Context(), g, m, ReadOptions{After: rows[4000].Time, Until: rows[4010].Time})
	if err != nil {
		t.Fatal(err)
	}
	if err := same(drain(t, it), rows[4001:4011]); err != nil {
		t.Fatal(err)
	}
	if g.bytes > 700<<10 {
		t.Fatalf("read %d bytes", g.bytes)
	}
}
