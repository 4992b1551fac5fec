package manifest

import (
	"cmp"
	"context"
	"slices"
	"sort"

	"github.com/afterimagedb/afterimage"
	"github.com/afterimagedb/afterimage/segment"
)

// Piece is a range of row space with what must be read for its state at a time: the segments of one image, and the
// changes later than After.
type Piece struct {
	Range   afterimage.Range
	After   afterimage.Time // changes up to here are in the image already
	Images  []segment.Meta
	Changes []segment.Meta
}

// Cover says what to read for the state of r at a time: r cut wherever images begin or end, each piece with the newest
// image that is complete at that time. It is a pure function of the state.
func (s *State) Cover(r afterimage.Range, at afterimage.Time) []Piece {
	var images []Image
	cuts := []afterimage.Bound{r.From}
	for _, im := range s.Images {
		if im.Time > at || !overlap(im.Range, r) {
			continue
		}
		images = append(images, im)
		for _, b := range []afterimage.Bound{im.Range.From, im.Range.To} {
			if b.Compare(r.From) > 0 && r.Contains(b) {
				cuts = append(cuts, b)
			}
		}
	}
	// The newest image first; of two at one time the one committed last.
	slices.Reverse(images)
	slices.SortStableFunc(images, func(a, b Image) int { return cmp.Compare(b.Time, a.Time) })
	slices.SortFunc(cuts, afterimage.Bound.Compare)
	cuts = slices.CompactFunc(cuts, func(a, b afterimage.Bound) bool { return a.Compare(b) == 0 })
	changes := s.changes(at)
	pieces := make([]Piece, 0, len(cuts))
	last := -1 // index in images of the piece before, to join neighbours
	for i, from := range cuts {
		p := Piece{Range: afterimage.Range{From: from, To: r.To}}
		if i+1 < len(cuts) {
			p.Range.To = cuts[i+1]
		}
		k := slices.IndexFunc(images, func(im Image) bool { return im.Range.Contains(from) })
		if n := len(pieces); n > 0 && k == last {
			pieces[n-1].Range.To = p.Range.To
			continue
		}
		pieces, last = append(pieces, p), k
		if k >= 0 {
			pieces[len(pieces)-1].After = images[k].MinTime
		}
	}
	for i := range pieces {
		p := &pieces[i]
		if k := slices.IndexFunc(images, func(im Image) bool { return im.Range.Contains(p.Range.From) }); k >= 0 {
			for _, id := range images[k].Segments {
				if m := s.Segments[id]; p.Range.Overlaps(m.First, m.Last) {
					p.Images = append(p.Images, m)
				}
			}
		}
		for _, m := range changes {
			if m.MaxTime > p.After && p.Range.Overlaps(m.First, m.Last) {
				p.Changes = append(p.Changes, m)
			}
		}
	}
	return pieces
}

// changes lists the change segments with anything up to at, oldest first.
func (s *State) changes(at afterimage.Time) []segment.Meta {
	var out []segment.Meta
	for _, m := range s.Segments {
		if m.Kind == segment.Changes && m.MinTime <= at {
			out = append(out, m)
		}
	}
	slices.SortFunc(out, func(a, b segment.Meta) int {
		return cmp.Or(cmp.Compare(a.MinTime, b.MinTime), cmp.Compare(a.ID, b.ID))
	})
	return out
}

func overlap(a, b afterimage.Range) bool {
	return (b.Open() || a.From.Compare(b.To) < 0) && (a.Open() || b.From.Compare(a.To) < 0)
}

// Part is the index of the part that holds a bound.
func (s *State) Part(b afterimage.Bound) int {
	return sort.Search(len(s.Boundaries), func(i int) bool { return s.Boundaries[i].Compare(b) > 0 })
}

// PartRange is the range of a part.
func (s *State) PartRange(i int) afterimage.Range {
	var r afterimage.Range
	if i > 0 {
		r.From = s.Boundaries[i-1]
	}
	if i < len(s.Boundaries) {
		r.To = s.Boundaries[i]
	}
	return r
}

// fetchBytes is what the inputs of one merge fetch at a time, all together; each at least fetchBytesMin.
const (
	fetchBytes    = 16 << 20
	fetchBytesMin = 256 << 10
)

// FetchBytes is the largest range read for each of n inputs of a merge, so that a wide merge stays within bounds.
func FetchBytes(n int) int64 { return max(fetchBytes/int64(max(n, 4)), fetchBytesMin) }

// Open opens a piece's segments for a read at a time and merges them into one run.
func (p *Piece) Open(ctx context.Context, g segment.Getter, at afterimage.Time) (segment.Iterator, error) {
	n := len(p.Images) + len(p.Changes)
	its := make([]segment.Iterator, 0, n)
	open := func(ms []segment.Meta, after afterimage.Time) error {
		for _, m := range ms {
			it, err := segment.Open(ctx, g, m, segment.ReadOptions{Range: p.Range, After: after, Until: at, FetchBytes: FetchBytes(n)})
			if err != nil {
				return err
			}
			its = append(its, it)
		}
		return nil
	}
	err := open(p.Images, 0)
	if err == nil {
		err = open(p.Changes, p.After)
	}
	if err != nil {
		for _, it := range its {
			it.Close()
		}
		return nil, err
	}
	return segment.Merge(its...), nil
}
