package manifest

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"

	"github.com/afterimagedb/afterimage"
	"github.com/afterimagedb/afterimage/segment"
)

// ErrBroken says that a batch does not continue the coverage of its lane: batches between were lost.
var ErrBroken = errors.New("the chain of batches is broken")

// Builder turns batches, with their notes and the segments made of them, into one edit.
type Builder struct {
	state  *State
	edit   Edit
	lanes  map[string]*LaneEdit
	scans  map[afterimage.TableID]Scan
	ended  map[afterimage.TableID]bool
	fresh  int // lanes added by this edit
	window map[afterimage.TableID][]Interval
	cut    map[afterimage.TableID]bool // a gap cut the scan off: what was read before it tells nothing of after it
	loose  []string                    // segments of scans that came to nothing
}

// A batch can come twice: after a crash between a commit and the trimming of the stream. Its changes are cut by position;
// its notes are told apart by what they did, so taking one in twice changes nothing.

// NewBuilder returns a builder of an edit on state.
func NewBuilder(state *State) *Builder {
	return &Builder{
		state:  state,
		lanes:  map[string]*LaneEdit{},
		scans:  map[afterimage.TableID]Scan{},
		ended:  map[afterimage.TableID]bool{},
		window: map[afterimage.TableID][]Interval{},
		cut:    map[afterimage.TableID]bool{},
	}
}

// Covers reports whether the batch adds nothing to what is covered, builder included.
func (b *Builder) Covers(h afterimage.BatchHeader) bool {
	l, ok := b.Lane(h.Lane)
	if !ok || l.Incarnation != h.Incarnation || l.Epoch < h.Epoch {
		return false
	}
	return h.Epoch < l.Epoch || h.To.Less(l.Covered)
}

// Lane returns the lane as it will stand after the edit.
func (b *Builder) Lane(name string) (Lane, bool) {
	if le, ok := b.lanes[name]; ok {
		return le.Lane, true
	}
	return b.state.Lane(name)
}

// Batch advances the batch's lane and takes in its notes. seq is the stream sequence of its last message. It returns the
// lane as it was, by whose coverage overlapping changes are cut. ErrBroken means that the batch starts beyond what is
// covered.
func (b *Builder) Batch(batch *afterimage.Batch, seq uint64) (Lane, error) {
	before, known := b.Lane(batch.Lane)
	l := before
	switch {
	case !known || l.Incarnation != batch.Incarnation:
		// A new incarnation of a known name is a lane of its own: its log has nothing to do with the old one's.
		l = Lane{
			ID: afterimage.LaneID(len(b.state.Lanes) + b.fresh), Name: batch.Lane, Incarnation: batch.Incarnation,
			Epoch: batch.Epoch, Start: batch.From, StartTime: afterimage.Time(batch.From.Hi), Covered: batch.From,
		}
		b.fresh++
		if known {
			g := Gap{Lane: l.ID, From: before.Horizon, To: l.StartTime, Reason: "the log of lane " + l.Name + " belongs to another replica set since"}
			b.edit.AddGaps = append(b.edit.AddGaps, g)
			b.closeWindows(g.From)
			b.cutScans(before.ID)
		}
		before = l
		b.lanes[batch.Lane] = &LaneEdit{}
	case batch.Epoch > l.Epoch:
		l.Epoch, l.Start, l.StartTime = batch.Epoch, batch.From, afterimage.Time(batch.From.Hi)
		if l.Covered.Less(batch.From) {
			l.Covered = batch.From
		}
	case l.Covered.Less(batch.From):
		return l, fmt.Errorf("lane %s is covered to %s, the next batch starts at %s: %w", l.Name, l.Covered, batch.From, ErrBroken)
	}
	if l.Covered.Less(batch.To) {
		l.Covered = batch.To
	}
	l.Horizon = max(l.Horizon, batch.Horizon)
	l.RestartFrom, l.Seq = batch.RestartFrom, seq
	le := b.lanes[batch.Lane]
	if le == nil {
		extends := before.Covered
		le = &LaneEdit{Extends: &extends}
		b.lanes[batch.Lane] = le
	}
	le.Lane = l
	for _, raw := range batch.Notes {
		var n Note
		if err := json.Unmarshal(raw, &n); err != nil {
			return l, fmt.Errorf("lane %s: note in batch %s: %w", l.Name, batch.From, err)
		}
		b.note(l.ID, &n)
	}
	return before, nil
}

