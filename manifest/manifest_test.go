package manifest

import (
	"encoding/json"
	"errors"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"github.com/afterimagedb/afterimage"
	"github.com/afterimagedb/afterimage/segment"
)

func table(n byte) afterimage.TableID { return afterimage.TableID{0: 0x70, 15: n} }

func note(t *testing.T, n Note) []byte {
	t.Helper()
	raw, err := json.Marshal(n)
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

func header(epoch uint32, from, to uint64) afterimage.BatchHeader {
	return afterimage.BatchHeader{
		Lane: "rs0", Incarnation: "abc", Epoch: epoch,
		From: afterimage.Position{Hi: from}, To: afterimage.Position{Hi: to}, Horizon: afterimage.Time(to),
	}
}

func meta(id string, kind segment.Kind, minTime, maxTime afterimage.Time, t byte) segment.Meta {
	return segment.Meta{
		ID: id, Kind: kind, MinTime: minTime, MaxTime: maxTime, Bytes: 10, RawBytes: 20, Rows: 1,
		First: afterimage.Bound{Table: table(t)}, Last: afterimage.Bound{Table: table(t), Key: []byte("z")},
	}
}

// take feeds batches to a builder and applies the edit.
func take(t *testing.T, s *State, batches ...afterimage.Batch) *State {
	t.Helper()
	b := NewBuilder(s)
	for i := range batches {
		if b.Covers(batches[i].BatchHeader) {
			continue
		}
		if _, err := b.Batch(&batches[i], uint64(i)); err != nil {
			t.Fatal(err)
		}
	}
	next, err := s.Apply(b.Edit(), 1)
	if err != nil {
		t.Fatal(err)
	}
	return next
}

func asJSON(t *testing.T, v any) string {
	t.Helper()
	raw, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return string(raw)
}

func TestFirstImageOpensWindow(t *testing.T) {
	first := afterimage.Batch{BatchHeader: header(1, 10, 10), Notes: [][]byte{
		note(t, Note{Kind: NoteScan, Tables: []afterimage.TableID{table(1), table(2), table(3)}}),
	}}
	ranges := afterimage.Batch{BatchHeader: header(1, 10, 30), Notes: [][]byte{
		note(t, Note{Kind: NoteRange, Table: table(1), MinTime: 20, Time: 20, Segments: []segment.Meta{meta("a", segment.Image, 20, 20, 1)}, Resume: []byte("x")}),
		note(t, Note{Kind: NoteRange, Table: table(1), MinTime: 25, Time: 25, Segments: []segment.Meta{meta("b", segment.Image, 25, 25, 1)}, Done: true}),
		note(t, Note{Kind: NoteRange, Table: table(2), Dropped: true}),
	}}
	s := take(t, NewState(), first)
	if len(s.Scans) != 3 || s.Horizon() != 10 {
		t.Fatalf("after the first batch: %d scans, horizon %d", len(s.Scans), s.Horizon())
	}
	s = take(t, s, ranges)
	want := []Interval{{From: 25}}
	if !slices.Equal(s.Windows[table(1)], want) {
		t.Errorf("window of table 1: %v, want %v", s.Windows[table(1)], want)
	}
	if w, ok := s.Windows[table(2)]; !ok || len(w) != 0 {
		t.Errorf("a table dropped during its scan must never be restorable, has %v, %v", w, ok)
	}
	if len(s.Images) != 1 || s.Images[0].MinTime != 20 || s.Images[0].Time != 25 || len(s.Images[0].Segments) != 2 {
		t.Errorf("images: %+v", s.Images)
	}
	if _, ok := s.Scans[table(3)]; !ok || len(s.Scans) != 1 {
		t.Errorf("scans: %+v", s.Scans)
	}
	// After a crash between commit and trim both batches come again.
	again := take(t, s, first, ranges)
	again.Number = s.Number
	again.Lanes[0].Seq, s.Lanes[0].Seq = 0, 0
	if asJSON(t, again) != asJSON(t, s) {
		t.Errorf("batches taken in twice changed the state:\n%s\n%s", asJSON(t, s), asJSON(t, again))
	}
}

func TestGapClosesWindows(t *testing.T) {
	s := take(t, NewState(),
		afterimage.Batch{BatchHeader: header(1, 10, 20), Notes: [][]byte{
			note(t, Note{Kind: NoteScan, Tables: []afterimage.TableID{table(1)}}),
			note(t, Note{Kind: NoteRange, Table: table(1), MinTime: 15, Time: 15, Segments: []segment.Meta{meta("a", segment.Image, 15, 15, 1)}, Done: true}),
		}})
	gap := afterimage.Batch{BatchHeader: header(2, 50, 60), Notes: [][]byte{
		note(t, Note{Kind: NoteGap, From: 20, To: 50, Reason: "oplog rolled over"}),
		note(t, Note{Kind: NoteScan, Tables: []afterimage.TableID{table(1), table(9)}}),
	}}
	s = take(t, s, gap)
	if want := []Interval{{From: 15, To: 20}}; !slices.Equal(s.Windows[table(1)], want) {
		t.Errorf("known table: %v, want %v", s.Windows[table(1)], want)
	}
	if want := []Interval{{From: 1, To: 20}}; !slices.Equal(s.Windows[table(9)], want) {
		t.Errorf("table created under the log's eye: %v, want %v", s.Windows[table(9)], want)
	}
	if len(s.Gaps) != 1 || len(s.Scans) != 2 || s.Lanes[0].Epoch != 2 || s.Lanes[0].Covered.Hi != 60 {
		t.Errorf("state after the gap: %s", asJSON(t, s))
	}
	if again := take(t, s, gap); len(again.Gaps) != 1 {
		t.Errorf("the gap is there %d times after it came again", len(again.Gaps))
	}
}

// TestScanRemembersItsTime checks that a scan tells from the start which time no range may be older than: a listener that
// goes on with it may read from a member that lags.
func TestScanRemembersItsTime(t *testing.T) {
	s := take(t, NewState(), afterimage.Batch{BatchHeader: header(1, 10, 10), Notes: [][]byte{
		note(t, Note{Kind: NoteScan, Tables: []afterimage.TableID{table(1)}, Time: 14}),
	}})
	if s.Scans[table(1)].Time != 14 {
		t.Errorf("scan %+v", s.Scans[table(1)])
	}
	s = take(t, s, afterimage.Batch{BatchHeader: header(1, 10, 20), Notes: [][]byte{
		note(t, Note{Kind: NoteRange, Table: table(1), MinTime: 15, Time: 15, Segments: []segment.Meta{meta("a", segment.Image, 15, 15, 1)}, Done: true}),
	}})
	if im := s.Images[0]; im.MinTime != 15 || im.Time != 15 {
		t.Errorf("image %+v", im)
	}
}

// TestGapCutsScans lets a gap begin while tables are scanned: what was read before it must not be in the image, as rows may
// have been deleted in the gap, and a table that went in the gap must not be waited for.
func TestGapCutsScans(t *testing.T) {
	image := func(id string, n byte) []segment.Meta { return []segment.Meta{meta(id, segment.Image, 15, 15, n)} }
	s := take(t, NewState(), afterimage.Batch{BatchHeader: header(1, 10, 20), Notes: [][]byte{
		note(t, Note{Kind: NoteScan, Tables: []afterimage.TableID{table(1), table(2), table(3), table(4)}}),
		note(t, Note{Kind: NoteRange, Table: table(1), MinTime: 15, Time: 15, Segments: image("old", 1), Resume: []byte("x")}),
		note(t, Note{Kind: NoteRange, Table: table(2), MinTime: 15, Time: 15, Segments: image("shared", 2), Resume: []byte("x")}),
		note(t, Note{Kind: NoteRange, Table: table(3), MinTime: 15, Time: 15, Segments: image("shared", 2), Done: true}),
		note(t, Note{Kind: NoteRange, Table: table(4), MinTime: 15, Time: 15, Segments: image("dropped", 4), Resume: []byte("x")}),
		note(t, Note{Kind: NoteRange, Table: table(4), Dropped: true}),
	}})
	gap := afterimage.Batch{BatchHeader: header(2, 50, 60), Notes: [][]byte{
		note(t, Note{Kind: NoteGap, From: 20, To: 50, Reason: "oplog rolled over"}),
		note(t, Note{Kind: NoteScan, Tables: []afterimage.TableID{table(1), table(3)}}),
	}}
	s = take(t, s, gap)
	if _, ok := s.Scans[table(2)]; ok || len(s.Scans) != 2 || len(s.Scans[table(1)].Segments) != 0 {
		t.Errorf("scans after the gap: %s", asJSON(t, s.Scans))
	}
	s = take(t, s, afterimage.Batch{BatchHeader: header(2, 60, 70), Notes: [][]byte{
		note(t, Note{Kind: NoteRange, Table: table(1), MinTime: 65, Time: 65, Segments: []segment.Meta{meta("new", segment.Image, 65, 65, 1)}, Done: true}),
	}})
	if im := s.Images[len(s.Images)-1]; im.MinTime != 65 || !slices.Equal(im.Segments, []string{"new"}) {
		t.Errorf("image %+v, want only what was read after the gap", im)
	}
	if want := []Interval{{From: 65}}; !slices.Equal(s.Windows[table(1)], want) {
		t.Errorf("window %v, want %v", s.Windows[table(1)], want)
	}
	for id, live := range map[string]bool{"old": false, "dropped": false, "shared": true, "new": true} {
		if _, ok := s.Segments[id]; ok != live {
			t.Errorf("segment %s is live: %v, want %v", id, ok, live)
		}
	}
	before := asJSON(t, s)
	s.Lanes[0].Covered = afterimage.Position{Hi: 60} // so that the batch is not passed over as a whole
	again := take(t, s, gap)
	again.Number, again.Lanes[0] = s.Number, s.Lanes[0]
	again.Lanes[0].Covered = afterimage.Position{Hi: 70}
	if asJSON(t, again) != before {
		t.Errorf("the gap that came again changed the state:\n%s\n%s", before, asJSON(t, again))
	}
}

// TestNewIncarnation replaces the replica set under a lane's name: a gap lies between, and the old log does not hold
// the horizon back.
func TestNewIncarnation(t *testing.T) {
	s := take(t, NewState(), afterimage.Batch{BatchHeader: header(1, 10, 20), Notes: [][]byte{
		note(t, Note{Kind: NoteScan, Tables: []afterimage.TableID{table(1)}}),
		note(t, Note{Kind: NoteRange, Table: table(1), MinTime: 15, Time: 15, Segments: []segment.Meta{meta("a", segment.Image, 15, 15, 1)}, Done: true}),
	}})
	h := header(1, 100, 120)
	h.Incarnation = "other"
	s = take(t, s, afterimage.Batch{BatchHeader: h})
	if s.Horizon() != 120 || len(s.Lanes) != 2 {
		t.Errorf("horizon %d of %d lanes, want 120 of 2", s.Horizon(), len(s.Lanes))
	}
	if want := []Interval{{From: 15, To: 20}}; len(s.Gaps) != 1 || s.Gaps[0].From != 20 || s.Gaps[0].To != 100 || !slices.Equal(s.Windows[table(1)], want) {
		t.Errorf("gaps %+v, windows %+v", s.Gaps, s.Windows)
	}
}

func TestBrokenChain(t *testing.T) {
	s := take(t, NewState(), afterimage.Batch{BatchHeader: header(1, 10, 20)})
	hole := afterimage.Batch{BatchHeader: header(1, 25, 30)}
	if _, err := NewBuilder(s).Batch(&hole, 1); !errors.Is(err, ErrBroken) {
		t.Fatalf("a hole between batches: %v, want ErrBroken", err)
	}
}

func TestApplyRefuses(t *testing.T) {
	s, err := NewState().Apply(Edit{AddSegments: []segment.Meta{meta("a", segment.Changes, 1, 2, 1)}}, 1)
	if err != nil {
		t.Fatal(err)
	}
	gone, err := s.Apply(Edit{RemoveSegments: []string{"a"}}, 2)
	if err != nil {
		t.Fatal(err)
	}
	stale := afterimage.Position{Hi: 5}
	for name, c := range map[string]struct {
		s *State
		e Edit
	}{
		"add a live segment":        {s, Edit{AddSegments: []segment.Meta{meta("a", segment.Changes, 1, 2, 1)}}},
		"add a doomed segment":      {gone, Edit{AddSegments: []segment.Meta{meta("a", segment.Changes, 1, 2, 1)}}},
		"remove what is not there":  {gone, Edit{RemoveSegments: []string{"a"}}},
		"image of a doomed segment": {gone, Edit{AddImages: []Image{{ID: "i", Segments: []string{"a"}}}}},
		"stale coverage":            {s, Edit{Lanes: []LaneEdit{{Extends: &stale}}}},
	} {
		if _, err := c.s.Apply(c.e, 3); err == nil {
			t.Errorf("%s was accepted", name)
		}
	}
}

// TestCoverIsExact compares Cover with its definition: at every point the newest complete image, and the changes that
// overlap and are later than its MinTime.
func TestCoverIsExact(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := NewState()
		point := func(label string) afterimage.Bound {
			return afterimage.Bound{Table: table(byte(rapid.IntRange(1, 4).Draw(t, label))), Key: []byte{byte(rapid.IntRange(0, 3).Draw(t, label+"k"))}}
		}
		for i := range rapid.IntRange(0, 6).Draw(t, "segments") {
			a, b := point("a"), point("b")
			if b.Compare(a) < 0 {
				a, b = b, a
			}
			at := afterimage.Time(rapid.IntRange(1, 9).Draw(t, "t"))
			m := segment.Meta{ID: string(rune('a' + i)), Kind: segment.Changes, First: a, Last: b, MinTime: at, MaxTime: at + 2}
			if rapid.Bool().Draw(t, "image") && a.Compare(b) < 0 {
				m.Kind = segment.Image
				s.Images = append(s.Images, Image{ID: m.ID, Range: afterimage.Range{From: a, To: b}, MinTime: at, Time: at + 1, Segments: []string{m.ID}})
			}
			s.Segments[m.ID] = m
		}
		at := afterimage.Time(rapid.IntRange(1, 11).Draw(t, "at"))
		pieces := s.Cover(afterimage.Range{}, at)
		for tb := byte(1); tb <= 4; tb++ {
			for k := byte(0); k <= 4; k++ {
				checkPoint(t, s, pieces, afterimage.Bound{Table: table(tb), Key: []byte{k}}, at)
			}
		}
	})
}

