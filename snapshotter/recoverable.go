package snapshotter

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/afterimagedb/afterimage"
	"github.com/afterimagedb/afterimage/dialect"
	"github.com/afterimagedb/afterimage/manifest"
)

// namesMax is how many tables an error names.
const namesMax = 3

// Recoverable returns nil if the state of the whole source at a time is known exactly, else a
// [afterimage.NotRecoverableError] that says why not, and the nearest times at which it is. It reads the catalog's
// history only when that can make a difference.
func (s *Snapshotter) Recoverable(ctx context.Context, at afterimage.Time) error {
	if at <= s.state.Horizon() && s.good(s.windowed(), nil).has(at) {
		return nil
	}
	cat, err := s.catalogHistory(ctx)
	if err != nil {
		return err
	}
	return s.judge(at, s.windowed(), cat)
}

// RecoverableTables is [Snapshotter.Recoverable] of some tables only: those that a restore selects, as returned by
// [Snapshotter.Catalog].
func (s *Snapshotter) RecoverableTables(ctx context.Context, at afterimage.Time, tables []dialect.Table) error {
	ids := make([]afterimage.TableID, 0, len(tables))
	for _, t := range tables {
		if _, ok := s.state.Windows[t.ID]; ok && t.ID != afterimage.CatalogTable {
			ids = append(ids, t.ID)
		}
	}
	if at <= s.state.Horizon() && s.good(ids, nil).has(at) {
		return nil
	}
	cat, err := s.catalogHistory(ctx)
	if err != nil {
		return err
	}
	return s.judge(at, ids, cat)
}

// Windows returns the good times of the source as a whole, from the manifest alone. A table that is gone counts as if it
// had never been: when exactly it went, only the catalog knows, and [Snapshotter.Recoverable] asks it.
func (s *Snapshotter) Windows() []manifest.Interval {
	if s.state.Horizon() == 0 {
		return []manifest.Interval{}
	}
	ids := slices.DeleteFunc(s.windowed(), func(id afterimage.TableID) bool {
		w := s.state.Windows[id]
		_, scanning := s.state.Scans[id]
		return !scanning && (len(w) == 0 || w[len(w)-1].To != 0)
	})
	return s.good(ids, nil).and(spans{{1, s.state.Horizon()}}).grown(s.state.Horizon()).intervals()
}

// grown opens the span that ends at the horizon.
func (s spans) grown(horizon afterimage.Time) spans {
	if n := len(s); n > 0 && s[n-1].to == horizon {
		s[n-1].to = afterimage.MaxTime
	}
	return s
}

// windowed lists the tables that needed an image, by id.
func (s *Snapshotter) windowed() []afterimage.TableID {
	ids := make([]afterimage.TableID, 0, len(s.state.Windows))
	for id := range s.state.Windows {
		if id != afterimage.CatalogTable {
			ids = append(ids, id)
		}
	}
	slices.SortFunc(ids, func(a, b afterimage.TableID) int { return bytes.Compare(a[:], b[:]) })
	return ids
}

// good returns the times at which the catalog and these tables are known, whatever the horizon. Without the catalog's
// history every table is taken to live always.
func (s *Snapshotter) good(ids []afterimage.TableID, cat *catalogHistory) spans {
	out := spansOf(s.state.Windows[afterimage.CatalogTable])
	for _, g := range s.state.Gaps {
		if g.To > g.From+1 {
			out = out.less(spans{{g.From + 1, g.To - 1}})
		}
	}
	for _, id := range ids {
		out = out.less(s.bad(id, cat))
	}
	return out
}

// bad returns the times at which a table lived and is not known.
func (s *Snapshotter) bad(id afterimage.TableID, cat *catalogHistory) spans {
	unknown := spansOf(s.state.Windows[id]).not()
	if cat == nil {
		return unknown
	}
	return unknown.and(cat.lives(id))
}