// AddSegment adds a segment made of the batches' changes.
func (b *Builder) AddSegment(m segment.Meta) { b.edit.AddSegments = append(b.edit.AddSegments, m) }

func (b *Builder) note(lane afterimage.LaneID, n *Note) {
	switch n.Kind {
	case NoteScan:
		for _, id := range n.Tables {
			b.beginScan(lane, id, n.Time)
		}
	case NoteRange:
		b.noteRange(n)
	case NoteGap:
		g := Gap{Lane: lane, From: n.From, To: n.To, Reason: n.Reason}
		if !slices.Contains(b.state.Gaps, g) {
			b.edit.AddGaps = append(b.edit.AddGaps, g)
			b.closeWindows(n.From)
			b.cutScans(lane)
		}
	case NoteUncertified:
		u := Uncertified{Lane: lane, Table: n.Table, Time: n.Time, Reason: n.Reason}
		if !slices.Contains(b.state.Uncertified, u) {
			b.edit.AddUncertified = append(b.edit.AddUncertified, u)
		}
	}
}

// beginScan notes that a table can't be restored until its image is complete, but for what it had before a gap: a table
// without windows was created under the log's eye, so it was restorable up to the gap. A scan under way, or one that ended
// with no gap since, is not begun again.
func (b *Builder) beginScan(lane afterimage.LaneID, id afterimage.TableID, from afterimage.Time) {
	w := b.windows(id)
	_, running := b.scan(id)
	if running || !b.cut[id] && w != nil && (len(w) == 0 || w[len(w)-1].To == 0) {
		return
	}
	delete(b.cut, id)
	b.scans[id] = Scan{Lane: lane, Time: from}
	delete(b.ended, id)
	if w != nil {
		return
	}
	b.window[id] = []Interval{}
	gaps := append(slices.Clone(b.state.Gaps), b.edit.AddGaps...)
	for _, gap := range slices.Backward(gaps) {
		if gap.Lane == lane {
			b.window[id] = []Interval{{From: 1, To: gap.From}}
			return
		}
	}
}

// noteRange adds a scanned range to its table's scan and, when it was the last one, opens the table's window. A range of
// a table that has no scan under way was scanned twice, by two listeners of the lane: the first one counts.
func (b *Builder) noteRange(n *Note) {
	scan, ok := b.scan(n.Table)
	if !ok {
		return
	}
	if n.Dropped {
		b.ended[n.Table] = true
		b.loose = append(b.loose, scan.Segments...)
		return
	}
	if len(n.Segments) > 0 && slices.Contains(scan.Segments, n.Segments[0].ID) {
		return
	}
	if scan.Ranges == 0 || n.MinTime < scan.MinTime {
		scan.MinTime = n.MinTime
	}
	scan.Time = max(scan.Time, n.Time)
	scan.Ranges++
	scan.Resume = n.Resume
	scan.Segments = slices.Clone(scan.Segments)
	for _, m := range n.Segments {
		if !b.has(m.ID) {
			b.AddSegment(m)
		}
		scan.Segments = append(scan.Segments, m.ID)
	}
	b.scans[n.Table] = scan
	if !n.Done {
		return
	}
	b.ended[n.Table] = true
	b.edit.AddImages = append(b.edit.AddImages, Image{
		ID: "first-" + n.Table.String() + "-" + scan.Time.String(), Range: afterimage.TableRange(n.Table),
		MinTime: scan.MinTime, Time: scan.Time, Segments: scan.Segments,
	})
	b.window[n.Table] = append(slices.Clone(b.windows(n.Table)), Interval{From: scan.Time})
}

