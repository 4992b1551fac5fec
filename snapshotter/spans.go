package snapshotter

import (
	"cmp"
	"slices"

	"github.com/afterimagedb/afterimage"
	"github.com/afterimagedb/afterimage/manifest"
)

// span is a closed interval of times. One that is still growing ends at the end of time.
type span struct{ from, to afterimage.Time }

// spans are disjoint and ascending.
type spans []span

// always holds every time; 0 is none.
func always() spans { return spans{{1, afterimage.MaxTime}} }

// spansOf reads the windows of a manifest.
func spansOf(windows []manifest.Interval) spans {
	var out spans
	for _, w := range windows {
		sp := span{max(w.From, 1), w.To}
		if w.To == 0 {
			sp.to = afterimage.MaxTime
		}
		if sp.from <= sp.to {
			out = append(out, sp)
		}
	}
	slices.SortFunc(out, func(a, b span) int { return cmp.Compare(a.from, b.from) })
	return out
}

// intervals is the inverse of spansOf.
func (s spans) intervals() []manifest.Interval {
	out := make([]manifest.Interval, 0, len(s))
	for _, sp := range s {
		w := manifest.Interval{From: sp.from, To: sp.to}
		if sp.to == afterimage.MaxTime {
			w.To = 0
		}
		out = append(out, w)
	}
	return out
}

// find returns the index of the span that holds t, -1 if none does.
func (s spans) find(t afterimage.Time) int {
	return slices.IndexFunc(s, func(sp span) bool { return sp.from <= t && t <= sp.to })
}

// has reports whether t is in one of the spans.
func (s spans) has(t afterimage.Time) bool { return s.find(t) >= 0 }

// and returns the times that are in both.
func (s spans) and(o spans) spans {
	var out spans
	for i, j := 0, 0; i < len(s) && j < len(o); {
		sp := span{max(s[i].from, o[j].from), min(s[i].to, o[j].to)}
		if sp.from <= sp.to {
			out = append(out, sp)
		}
		if s[i].to < o[j].to {
			i++
		} else {
			j++
		}
	}
	return out
}

// not returns the times that are in none.
func (s spans) not() spans {
	var out spans
	from := afterimage.Time(1)
	for _, sp := range s {
		if from < sp.from {
			out = append(out, span{from, sp.from - 1})
		}
		if sp.to == afterimage.MaxTime {
			return out
		}
		from = max(from, sp.to+1)
	}
	return append(out, span{from, afterimage.MaxTime})
}

// or returns the times that are in one of the two.
func (s spans) or(o spans) spans { return s.not().and(o.not()).not() }

// less returns the times of s that are not in o.
func (s spans) less(o spans) spans { return s.and(o.not()) }

// around returns the last time before t and the first after it, 0 where there is none.
func (s spans) around(t afterimage.Time) (before, after afterimage.Time) {
	for _, sp := range s {
		if sp.from < t {
			before = min(sp.to, t-1)
		}
		if sp.to > t && after == 0 {
			after = max(sp.from, t+1)
		}
	}
	return before, after
}
