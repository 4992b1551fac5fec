package afterimage

import (
	"bytes"
	"cmp"
	"encoding/hex"
	"fmt"
	"math"
)

// TableID names a table: the UUID of a MongoDB collection.
type TableID [16]byte

// Tables of our own. They sort before every real table.
var (
	// CatalogTable holds one row per table (key: its TableID): namespace, options, indexes. DDL is a change of that row.
	CatalogTable = TableID{15: 1}
	// EventsTable holds what the compactor noticed and an operator wants to find again, such as mass deletes.
	EventsTable = TableID{15: 2}
)

// String prints the 8-4-4-4-12 form of a UUID.
func (id TableID) String() string {
	h := hex.EncodeToString(id[:])
	return h[:8] + "-" + h[8:12] + "-" + h[12:16] + "-" + h[16:20] + "-" + h[20:]
}

// MarshalText writes the form of [TableID.String].
func (id TableID) MarshalText() ([]byte, error) { return []byte(id.String()), nil }

// UnmarshalText reads a UUID with or without dashes.
func (id *TableID) UnmarshalText(b []byte) error {
	raw, err := hex.DecodeString(string(bytes.ReplaceAll(b, []byte("-"), nil)))
	if err != nil || len(raw) != len(id) {
		return fmt.Errorf("table id %q: want a UUID", b)
	}
	copy(id[:], raw)
	return nil
}

// LaneID numbers a lane within its source; the manifest maps it to the lane's name and incarnation.
type LaneID uint32

// Op says what a change does to its row.
type Op uint8

// The operations. Their numbers are part of the segment and batch formats.
const (
	// OpInsert puts a row that is new: it is born at this change. Body is the whole row.
	OpInsert Op = 1
	// OpPut replaces a row and leaves its birth as it was. Body is the whole row.
	OpPut Op = 2
	// OpPatch applies a native diff to the version before it. Body is the diff in the dialect's form.
	OpPatch Op = 3
	// OpDelete removes a row. Body is the row's native identity (for MongoDB {_id: ...}), for people to read.
	OpDelete Op = 4
	// OpUnknown keeps a log entry that we do not understand. Body is the raw entry; its window is not certified.
	OpUnknown Op = 5
)

// String prints the operation's name.
func (o Op) String() string {
	switch o {
	case OpInsert:
		return "insert"
	case OpPut:
		return "put"
	case OpPatch:
		return "patch"
	case OpDelete:
		return "delete"
	case OpUnknown:
		return "unknown"
	}
	return fmt.Sprintf("op(%d)", uint8(o))
}

// Provenance says where a change was learnt from. Its numbers are part of the segment format.
type Provenance uint8

// The provenances.
const (
	FromLog   Provenance = 0 // from the source's log
	FromImage Provenance = 1 // from a scan of the source, or folded from earlier changes
	FromLate  Provenance = 2 // placed after the fact, such as a row found missing by a rescan
)

// OrderImage is the order of a row of an image: it sorts last at its time.
const OrderImage uint32 = math.MaxUint32

// Born is when a row was inserted: capped collections return rows in this order, and an update keeps the place.
// The zero value means that the change itself is the birth ([OpInsert]) or that the birth is not known.
type Born struct {
	Time  Time
	Order uint32
}

// Compare orders births.
func (b Born) Compare(c Born) int {
	if n := cmp.Compare(b.Time, c.Time); n != 0 {
		return n
	}
	return cmp.Compare(b.Order, c.Order)
}

// Change is one committed mutation of one row, or of the catalog.
type Change struct {
	Time  Time       // commit time; a transaction's changes share it
	Born  Born       // set on rows of images only, see [Born]
	Pos   Position   // log position of the entry that committed it; not kept in segments
	Wall  int64      // the source's wall clock at commit, milliseconds since the Unix epoch, 0 if unknown
	Order uint32     // order within Time
	Lane  LaneID     // filled in by the compactor
	Op    Op         //
	From  Provenance //
	Table TableID    //
	Key   []byte     // identity of the row in its table, see package dialect
	Body  []byte     // native payload: BSON document or diff
}

// Compare orders changes by (Table, Key, Time, Order).
func (c *Change) Compare(d *Change) int {
	if n := bytes.Compare(c.Table[:], d.Table[:]); n != 0 {
		return n
	}
	if n := bytes.Compare(c.Key, d.Key); n != 0 {
		return n
	}
	if n := cmp.Compare(c.Time, d.Time); n != 0 {
		return n
	}
	return cmp.Compare(c.Order, d.Order)
}

// Bound is a place in the one sorted space of all rows of a source: by table, then by key.
type Bound struct {
	Table TableID `json:"table"`
	Key   []byte  `json:"key,omitempty"`
}

// Compare orders bounds.
func (b Bound) Compare(c Bound) int {
	if n := bytes.Compare(b.Table[:], c.Table[:]); n != 0 {
		return n
	}
	return bytes.Compare(b.Key, c.Key)
}

// Range is the half-open interval [From, To) of row space. A zero To means no upper end.
type Range struct {
	From Bound `json:"from"`
	To   Bound `json:"to"`
}

// TableRange covers every row of a table.
func TableRange(id TableID) Range {
	next := id
	for i := len(next) - 1; i >= 0; i-- {
		next[i]++
		if next[i] != 0 {
			break
		}
	}
	return Range{From: Bound{Table: id}, To: Bound{Table: next}}
}

// KeyRange covers one row.
func KeyRange(id TableID, key []byte) Range {
	return Range{From: Bound{Table: id, Key: key}, To: Bound{Table: id, Key: append(bytes.Clone(key), 0)}}
}

// Open reports whether r has no upper end.
func (r Range) Open() bool { return r.To.Table == TableID{} && len(r.To.Key) == 0 }

// Contains reports whether b lies in r.
func (r Range) Contains(b Bound) bool {
	return r.From.Compare(b) <= 0 && (r.Open() || b.Compare(r.To) < 0)
}

// Overlaps reports whether r holds any bound of the closed interval [first, last].
func (r Range) Overlaps(first, last Bound) bool {
	return r.From.Compare(last) <= 0 && (r.Open() || first.Compare(r.To) < 0)
}