// has reports whether a segment is live or added already: small tables share one.
func (b *Builder) has(id string) bool {
	if _, ok := b.state.Segments[id]; ok {
		return true
	}
	return slices.ContainsFunc(b.edit.AddSegments, func(m segment.Meta) bool { return m.ID == id })
}

func (b *Builder) scan(id afterimage.TableID) (Scan, bool) {
	if b.ended[id] {
		return Scan{}, false
	}
	if s, ok := b.scans[id]; ok {
		return s, true
	}
	s, ok := b.state.Scans[id]
	return s, ok
}

func (b *Builder) windows(id afterimage.TableID) []Interval {
	if w, ok := b.window[id]; ok {
		return w
	}
	return b.state.Windows[id]
}

// closeWindows ends every window that is still growing at t, where a gap begins.
func (b *Builder) closeWindows(t afterimage.Time) {
	ids := map[afterimage.TableID]bool{}
	for id := range b.state.Windows {
		ids[id] = true
	}
	for id := range b.window {
		ids[id] = true
	}
	for id := range ids {
		w := slices.Clone(b.windows(id))
		if n := len(w); n > 0 && w[n-1].To == 0 {
			w[n-1].To = max(t, w[n-1].From)
			b.window[id] = w
		}
	}
}

// cutScans ends the lane's scans at a gap. Rows read before it may have changed or gone unseen, so none of them may get into
// an image; the NoteScan that follows begins those anew that are still there.
func (b *Builder) cutScans(lane afterimage.LaneID) {
	for _, scans := range []map[afterimage.TableID]Scan{b.state.Scans, b.scans} {
		for id := range scans {
			if s, running := b.scan(id); running && s.Lane == lane {
				b.loose = append(b.loose, s.Segments...)
				b.ended[id], b.cut[id] = true, true
			}
		}
	}
}

// removeLoose dooms segments of scans that came to nothing, unless something else is in them: small tables share one.
func (b *Builder) removeLoose(e *Edit) {
	if len(b.loose) == 0 {
		return
	}
	used := map[string]bool{}
	use := func(ids []string) {
		for _, id := range ids {
			used[id] = true
		}
	}
	for id, s := range b.state.Scans {
		if _, changed := b.scans[id]; !changed && !b.ended[id] {
			use(s.Segments)
		}
	}
	for _, s := range e.SetScans {
		use(s.Segments)
	}
	for _, images := range [][]Image{b.state.Images, e.AddImages} {
		for _, im := range images {
			use(im.Segments)
		}
	}
	slices.Sort(b.loose)
	for _, id := range slices.Compact(b.loose) {
		if !used[id] && b.has(id) {
			e.RemoveSegments = append(e.RemoveSegments, id)
		}
	}
}

// Edit returns the edit. The builder must not be used afterwards.
func (b *Builder) Edit() Edit {
	e := b.edit
	for _, le := range b.lanes {
		e.Lanes = append(e.Lanes, *le)
	}
	slices.SortFunc(e.Lanes, func(x, y LaneEdit) int { return int(x.Lane.ID) - int(y.Lane.ID) })
	for id, s := range b.scans {
		if b.ended[id] {
			continue
		}
		if e.SetScans == nil {
			e.SetScans = map[afterimage.TableID]Scan{}
		}
		e.SetScans[id] = s
	}
	for id := range b.ended {
		if _, ok := b.state.Scans[id]; ok {
			e.EndScans = append(e.EndScans, id)
		}
	}
	slices.SortFunc(e.EndScans, func(x, y afterimage.TableID) int { return slices.Compare(x[:], y[:]) })
	if len(b.window) > 0 {
		e.SetWindows = b.window
	}
	b.removeLoose(&e)
	return e
}
