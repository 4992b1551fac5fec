package mongodb

import (
	"bytes"
	"errors"
	"fmt"

	"github.com/afterimagedb/afterimage"
	"github.com/afterimagedb/afterimage/dialect"
)

// folder folds the changes of one row; see [dialect.Folder].
type folder struct {
	catalog bool
	table   afterimage.TableID
	state   dialect.State
	lost    bool            // a patch had no base, and nothing replaced the row since
	lostAt  afterimage.Time // its time
	a, b    []byte          // state.Body lies in a after a patch; b takes the next one
	up      updater
}

var _ dialect.Folder = (*folder)(nil)

var errNoBase = errors.New("an update has no version before it to apply to")

// Reset begins a row.
func (f *folder) Reset(table afterimage.TableID, _ []byte) {
	f.table, f.catalog = table, table == afterimage.CatalogTable
	f.state, f.lost = dialect.State{}, false
}

// Apply adds the next change of the row.
func (f *folder) Apply(c *afterimage.Change) error {
	switch c.Op {
	case afterimage.OpInsert, afterimage.OpPut:
		f.put(c)
	case afterimage.OpDelete:
		f.state, f.lost = dialect.State{Time: c.Time}, false
	case afterimage.OpPatch:
		return f.patch(c)
	case afterimage.OpUnknown:
	}
	return nil
}

func (f *folder) put(c *afterimage.Change) {
	// A row of an image that says what is known already was made by an earlier change: it keeps that time.
	if c.From == afterimage.FromImage && f.state.Exists && bytes.Equal(f.state.Body, c.Body) {
		if c.Born != (afterimage.Born{}) {
			f.state.Born = c.Born
		}
		return
	}
	born := f.state.Born
	// An insert over a row that exists (a user's applyOps) is an upsert to the server: the row keeps its place.
	if c.Op == afterimage.OpInsert && c.From != afterimage.FromImage && !f.state.Exists {
		born = afterimage.Born{Time: c.Time, Order: c.Order}
	}
	if c.Born != (afterimage.Born{}) {
		born = c.Born
	}
	f.state = dialect.State{Exists: true, Body: c.Body, Born: born, Time: c.Time}
	f.lost = false
}

func (f *folder) patch(c *afterimage.Change) error {
	if !f.state.Exists {
		if !f.lost {
			f.lost, f.lostAt = true, c.Time
		}
		return nil
	}
	var body []byte
	var err error
	if f.catalog {
		body, err = applyCatalogPatch(f.state.Body, c.Body) // rare: a new slice each time
	} else if body, err = f.up.apply(f.b[:0], f.state.Body, c.Body); err == nil {
		f.a, f.b = body, f.a
	}
	if err != nil {
		return fmt.Errorf("table %s at %s: %w", f.table, c.Time, err)
	}
	f.state.Body, f.state.Time = body, c.Time
	return nil
}

// State returns the row as it stands.
func (f *folder) State() (dialect.State, error) {
	if f.lost {
		return dialect.State{}, fmt.Errorf("table %s at %s: %w", f.table, f.lostAt, errNoBase)
	}
	return f.state, nil
}
