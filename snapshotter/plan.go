package snapshotter

import (
	"fmt"
	"strings"

	"github.com/afterimagedb/afterimage"
	"github.com/afterimagedb/afterimage/manifest"
	"github.com/afterimagedb/afterimage/segment"
)

// Plan is what a read at a time has to fetch.
type Plan struct {
	At       afterimage.Time  `json:"at"`
	Pieces   []manifest.Piece `json:"pieces"`
	Segments int              `json:"segments"` // distinct
	Images   int              `json:"images"`   // of Segments, those of images
	Rows     int64            `json:"rows"`     // in Segments
	Bytes    int64            `json:"bytes"`    // stored size of Segments; a read of a range fetches parts of them only
	RawBytes int64            `json:"rawBytes"` // keys and bodies in Segments
}

// Plan says what reading ranges of row space at a time has to fetch; no ranges mean everything. It reads nothing.
func (s *Snapshotter) Plan(at afterimage.Time, ranges []afterimage.Range) Plan {
	if len(ranges) == 0 {
		ranges = []afterimage.Range{{}}
	}
	p := Plan{At: at}
	seen := map[string]bool{}
	count := func(metas []segment.Meta) {
		for i := range metas {
			m := &metas[i]
			if seen[m.ID] {
				continue
			}
			seen[m.ID] = true
			p.Segments++
			if m.Kind == segment.Image {
				p.Images++
			}
			p.Rows += m.Rows
			p.Bytes += m.Bytes
			p.RawBytes += m.RawBytes
		}
	}
	for _, r := range ranges {
		for _, piece := range s.cover(r, at) {
			if len(piece.Images)+len(piece.Changes) == 0 {
				continue
			}
			p.Pieces = append(p.Pieces, piece)
			count(piece.Images)
			count(piece.Changes)
		}
	}
	return p
}

// String prints the plan for people: a line for the whole and one for each piece.
func (p Plan) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "at %s: at most %s of %d segments (%d of images), %s in %d rows before folding\n",
		p.At, size(p.Bytes), p.Segments, p.Images, size(p.RawBytes), p.Rows)
	for i := range p.Pieces {
		c := &p.Pieces[i]
		var image, changes int64
		for _, m := range c.Images {
			image += m.Bytes
		}
		for _, m := range c.Changes {
			changes += m.Bytes
		}
		fmt.Fprintf(&b, "  %s .. %s: image of %d segments (%s), %d segments of changes after %s (%s)\n",
			bound(c.Range.From), end(c.Range), len(c.Images), size(image), len(c.Changes), c.After, size(changes))
	}
	return b.String()
}

func bound(b afterimage.Bound) string {
	if len(b.Key) == 0 {
		return b.Table.String()
	}
	return fmt.Sprintf("%s/%x", b.Table, b.Key)
}

func end(r afterimage.Range) string {
	if r.Open() {
		return "end"
	}
	return bound(r.To)
}

// size prints bytes for people.
func size(n int64) string {
	switch {
	case n >= 10_000_000_000:
		return fmt.Sprintf("%d GB", n/1_000_000_000)
	case n >= 10_000_000:
		return fmt.Sprintf("%d MB", n/1_000_000)
	case n >= 10_000:
		return fmt.Sprintf("%d kB", n/1000)
	}
	return fmt.Sprintf("%d B", n)
}
