//go:build e2e

package mongodb

import (
	"bytes"
	"context"
	"fmt"
	"slices"
	"testing"

	"go.mongodb.org/mongo-driver/bson"
	"go.mongodb.org/mongo-driver/bson/primitive"
	"go.mongodb.org/mongo-driver/mongo"

	"github.com/afterimagedb/afterimage"
	"github.com/afterimagedb/afterimage/bucket"
	dialect "github.com/afterimagedb/afterimage/dialect/mongodb"
	"github.com/afterimagedb/afterimage/manifest"
	"github.com/afterimagedb/afterimage/segment"
)

// judge compares what was published, folded up to a time, with what the server says it was.
type judge struct {
	t      *testing.T
	client *mongo.Client
	bucket bucket.Bucket
	lane   *memoryLane
	all    []afterimage.Change // images' rows and changes, sorted
	state  *manifest.State
	skip   map[afterimage.TableID]bool // 4.4 does not log what falls out of a capped collection
}

// foldedRow is one row as folded.
type foldedRow struct {
	key  []byte
	body []byte
	born afterimage.Born
}

func newJudge(ctx context.Context, t *testing.T, client *mongo.Client, b bucket.Bucket, lane *memoryLane) *judge {
	t.Helper()
	j := &judge{t: t, client: client, bucket: b, lane: lane, all: lane.changes()}
	j.state, _ = lane.State(ctx)
	if len(j.state.Scans) != 0 {
		t.Fatalf("%d scans are not complete", len(j.state.Scans))
	}
	seen := map[string]bool{}
	for _, im := range j.state.Images {
		for _, id := range im.Segments {
			if seen[id] {
				continue
			}
			seen[id] = true
			it, err := segment.Open(ctx, b, j.state.Segments[id], segment.ReadOptions{})
			if err != nil {
				t.Fatal(err)
			}
			for it.Next() {
				c := *it.Change()
				c.Key, c.Body = bytes.Clone(c.Key), bytes.Clone(c.Body)
				j.all = append(j.all, c)
			}
			if err := it.Err(); err != nil {
				t.Fatal(err)
			}
			if err := it.Close(); err != nil {
				t.Fatal(err)
			}
		}
	}
	slices.SortStableFunc(j.all, func(a, b afterimage.Change) int { return a.Compare(&b) })
	return j
}

// unique fails if two logged changes share what must name one.
func (j *judge) unique() {
	for i := 1; i < len(j.all); i++ {
		a, b := &j.all[i-1], &j.all[i]
		if a.Compare(b) == 0 && a.From == afterimage.FromLog && b.From == afterimage.FromLog {
			j.t.Fatalf("twice: %s %s %x at %s.%d", a.Op, a.Table, a.Key, a.Time, a.Order)
		}
	}
}

// skipCapped leaves capped collections out.
func (j *judge) skipCapped(ctx context.Context) {
	j.t.Helper()
	plan, err := listOnce(ctx, &member{client: j.client})
	if err != nil {
		j.t.Fatal(err)
	}
	j.skip = map[afterimage.TableID]bool{}
	for _, tb := range plan.tables {
		j.skip[tb.id] = tb.capped
	}
}

// fold returns the tables' rows at a time, by key.
func (j *judge) fold(at afterimage.Time) map[afterimage.TableID][]foldedRow {
	out := map[afterimage.TableID][]foldedRow{}
	f := dialect.New().NewFolder()
	for i := 0; i < len(j.all); {
		first := &j.all[i]
		if j.skip[first.Table] || !j.exactAt(first.Table, at) {
			i++
			continue
		}
		f.Reset(first.Table, first.Key)
		for ; i < len(j.all) && j.all[i].Table == first.Table && bytes.Equal(j.all[i].Key, first.Key); i++ {
			if c := &j.all[i]; c.Time <= at {
				if err := f.Apply(c); err != nil {
					j.t.Fatalf("%s %s %x at %s: %v", c.Op, c.Table, c.Key, c.Time, err)
				}
			}
		}
		s, err := f.State()
		if err != nil {
			j.t.Fatalf("table %s key %x: %v", first.Table, first.Key, err)
		}
		if s.Exists {
			out[first.Table] = append(out[first.Table], foldedRow{key: first.Key, body: bytes.Clone(s.Body), born: s.Born})
		}
	}
	return out
}

