package snapshotter

import (
	"bytes"
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"

	"pgregory.net/rapid"

	"github.com/afterimagedb/afterimage"
	"github.com/afterimagedb/afterimage/manifest"
	"github.com/afterimagedb/afterimage/segment"
)

// rowAt is a row's place in row space.
type rowAt struct {
	table afterimage.TableID
	key   string
}

// truth is what the server holds at one time; tables are rows of the catalog.
type truth map[rowAt]truthRow

type truthRow struct {
	body string
	seq  int // order of insertion
}

func tableNo(n byte) afterimage.TableID { return afterimage.TableID{0: 0x70, 15: n} }

func (tr truth) tables() []afterimage.TableID {
	var out []afterimage.TableID
	for r := range tr {
		if r.table == afterimage.CatalogTable {
			out = append(out, afterimage.TableID([]byte(r.key)))
		}
	}
	slices.SortFunc(out, func(a, b afterimage.TableID) int { return bytes.Compare(a[:], b[:]) })
	return out
}

func (tr truth) has(id afterimage.TableID) bool {
	_, ok := tr[rowAt{afterimage.CatalogTable, string(id[:])}]
	return ok
}

func (tr truth) ordered(id afterimage.TableID) bool {
	return strings.HasPrefix(tr[rowAt{afterimage.CatalogTable, string(id[:])}].body, "!")
}

// keys of a table within a range, in order.
func (tr truth) keys(r afterimage.Range) []rowAt {
	var out []rowAt
	for k := range tr {
		if r.Contains(afterimage.Bound{Table: k.table, Key: []byte(k.key)}) {
			out = append(out, k)
		}
	}
	slices.SortFunc(out, func(a, b rowAt) int {
		if n := bytes.Compare(a.table[:], b.table[:]); n != 0 {
			return n
		}
		return strings.Compare(a.key, b.key)
	})
	return out
}

// world is a random history of a server, and what was captured of it.
type world struct {
	rt     *rapid.T
	last   afterimage.Time // times are 1 to last
	at     []truth         // by time
	log    []afterimage.Change
	state  *manifest.State
	bucket *objects
	start  afterimage.Time // the log was read from here on
	gap    span            // times missed, none if to is 0
	tables byte            // created so far
	seq    int
	ids    int
	open   *shared
}

// shared is a segment of images that is being filled, by several small tables.
type shared struct {
	id      string
	changes []afterimage.Change
}

func newWorld(rt *rapid.T) *world {
	w := &world{rt: rt, state: manifest.NewState(), bucket: newObjects()}
	w.last = afterimage.Time(rapid.IntRange(8, 45).Draw(rt, "last"))
	now := truth{}
	for range 3 {
		w.apply(now, w.create(now, 0, 0))
	}
	for range rapid.IntRange(0, 8).Draw(rt, "rows") {
		if c, ok := w.write(now, 0, 0); ok && c.Op == afterimage.OpInsert {
			w.apply(now, c)
		}
	}
	w.at = append(w.at, maps.Clone(now))
	for t := afterimage.Time(1); t <= w.last; t++ {
		for order := range rapid.IntRange(0, 3).Draw(rt, "changes") {
			c, ok := w.change(now, t, uint32(order))
			if !ok {
				continue
			}
			w.apply(now, c)
			w.log = append(w.log, c)
		}
		w.at = append(w.at, maps.Clone(now))
	}
	w.capture()
	return w
}

// change draws a change of a row or of the catalog.
func (w *world) change(now truth, t afterimage.Time, order uint32) (afterimage.Change, bool) {
	switch n := rapid.IntRange(0, 19).Draw(w.rt, "what"); {
	case n == 0 && w.tables < 7:
		return w.create(now, t, order), true
	case n <= 2:
		live := now.tables()
		if len(live) == 0 {
			return afterimage.Change{}, false
		}
		id := rapid.SampledFrom(live).Draw(w.rt, "table")
		c := afterimage.Change{Time: t, Order: order, Op: afterimage.OpDelete, Table: afterimage.CatalogTable, Key: id[:]}
		if n == 2 {
			c.Op, c.Body = afterimage.OpPatch, []byte("x")
		}
		return c, true
	}
	return w.write(now, t, order)
}

func (w *world) create(_ truth, t afterimage.Time, order uint32) afterimage.Change {
	w.tables++
	id := tableNo(w.tables)
	body := fmt.Sprintf("db.t%d", w.tables)
	if w.tables%3 == 2 {
		body = "!" + body
	}
	return afterimage.Change{Time: t, Order: order, Op: afterimage.OpInsert, Table: afterimage.CatalogTable, Key: id[:], Body: []byte(body)}
}

