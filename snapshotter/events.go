package snapshotter

import (
	"cmp"
	"context"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"slices"

	"github.com/afterimagedb/afterimage"
)

// EventDescriber is what a dialect may implement so that changes of the catalog become events.
type EventDescriber interface {
	// Event says what a change of a catalog row was. body is the change's own, before the row before it, nil if not known.
	// kind is "" for what is no event.
	Event(op afterimage.Op, body, before []byte) (kind, namespace, detail string, destructive bool)
}

// Event is something that happened to a whole table, and that an operator may want to find again or undo.
type Event struct {
	ID          string             `json:"id"`             // stable: time and order, as in 1795252057.9-0
	Time        afterimage.Time    `json:"time"`           //
	Wall        int64              `json:"wall,omitempty"` // the source's clock, milliseconds since the Unix epoch
	Kind        string             `json:"kind"`           // drop, rename, create, massDelete, ...
	Namespace   string             `json:"namespace"`      // name of the table before it
	Table       afterimage.TableID `json:"table"`          //
	Detail      string             `json:"detail,omitempty"`
	Destructive bool               `json:"destructive"` // data was removed
	Before      afterimage.Time    `json:"before"`      // the last time that does not include it

	order uint32 // within Time
}

// Events returns what happened from one time to another, both inclusive, oldest first.
func (s *Snapshotter) Events(ctx context.Context, from, to afterimage.Time) ([]Event, error) {
	if from > to {
		return nil, afterimage.Usagef("events from %s to %s: the first lies after the second", from, to)
	}
	events, err := s.catalogEvents(ctx, from, to)
	if err != nil {
		return nil, fmt.Errorf("events: %w", err)
	}
	noticed, err := s.noticedEvents(ctx, from, to)
	if err != nil {
		return nil, fmt.Errorf("events: %w", err)
	}
	events = append(events, noticed...)
	slices.SortStableFunc(events, func(a, b Event) int {
		return cmp.Or(cmp.Compare(a.Time, b.Time), cmp.Compare(a.order, b.order))
	})
	return events, nil
}

// catalogEvents finds DDL in the catalog's history.
func (s *Snapshotter) catalogEvents(ctx context.Context, from, to afterimage.Time) ([]Event, error) {
	describer, ok := s.dialect.(EventDescriber)
	if !ok {
		return nil, nil
	}
	catalog := afterimage.CatalogTable
	var events []Event
	err := s.walk(ctx, catalog, afterimage.TableRange(catalog), max(from, 1)-1, to, func(st *step) error {
		c := st.change
		if c == nil || c.From == afterimage.FromImage || c.Time < from {
			return nil
		}
		e := newEvent(c)
		e.Kind, e.Namespace, e.Detail, e.Destructive = describer.Event(c.Op, c.Body, st.before.full())
		if e.Kind == "" {
			return nil
		}
		var err error
		if e.Table, err = tableID(c.Key); err != nil {
			return err
		}
		events = append(events, e)
		return nil
	})
	return events, err
}

func newEvent(c *afterimage.Change) Event {
	e := Event{ID: fmt.Sprintf("%s-%d", c.Time, c.Order), Time: c.Time, Wall: c.Wall, Before: c.Time - 1, order: c.Order}
	if e.Wall == 0 {
		e.Wall = c.Time.Clock().UnixMilli()
	}
	return e
}

// noticed is the body of a row of the events table.
type noticed struct {
	Kind        string             `json:"kind"`
	Namespace   string             `json:"namespace"`
	Table       afterimage.TableID `json:"table"`
	Detail      string             `json:"detail"`
	Destructive bool               `json:"destructive"`
	Count       int64              `json:"count"`
}

// eventKeyBytes is the size of a key of the events table: time and order, big endian.
const eventKeyBytes = 12

// noticedEvents reads the events table, whose keys are time and order.
func (s *Snapshotter) noticedEvents(ctx context.Context, from, to afterimage.Time) ([]Event, error) {
	table := afterimage.EventsTable
	r := afterimage.TableRange(table)
	r.From.Key = binary.BigEndian.AppendUint64(nil, uint64(from))
	if to < afterimage.MaxTime {
		r.To = afterimage.Bound{Table: table, Key: binary.BigEndian.AppendUint64(nil, uint64(to)+1)}
	}
	var events []Event
	err := s.walk(ctx, table, r, 0, to, func(st *step) error {
		if !st.after.exists {
			return nil
		}
		if len(st.key) != eventKeyBytes {
			return fmt.Errorf("key %x is not that of an event: run `afterimage verify`", st.key)
		}
		var n noticed
		if err := json.Unmarshal(st.after.body, &n); err != nil {
			return fmt.Errorf("event %x can't be read: %w: run `afterimage verify`", st.key, err)
		}
		c := afterimage.Change{Time: afterimage.Time(binary.BigEndian.Uint64(st.key)), Order: binary.BigEndian.Uint32(st.key[8:])}
		if st.change != nil {
			c.Wall = st.change.Wall
		}
		e := newEvent(&c)
		e.Kind, e.Namespace, e.Table, e.Detail, e.Destructive = n.Kind, n.Namespace, n.Table, n.Detail, n.Destructive
		if e.Detail == "" && n.Count > 0 {
			e.Detail = fmt.Sprintf("%d rows", n.Count)
		}
		events = append(events, e)
		return nil
	})
	if err != nil {
		return nil, err
	}
	if slices.ContainsFunc(events, func(e Event) bool { return e.Namespace == "" }) {
		names, err := s.catalogHistory(ctx)
		if err != nil {
			return nil, err
		}
		for i := range events {
			if e := &events[i]; e.Namespace == "" {
				e.Namespace = names.namespace(e.Table, e.Time)
			}
		}
	}
	return events, nil
}