// exactAt reports whether a table's state at a time is promised.
func (j *judge) exactAt(id afterimage.TableID, at afterimage.Time) bool {
	windows, ok := j.state.Windows[id]
	return !ok || slices.ContainsFunc(windows, func(w manifest.Interval) bool { return w.From <= at && (w.To == 0 || at <= w.To) })
}

// snapshot compares every table at a time by the server's own snapshot reads. It returns how many tables and rows it saw.
func (j *judge) snapshot(ctx context.Context, at afterimage.Time) (tables, rows int) {
	j.t.Helper()
	ours := j.fold(at)
	var theirs []afterimage.TableID
	plan := &scanPlan{at: at}
	if err := plan.listCatalog(ctx, &member{client: j.client}); err != nil {
		j.t.Fatal(err)
	}
	for _, tb := range plan.tables {
		theirs = append(theirs, tb.id)
		if tb.capped || !j.exactAt(tb.id, at) {
			continue
		}
		tables++
		rows += j.compare(ctx, tb, ours[tb.id], at, bson.E{Key: "readConcern", Value: snapshotAt(at)})
	}
	j.catalog(ours[afterimage.CatalogTable], theirs, at)
	return tables, rows
}

func (j *judge) catalog(ours []foldedRow, theirs []afterimage.TableID, at afterimage.Time) {
	j.t.Helper()
	var ids []afterimage.TableID
	for _, r := range ours {
		ids = append(ids, afterimage.TableID(r.key))
	}
	less := func(a, b afterimage.TableID) int { return bytes.Compare(a[:], b[:]) }
	slices.SortFunc(ids, less)
	slices.SortFunc(theirs, less)
	if !slices.Equal(ids, theirs) {
		j.t.Errorf("at %s: %d tables, want %d\n%v\n%v", at, len(ids), len(theirs), ids, theirs)
	}
}

// now compares every table, capped ones in their order, with the server as it stands; nobody may write.
func (j *judge) now(ctx context.Context) (tables, rows int) {
	j.t.Helper()
	ours := j.fold(afterimage.MaxTime)
	plan, err := listOnce(ctx, &member{client: j.client})
	if err != nil {
		j.t.Fatal(err)
	}
	var theirs []afterimage.TableID
	for _, tb := range plan.tables {
		theirs = append(theirs, tb.id)
		if j.skip[tb.id] {
			continue
		}
		tables++
		rows += j.compare(ctx, tb, ours[tb.id], 0)
	}
	j.catalog(ours[afterimage.CatalogTable], theirs, 0)
	return tables, rows
}

// compare reads a table from the server and compares it byte for byte.
func (j *judge) compare(ctx context.Context, tb scanTable, ours []foldedRow, at afterimage.Time, more ...bson.E) int {
	j.t.Helper()
	cmd := append(bson.D{{Key: "find", Value: primitive.Binary{Subtype: 4, Data: tb.id[:]}}}, more...)
	if tb.capped {
		cmd = append(cmd, bson.E{Key: "hint", Value: bson.D{{Key: "$natural", Value: 1}}})
		slices.SortStableFunc(ours, func(a, b foldedRow) int { return a.born.Compare(b.born) })
	}
	docs, err := all(ctx, j.client.Database(tb.db), cmd)
	if hasCode(err, codeNamespaceNotFound, codeSnapshotUnavailable) {
		return 0 // dropped since, or its catalog entry changed: the server no longer reads it at that time
	}
	if err != nil {
		j.t.Fatalf("%s at %s: %v", tb.ns, at, err)
	}
	want := make([]foldedRow, 0, len(docs))
	for _, d := range docs {
		key, err := dialect.AppendDocKey(nil, d)
		if err != nil {
			j.t.Fatal(err)
		}
		want = append(want, foldedRow{key: key, body: d})
	}
	if !tb.capped {
		slices.SortFunc(want, func(a, b foldedRow) int { return bytes.Compare(a.key, b.key) })
	}
	for i := range max(len(want), len(ours)) {
		switch {
		case i >= len(want) || i >= len(ours):
			j.t.Errorf("%s (%s) at %s: %d rows, want %d", tb.ns, tb.id, at, len(ours), len(want))
			return len(want)
		case !bytes.Equal(want[i].body, ours[i].body):
			j.t.Errorf("%s (%s) at %s row %d of %d:\n%s\nwant\n%s", tb.ns, tb.id, at, i, len(want), bson.Raw(ours[i].body), bson.Raw(want[i].body))
			return len(want)
		}
	}
	return len(want)
}

func (r foldedRow) String() string { return fmt.Sprintf("%x", r.key) }
