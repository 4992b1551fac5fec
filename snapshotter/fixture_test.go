package snapshotter

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/afterimagedb/afterimage"
	"github.com/afterimagedb/afterimage/manifest"
	"github.com/afterimagedb/afterimage/segment"
)

type (
	interval = manifest.Interval
	gap      = manifest.Gap
)

// fixture is a small state made by hand. Its catalog is known from time 2 on.
type fixture struct {
	t      testing.TB
	state  *manifest.State
	bucket *objects
	n      int
}

func newFixture(t testing.TB) *fixture {
	f := &fixture{t: t, state: manifest.NewState(), bucket: newObjects()}
	f.state.Lanes = []manifest.Lane{{Name: "rs0", Horizon: 100}}
	f.state.Windows[afterimage.CatalogTable] = []interval{{From: 2}}
	return f
}

func (f *fixture) snapshotter() *Snapshotter {
	return New(Options{State: f.state, Bucket: f.bucket, Dialect: plain{}, Scratch: f.t.TempDir()})
}

// changes stores a segment of changes.
func (f *fixture) changes(changes ...afterimage.Change) {
	f.t.Helper()
	f.n++
	slices.SortFunc(changes, func(a, b afterimage.Change) int { return a.Compare(&b) })
	id := fmt.Sprintf("changes%d", f.n)
	f.state.Segments[id] = f.bucket.put(f.t, id, segment.Changes, changes)
}

// ddl stores a change of the catalog.
func (f *fixture) ddl(at afterimage.Time, op afterimage.Op, id afterimage.TableID, body string) {
	f.t.Helper()
	f.changes(afterimage.Change{Time: at, Wall: int64(at) * 10, Op: op, Table: afterimage.CatalogTable, Key: id[:], Body: []byte(body)})
}

// image stores the image of a table at a time, keys and bodies by turns.
func (f *fixture) image(at afterimage.Time, id afterimage.TableID, rows ...string) {
	f.t.Helper()
	f.n++
	name := fmt.Sprintf("image%d", f.n)
	var changes []afterimage.Change
	for i := 0; i < len(rows); i += 2 {
		changes = append(changes, afterimage.Change{
			Time: at, Order: afterimage.OrderImage, Op: afterimage.OpInsert, From: afterimage.FromImage,
			Table: id, Key: []byte(rows[i]), Body: []byte(rows[i+1]),
		})
	}
	f.imageOf(name, at, id, changes)
}

func (f *fixture) imageOf(name string, at afterimage.Time, id afterimage.TableID, changes []afterimage.Change) {
	f.t.Helper()
	f.state.Segments[name] = f.bucket.put(f.t, name, segment.Image, changes)
	f.state.Images = append(f.state.Images, manifest.Image{
		ID: name, Range: afterimage.TableRange(id), MinTime: at, Time: at, Segments: []string{name},
	})
}

func manyKey(i int) []byte { return fmt.Appendf(nil, "key%08d", i) }

// many stores an image "many" at time 50 of n rows that hardly compress.
func (f *fixture) many(id afterimage.TableID, n, size int) {
	f.t.Helper()
	r := rand.New(rand.NewPCG(1, 2))
	changes := make([]afterimage.Change, n)
	for i := range changes {
		body := make([]byte, size)
		for j := range body {
			body[j] = byte(r.Uint32() % 64)
		}
		changes[i] = afterimage.Change{
			Time: 50, Order: afterimage.OrderImage, Op: afterimage.OpInsert, From: afterimage.FromImage,
			Table: id, Key: manyKey(i), Body: body,
		}
	}
	f.imageOf("many", 50, id, changes)
}

func equalJSON(t *testing.T, got, want any) {
	t.Helper()
	a, err := json.MarshalIndent(got, "", " ")
	if err != nil {
		t.Fatal(err)
	}
	b, err := json.MarshalIndent(want, "", " ")
	if err != nil {
		t.Fatal(err)
	}
	if string(a) != string(b) {
		t.Errorf("got %s\nwant %s", a, b)
	}
}

func wantError(t *testing.T, err error, text string) {
	t.Helper()
	if err == nil || err.Error() != text {
		t.Errorf("error %v\nwant %s", err, text)
	}
}
