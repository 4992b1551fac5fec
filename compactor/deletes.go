package compactor

import (
	"encoding/binary"
	"encoding/json"
	"maps"
	"time"

	"github.com/afterimagedb/afterimage"
)

// Mass deletes: within one flush, at least this many deletes of a table that make up at least half of its changes.
const (
	massDeleteMin   = 1000
	massDeleteQuiet = time.Minute // one event per table and this long
)

// Event is the body of a row of the events table, as JSON. Its key is the time (8 bytes) and order (4 bytes), big endian.
type Event struct {
	Kind        string             `json:"kind"` // "massDelete"
	Table       afterimage.TableID `json:"table"`
	Destructive bool               `json:"destructive"`
	Count       int                `json:"count"` // deletes seen in the flush that raised it
}

// deleteWatch notices mass deletes, which an operator looks for when something went wrong.
type deleteWatch struct {
	raised map[afterimage.TableID]int64 // wall clock (ms) of the last event
	fresh  map[afterimage.TableID]int64 // the same of what is not committed yet
	counts map[afterimage.TableID]*deleteCount
}

type deleteCount struct {
	deletes, changes int
	first            *afterimage.Change
}

// committed says that the events returned last are durable. Those of a flush that failed come again.
func (w *deleteWatch) committed() { maps.Copy(w.raised, w.fresh) }

// events returns a change of the events table for each mass delete in the memtable.
func (w *deleteWatch) events(m *memtable) []afterimage.Change {
	clear(w.fresh)
	if len(m.changes) < massDeleteMin {
		return nil
	}
	if w.counts == nil {
		w.counts, w.raised, w.fresh = map[afterimage.TableID]*deleteCount{}, map[afterimage.TableID]int64{}, map[afterimage.TableID]int64{}
	}
	clear(w.counts)
	for i := range m.changes {
		c := &m.changes[i]
		n := w.counts[c.Table]
		if n == nil {
			n = &deleteCount{}
			w.counts[c.Table] = n
		}
		n.changes++
		if c.Op == afterimage.OpDelete {
			n.deletes++
			if n.first == nil || c.Time < n.first.Time || c.Time == n.first.Time && c.Order < n.first.Order {
				n.first = c
			}
		}
	}
	var out []afterimage.Change
	for id, n := range w.counts {
		if id == afterimage.CatalogTable || n.deletes < massDeleteMin || n.deletes*2 < n.changes {
			continue
		}
		quiet := n.first.Wall-w.raised[id] < massDeleteQuiet.Milliseconds()
		w.fresh[id] = n.first.Wall
		if quiet {
			continue
		}
		body, err := json.Marshal(Event{Kind: "massDelete", Table: id, Destructive: true, Count: n.deletes})
		if err != nil {
			continue // a struct of plain fields
		}
		key := binary.BigEndian.AppendUint32(binary.BigEndian.AppendUint64(nil, uint64(n.first.Time)), n.first.Order)
		out = append(out, afterimage.Change{
			Time: n.first.Time, Order: n.first.Order, Wall: n.first.Wall, Pos: n.first.Pos,
			Op: afterimage.OpInsert, Table: afterimage.EventsTable, Key: key, Body: body,
		})
	}
	return out
}