// write draws a change of a row.
func (w *world) write(now truth, t afterimage.Time, order uint32) (afterimage.Change, bool) {
	live := now.tables()
	if len(live) == 0 {
		return afterimage.Change{}, false
	}
	id := rapid.SampledFrom(live).Draw(w.rt, "table")
	key := rapid.SampledFrom([]string{"", "a", "a\x00", "b", "c", "cc", "d"}).Draw(w.rt, "key")
	w.ids++
	c := afterimage.Change{
		Time: t, Order: order, Wall: int64(t) * 1000, Op: afterimage.OpInsert, Table: id, Key: []byte(key),
		Body: fmt.Appendf(nil, "v%d", w.ids),
	}
	if _, ok := now[rowAt{id, key}]; ok {
		c.Op = rapid.SampledFrom([]afterimage.Op{afterimage.OpPut, afterimage.OpPatch, afterimage.OpPatch, afterimage.OpDelete}).Draw(w.rt, "op")
		if c.Op == afterimage.OpDelete {
			c.Body = nil
		}
	}
	return c, true
}

// apply does to the server's state what a change does.
func (w *world) apply(now truth, c afterimage.Change) {
	at := rowAt{c.Table, string(c.Key)}
	row := now[at]
	switch c.Op {
	case afterimage.OpInsert:
		w.seq++
		row = truthRow{string(c.Body), w.seq}
	case afterimage.OpPut:
		row.body = string(c.Body)
	case afterimage.OpPatch:
		row.body += string(c.Body)
	case afterimage.OpDelete:
		delete(now, at)
		if c.Table == afterimage.CatalogTable {
			maps.DeleteFunc(now, func(r rowAt, _ truthRow) bool { return r.table == afterimage.TableID(c.Key) })
		}
		return
	case afterimage.OpUnknown:
	}
	now[at] = row
}

// capture draws how the history was captured: where it begins, what was missed, the images, how changes were cut up.
func (w *world) capture() {
	w.start = afterimage.Time(rapid.IntRange(0, int(w.last)/3).Draw(w.rt, "start"))
	at := w.draw("catalog", max(w.start, 2), 3) // a window from 1 on means: since it was created
	done := w.scan(at)
	if rapid.Bool().Draw(w.rt, "gap") && done+2 < w.last {
		w.miss(done)
	}
	w.flush()
	w.storeChanges()
	w.state.Lanes = []manifest.Lane{{Name: "rs0", StartTime: w.start, Horizon: w.last}}
	for range rapid.IntRange(0, 3).Draw(w.rt, "images") {
		w.compact()
	}
}

// draw draws a time from t on.
func (w *world) draw(name string, t afterimage.Time, more int) afterimage.Time {
	return min(w.last, t+afterimage.Time(rapid.IntRange(0, more).Draw(w.rt, name)))
}

// scan reads a first image, catalog first, and returns the time at which it ended.
func (w *world) scan(at afterimage.Time) afterimage.Time {
	live := w.at[at].tables()
	for _, id := range live {
		if _, ok := w.state.Windows[id]; !ok {
			w.state.Windows[id] = []manifest.Interval{}
			if w.gap.to != 0 {
				w.state.Windows[id] = []manifest.Interval{{From: 1, To: w.gap.from - 1}}
			}
		}
	}
	w.scanTable(afterimage.CatalogTable, []afterimage.Bound{}, []afterimage.Time{at})
	for _, id := range live {
		var cuts []afterimage.Bound
		if !w.at[at].ordered(id) {
			for _, key := range []string{"a\x00", "c"} {
				if rapid.Bool().Draw(w.rt, "cut") {
					cuts = append(cuts, afterimage.Bound{Table: id, Key: []byte(key)})
				}
			}
		}
		var times []afterimage.Time
		for range len(cuts) + 1 {
			at = w.draw("range", at, 1)
			times = append(times, at)
		}
		if !w.at[at].has(id) {
			continue // dropped meanwhile
		}
		w.scanTable(id, cuts, times)
	}
	return at
}

// scanTable makes the first image of a table out of ranges that were read at several times.
func (w *world) scanTable(id afterimage.TableID, cuts []afterimage.Bound, times []afterimage.Time) {
	whole := afterimage.TableRange(id)
	im := manifest.Image{ID: w.id(), Range: whole, MinTime: times[0], Time: times[len(times)-1]}
	from := whole.From
	if w.open == nil || rapid.Bool().Draw(w.rt, "segment") {
		w.flush()
		w.open = &shared{id: w.id()}
	}
	for i, at := range times {
		r := afterimage.Range{From: from, To: whole.To}
		if i < len(cuts) {
			r.To, from = cuts[i], cuts[i]
		}
		for _, k := range w.at[at].keys(r) {
			row := w.at[at][k]
			c := afterimage.Change{
				Time: at, Order: afterimage.OrderImage, Op: afterimage.OpInsert, From: afterimage.FromImage,
				Table: id, Key: []byte(k.key), Body: []byte(row.body),
			}
			if w.at[at].ordered(id) {
				c.Born = afterimage.Born{Time: at, Order: uint32(row.seq)}
			}
			w.open.changes = append(w.open.changes, c)
			im.Segments = []string{w.open.id}
		}
	}
	w.state.Images = append(w.state.Images, im)
	w.state.Windows[id] = append(w.state.Windows[id], manifest.Interval{From: im.Time})
}

