// Package dialect says what differs between databases once their logs are changes: how a key is made, how the changes
// of one row combine, and what a row of the catalog means. Implementations are pure: no clock, no context, no
// goroutine, no I/O.
//
// # Invariants
//
//  1. Two keys are equal exactly when the server holds the rows to be the same row.
//  2. Folding the changes of a row up to T, in (Time, Order), gives the row as the server had it at T, byte for byte.
//  3. A patch without a base is legal only if something later replaces or removes the row: [Folder.State] says so.
package dialect

import "github.com/afterimagedb/afterimage"

// Dialect is one kind of database.
type Dialect interface {
	// Name is the source kind as written in repository.json, for example "mongodb".
	Name() string
	// NewFolder returns a folder; it is not safe for concurrent use.
	NewFolder() Folder
	// Table reads a row of the catalog.
	Table(id afterimage.TableID, row []byte) (Table, error)
	// ParseKey reads a key as a person types it on the command line (for MongoDB extended JSON of _id, or a bare
	// 24-digit ObjectId, number or string) and returns the candidates in the order to try.
	ParseKey(text string) ([][]byte, error)
	// FormatKey returns a row's identity for people: extended JSON of _id taken from the row, patch target or delete.
	FormatKey(body []byte) string
}

// Table is a row of the catalog, as far as other packages need it.
type Table struct {
	ID        afterimage.TableID
	Namespace string // "db.collection"
	Ordered   bool   // rows are returned in order of birth (capped collections)
	Row       []byte // the whole native row, for restorer and formats
}

// Folder folds the changes of one row after the other. Feed the changes of a row in (Time, Order) order.
type Folder interface {
	// Reset begins the row (table, key).
	Reset(table afterimage.TableID, key []byte)
	// Apply adds the next change. It may keep references to c.Body until the next Reset.
	// An error means that the change can't be applied to what came before: corruption or a defect.
	Apply(c *afterimage.Change) error
	// State returns the row. The body is valid until the next Reset or Apply. An error says that the state is not known:
	// a patch had no base and nothing replaced the row since.
	State() (State, error)
}

// State is a row as it stands after its folded changes.
type State struct {
	Exists bool
	Body   []byte
	Born   afterimage.Born
	Time   afterimage.Time // commit time of the change that made this state
}
