package snapshotter

import (
	"context"
	"fmt"
	"sort"

	"github.com/afterimagedb/afterimage"
)

// catalogHistory is when each table lived and what it was called.
type catalogHistory struct {
	tables map[afterimage.TableID][]*life // by lane
}

// life is what the catalog of one lane tells of one table, in order of time.
type life struct {
	lane  afterimage.LaneID
	spans spans
	names []namedFrom
}

type namedFrom struct {
	from      afterimage.Time
	namespace string
}

// lives returns when a table lived. What the catalog never spoke of is taken to live always.
func (h *catalogHistory) lives(id afterimage.TableID) spans {
	lives, ok := h.tables[id]
	if !ok {
		return always()
	}
	var out spans
	for _, l := range lives {
		out = out.or(l.spans)
	}
	return out
}

// namespace is a table's name at a time, or the first one known after it; "" if there is none.
func (h *catalogHistory) namespace(id afterimage.TableID, at afterimage.Time) string {
	for _, l := range h.tables[id] {
		if len(l.names) > 0 {
			i := sort.Search(len(l.names), func(i int) bool { return l.names[i].from > at })
			return l.names[max(i-1, 0)].namespace
		}
	}
	return ""
}

// catalogHistory reads the catalog's history, once.
func (s *Snapshotter) catalogHistory(ctx context.Context) (*catalogHistory, error) {
	s.mu.Lock()
	h := s.catalog
	s.mu.Unlock()
	if h != nil {
		return h, nil
	}
	h = &catalogHistory{tables: map[afterimage.TableID][]*life{}}
	catalog := afterimage.CatalogTable
	err := s.walk(ctx, catalog, afterimage.TableRange(catalog), 0, afterimage.MaxTime-1, func(st *step) error { return h.add(s, st) })
	if err != nil {
		return nil, fmt.Errorf("history of the catalog: %w", err)
	}
	s.mu.Lock()
	s.catalog = h
	s.mu.Unlock()
	return h, nil
}

func (h *catalogHistory) add(s *Snapshotter, st *step) error {
	id, err := tableID(st.key)
	if err != nil {
		return err
	}
	l := h.life(id, st.lane)
	n := len(l.spans)
	alive := n > 0 && l.spans[n-1].to == afterimage.MaxTime
	if st.after.known && !st.after.exists {
		if alive {
			l.spans[n-1].to = st.time - 1
		}
		return nil
	}
	if !alive {
		l.spans = append(l.spans, span{st.time, afterimage.MaxTime})
	}
	if !st.after.known {
		return nil
	}
	t, err := s.dialect.Table(id, st.after.body)
	if err != nil {
		return err
	}
	if k := len(l.names); k == 0 || l.names[k-1].namespace != t.Namespace {
		l.names = append(l.names, namedFrom{st.time, t.Namespace})
	}
	return nil
}

// life returns what is gathered of a table on a lane.
func (h *catalogHistory) life(id afterimage.TableID, lane afterimage.LaneID) *life {
	for _, l := range h.tables[id] {
		if l.lane == lane {
			return l
		}
	}
	l := &life{lane: lane}
	h.tables[id] = append(h.tables[id], l)
	return l
}
