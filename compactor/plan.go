package compactor

import (
	"cmp"
	"slices"

	"github.com/afterimagedb/afterimage"
	"github.com/afterimagedb/afterimage/manifest"
	"github.com/afterimagedb/afterimage/segment"
)

// Policy says when background work is worth doing. Zero values take the defaults.
type Policy struct {
	FanIn         int     // runs of one level and part that are merged into one; default 8
	SegmentBytes  int64   // keys and bodies at which an output segment is closed; default 64 MiB
	ImageFraction float64 // a part's image is rebuilt when its changes since exceed this fraction of it, stored bytes; default 0.5
	ImageMinBytes int64   // but not for fewer stored bytes of changes than this; default 4 MiB
}

func (p *Policy) defaults() {
	if p.FanIn == 0 {
		p.FanIn = 8
	}
	if p.SegmentBytes == 0 {
		p.SegmentBytes = 64 << 20
	}
	if p.ImageFraction == 0 {
		p.ImageFraction = 0.5
	}
	if p.ImageMinBytes == 0 {
		p.ImageMinBytes = 4 << 20
	}
}

// mergeJob makes one run out of several. Outputs are cut at the boundaries, so that they settle into parts.
type mergeJob struct {
	inputs []segment.Meta
	cuts   []afterimage.Bound
	level  int // of the outputs
}

// imageJob makes an image of a part at a time.
type imageJob struct {
	part afterimage.Range
	at   afterimage.Time
}

// group is where a change segment stands: its part, or none when it straddles several; its epoch, that is the first image
// of the part that has all of it; and its level. Merges stay within a group, so no merge mixes what an image parts.
type group struct {
	part  int // -1: straddling
	epoch afterimage.Time
	level int
}

// planMerge returns the most urgent merge, or nil. It is a pure function of the state.
func (p *Policy) planMerge(s *manifest.State) *mergeJob {
	groups := map[group][]segment.Meta{}
	var full []group
	for _, m := range s.Segments {
		if m.Kind != segment.Changes {
			continue
		}
		g := groupOf(s, &m)
		// Merging full segments of one part would make as many again: the next image ends their number instead.
		if g.part >= 0 && m.RawBytes >= p.SegmentBytes/2 {
			continue
		}
		groups[g] = append(groups[g], m)
		if len(groups[g]) == p.FanIn {
			full = append(full, g)
		}
	}
	if len(full) == 0 {
		return nil
	}
	g := slices.MinFunc(full, func(a, b group) int { return cmp.Compare(a.level, b.level) })
	runs := groups[g]
	slices.SortFunc(runs, func(a, b segment.Meta) int {
		return cmp.Or(cmp.Compare(a.MinTime, b.MinTime), cmp.Compare(a.ID, b.ID))
	})
	j := &mergeJob{inputs: runs[:p.FanIn], level: g.level + 1}
	var raw int64
	for _, m := range j.inputs {
		raw += m.RawBytes
	}
	// Cutting a small run at every boundary would make a crowd of tiny segments: only what is large settles.
	if raw >= p.SegmentBytes {
		j.cuts = s.Boundaries
	}
	return j
}

func groupOf(s *manifest.State, m *segment.Meta) group {
	first, last := s.Part(m.First), s.Part(m.Last)
	if first != last {
		return group{part: -1, level: m.Level}
	}
	g := group{part: first, epoch: afterimage.MaxTime, level: m.Level}
	r := s.PartRange(first)
	for _, im := range s.Images {
		if im.Time >= m.MaxTime && im.Range.From.Compare(m.First) <= 0 && im.Range.Contains(m.Last) && r.Contains(im.Range.From) {
			g.epoch = min(g.epoch, im.Time)
		}
	}
	return g
}

// planBoundaries returns boundaries at the segments of images wherever a part's image is much larger than a segment, or
// nil when the boundaries are fine. Splitting a part is an edit of the manifest alone.
func (p *Policy) planBoundaries(s *manifest.State) []afterimage.Bound {
	var out []afterimage.Bound
	for i := range len(s.Boundaries) + 1 {
		r := s.PartRange(i)
		var starts []segment.Meta
		var raw int64
		for _, piece := range s.Cover(r, s.Horizon()) {
			for _, m := range piece.Images {
				if r.Contains(m.First) {
					starts = append(starts, m)
					raw += m.RawBytes
				}
			}
		}
		if raw < 4*p.SegmentBytes || len(starts) < 4 {
			continue
		}
		slices.SortFunc(starts, func(a, b segment.Meta) int { return a.First.Compare(b.First) })
		var since int64
		for _, m := range starts {
			if since >= p.SegmentBytes && r.From.Compare(m.First) < 0 {
				out = append(out, m.First)
				since = 0
			}
			since += m.RawBytes
		}
	}
	if len(out) == 0 {
		return nil
	}
	out = append(out, s.Boundaries...)
	slices.SortFunc(out, afterimage.Bound.Compare)
	return slices.CompactFunc(out, func(a, b afterimage.Bound) bool { return a.Compare(b) == 0 })
}

// planImage returns the part whose changes outweigh its image the most, or nil. Scans under way are left alone, and so
// are those that the horizon has not reached: the image would be built on half a base.
func (p *Policy) planImage(s *manifest.State) *imageJob {
	at := s.Horizon()
	later := func(im manifest.Image) bool { return im.Time > at }
	if len(s.Scans) > 0 || at == 0 || slices.ContainsFunc(s.Images, later) {
		return nil
	}
	var best *imageJob
	worst := p.ImageFraction
	for i := range len(s.Boundaries) + 1 {
		r := s.PartRange(i)
		var base, delta int64
		seen := map[string]bool{}
		for _, piece := range s.Cover(r, at) {
			for _, m := range piece.Images {
				if !seen[m.ID] {
					base += m.Bytes
				}
				seen[m.ID] = true
			}
			for _, m := range piece.Changes {
				if !seen[m.ID] && s.Part(m.First) == s.Part(m.Last) {
					delta += m.Bytes
				}
				seen[m.ID] = true
			}
		}
		if delta < p.ImageMinBytes {
			continue
		}
		if f := float64(delta) / float64(base+p.ImageMinBytes); f > worst {
			best, worst = &imageJob{part: r, at: at}, f
		}
	}
	return best
}