// judge says why a time is not good, if it is not.
func (s *Snapshotter) judge(at afterimage.Time, ids []afterimage.TableID, cat *catalogHistory) error {
	horizon := s.state.Horizon()
	good := s.good(ids, cat).and(spans{{1, max(horizon, 1)}})
	if horizon == 0 {
		good = nil
	}
	if good.has(at) {
		return nil
	}
	e := &afterimage.NotRecoverableError{At: at}
	e.Before, e.After = good.around(at)
	e.Reason, e.Later = s.reason(at, ids, cat)
	return e
}

// reason is the first thing that stands in the way of a time, and whether waiting helps.
func (s *Snapshotter) reason(at afterimage.Time, ids []afterimage.TableID, cat *catalogHistory) (string, bool) {
	if len(s.state.Lanes) == 0 {
		return "nothing has been captured yet: is `afterimage serve` running", true
	}
	if at > s.state.Horizon() {
		l := slices.MinFunc(s.state.Lanes, func(a, b manifest.Lane) int { return cmp.Compare(a.Horizon, b.Horizon) })
		return fmt.Sprintf("lane %s is known up to %s", l.Name, l.Horizon.Describe()), true
	}
	for _, g := range s.state.Gaps {
		if g.From < at && at < g.To {
			return fmt.Sprintf("lies in a gap of lane %s from %s to %s (%s)", s.lane(g.Lane), g.From.Describe(), g.To.Describe(), g.Reason), false
		}
	}
	if reason := s.unread(at, afterimage.CatalogTable, "the catalog"); reason != "" {
		return reason, false
	}
	return s.unreadTables(at, ids, cat), false
}

// unread says why a table that lived at a time is not known then, "" if it is.
func (s *Snapshotter) unread(at afterimage.Time, id afterimage.TableID, name string) string {
	windows := spansOf(s.state.Windows[id])
	if windows.has(at) {
		return ""
	}
	before, after := windows.around(at)
	_, scanning := s.state.Scans[id]
	switch {
	case after != 0 && before != 0:
		return fmt.Sprintf("%s was read again after a gap, and is known anew from %s on", name, after.Describe())
	case after != 0:
		return fmt.Sprintf("lies before the first image of %s, which is exact from %s on", name, after.Describe())
	case scanning:
		return fmt.Sprintf("the first image of %s is under way; times from its end on will be recoverable", name)
	}
	return fmt.Sprintf("%s was never read whole", name)
}

// unreadTables speaks of the first tables that are in the way.
func (s *Snapshotter) unreadTables(at afterimage.Time, ids []afterimage.TableID, cat *catalogHistory) string {
	var reasons []string
	more := 0
	for _, id := range ids {
		if !s.bad(id, cat).has(at) {
			continue
		}
		if len(reasons) == namesMax {
			more++
			continue
		}
		name := id.String()
		if ns := cat.namespace(id, at); ns != "" {
			name = ns
		}
		reasons = append(reasons, s.unread(at, id, name))
	}
	text := strings.Join(reasons, "; ")
	if more > 0 {
		text += fmt.Sprintf("; and %d more tables", more)
	}
	return text
}

// lane is a lane's name.
func (s *Snapshotter) lane(id afterimage.LaneID) string {
	for _, l := range s.state.Lanes {
		if l.ID == id {
			return l.Name
		}
	}
	return fmt.Sprintf("%d", id)
}

// Warnings says what makes a good time less than certain: log entries up to it that were not understood.
func (s *Snapshotter) Warnings(at afterimage.Time) []string {
	var out []string
	for _, u := range s.state.Uncertified {
		// A table that was read again since is right whatever the entry did to it; with the catalog all tables are read again.
		read := u.Table
		if read == (afterimage.TableID{}) {
			read = afterimage.CatalogTable
		}
		cured := slices.ContainsFunc(s.state.Windows[read], func(w manifest.Interval) bool {
			return w.From >= u.Time && w.From <= at
		})
		if u.Time > at || cured {
			continue
		}
		what := "the source"
		if u.Table != (afterimage.TableID{}) {
			what = "table " + u.Table.String()
		}
		out = append(out, fmt.Sprintf("not certified: an entry of lane %s at %s was not understood (%s); %s may differ from the server's from then on",
			s.lane(u.Lane), u.Time.Describe(), u.Reason, what))
	}
	return out
}