func checkPoint(t *rapid.T, s *State, pieces []Piece, b afterimage.Bound, at afterimage.Time) {
	var in []Piece
	for _, p := range pieces {
		if p.Range.Contains(b) {
			in = append(in, p)
		}
	}
	if len(in) != 1 {
		t.Fatalf("%v lies in %d pieces", b, len(in))
	}
	var best *Image
	for i := range s.Images {
		im := &s.Images[i]
		if im.Time <= at && im.Range.Contains(b) && (best == nil || im.Time >= best.Time) {
			best = im
		}
	}
	var after afterimage.Time
	if best != nil {
		after = best.MinTime
		m := s.Segments[best.ID]
		if in[0].Range.Overlaps(m.First, m.Last) && !slices.ContainsFunc(in[0].Images, func(m segment.Meta) bool { return m.ID == best.ID }) {
			t.Fatalf("%v at %d: image %s is not read", b, at, best.ID)
		}
	}
	if in[0].After != after {
		t.Fatalf("%v at %d: changes after %d are read, want after %d", b, at, in[0].After, after)
	}
	for id, m := range s.Segments {
		if m.Kind != segment.Changes || m.MinTime > at || m.MaxTime <= after || m.First.Compare(b) > 0 || b.Compare(m.Last) > 0 {
			continue
		}
		if !slices.ContainsFunc(in[0].Changes, func(m segment.Meta) bool { return m.ID == id }) {
			t.Fatalf("%v at %d: changes %s are not read", b, at, id)
		}
	}
}