// flush stores the segment being filled.
func (w *world) flush() {
	if w.open != nil && len(w.open.changes) > 0 {
		w.state.Segments[w.open.id] = w.bucket.put(w.rt, w.open.id, segment.Image, w.open.changes)
	}
	w.open = nil
}

// miss makes a gap in the log and reads everything again behind it.
func (w *world) miss(from afterimage.Time) {
	w.flush()
	from = w.draw("gapFrom", from, 5)
	to := w.draw("gapTo", from+1, 8)
	if to >= w.last {
		return
	}
	w.gap = span{from + 1, to - 1}
	w.state.Gaps = append(w.state.Gaps, manifest.Gap{From: from, To: to, Reason: "oplog rolled over"})
	for _, iv := range w.state.Windows {
		if n := len(iv); n > 0 && iv[n-1].To == 0 {
			iv[n-1].To = max(from, iv[n-1].From)
		}
	}
	w.log = slices.DeleteFunc(w.log, func(c afterimage.Change) bool { return from < c.Time && c.Time < to })
	w.scan(w.draw("rescan", to, 3))
}

// storeChanges cuts the captured log into segments, some of which repeat what others hold.
func (w *world) storeChanges() {
	w.log = slices.DeleteFunc(w.log, func(c afterimage.Change) bool { return c.Time <= w.start })
	rest := w.log
	for len(rest) > 0 {
		n := rapid.IntRange(1, min(len(rest), 25)).Draw(w.rt, "cut")
		part := slices.Clone(rest[:n])
		if rapid.IntRange(0, 4).Draw(w.rt, "again") > 0 {
			rest = rest[n:]
		} else {
			rest = rest[(n+1)/2:]
		}
		slices.SortFunc(part, func(a, b afterimage.Change) int { return a.Compare(&b) })
		id := w.id()
		w.state.Segments[id] = w.bucket.put(w.rt, id, segment.Changes, part)
	}
}

// compact builds an image of a part of row space, as a compactor does.
func (w *world) compact() {
	good := w.goodTimes()
	if len(good) == 0 {
		return
	}
	at := rapid.SampledFrom(good).Draw(w.rt, "image")
	var r afterimage.Range
	if n := rapid.IntRange(0, 4).Draw(w.rt, "imageFrom"); n > 0 {
		r.From = afterimage.Bound{Table: tableNo(byte(n)), Key: []byte("b")}
	}
	if n := rapid.IntRange(0, 4).Draw(w.rt, "imageTo"); n > 0 {
		r.To = afterimage.Bound{Table: tableNo(byte(n + 4)), Key: []byte("c")}
	}
	s := New(Options{State: w.state, Bucket: w.bucket, Dialect: plain{}})
	im := manifest.Image{ID: w.id(), Range: r, MinTime: at, Time: at}
	var changes []afterimage.Change
	for _, id := range append([]afterimage.TableID{afterimage.CatalogTable}, w.at[at].tables()...) {
		part, ok := clip(r, afterimage.TableRange(id))
		if !ok {
			continue
		}
		rows, err := s.rows(context.Background(), part, at)
		if err != nil {
			w.rt.Fatal(err)
		}
		for rows.next() {
			row := rows.row()
			changes = append(changes, afterimage.Change{
				Time: at, Order: afterimage.OrderImage, Born: row.Born, Op: afterimage.OpInsert, From: afterimage.FromImage,
				Table: row.Table, Key: bytes.Clone(row.Key), Body: bytes.Clone(row.Body),
			})
		}
		if err := rows.err(); err != nil {
			w.rt.Fatal(err)
		}
		discard(rows)
	}
	if len(changes) > 0 {
		id := w.id()
		w.state.Segments[id] = w.bucket.put(w.rt, id, segment.Image, changes)
		im.Segments = []string{id}
	}
	w.state.Images = append(w.state.Images, im)
}

func (w *world) id() string {
	w.ids++
	return fmt.Sprintf("s%04d", w.ids)
}

// good says from the truth whether a time can be restored.
func (w *world) good(at afterimage.Time) bool {
	if at < 1 || at > w.last || w.gap.to != 0 && w.gap.from <= at && at <= w.gap.to {
		return false
	}
	if !spansOf(w.state.Windows[afterimage.CatalogTable]).has(at) {
		return false
	}
	return !slices.ContainsFunc(w.at[at].tables(), func(id afterimage.TableID) bool { return !w.knows(id, at) })
}

// knows says whether a table that lives is known at a time.
func (w *world) knows(id afterimage.TableID, at afterimage.Time) bool {
	iv, ok := w.state.Windows[id]
	return !ok || spansOf(iv).has(at)
}

func (w *world) goodTimes() []afterimage.Time {
	var out []afterimage.Time
	for t := afterimage.Time(1); t <= w.last; t++ {
		if w.good(t) {
			out = append(out, t)
		}
	}
	return out
}
