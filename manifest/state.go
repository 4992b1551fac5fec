// Package manifest owns the list of what is live in the bucket. A manifest is a numbered object, created only if absent;
// committing one is the only way to change the truth of a source.
//
// # Words
//
// State is the value that a manifest number stands for. Edit is the difference of two states: what a commit adds and
// removes. A checkpoint is a manifest that holds a whole state beside its edit. Note is what a listener says to the
// committer through the stream (a scanned range, a gap), turned into an edit when its batch is committed.
//
// # Invariants
//
//  1. Manifest n+1 is created only if absent, and holds a random commit id: after an unclear answer, reading it back
//     tells whether it is ours.
//  2. A lane's coverage only grows, and an edit says which coverage it extends: an edit prepared on an old state fails.
//  3. An edit that adds or uses a doomed object fails.
//  4. State is immutable: Apply returns a new one.
package manifest

import (
	"github.com/afterimagedb/afterimage"
	"github.com/afterimagedb/afterimage/segment"
)

// State is what is live after a commit.
type State struct {
	Number      uint64                            `json:"number"`
	Lanes       []Lane                            `json:"lanes"`       // by LaneID
	Segments    map[string]segment.Meta           `json:"segments"`    // by id: changes and images
	Images      []Image                           `json:"images"`      // by id order of commit
	Scans       map[afterimage.TableID]Scan       `json:"scans"`       // first images under way
	Windows     map[afterimage.TableID][]Interval `json:"windows"`     // tables that needed an image; absent: restorable since created
	Gaps        []Gap                             `json:"gaps"`        //
	Uncertified []Uncertified                     `json:"uncertified"` // intervals with entries that we did not understand
	Boundaries  []afterimage.Bound                `json:"boundaries"`  // parts of row space, for merges and images
	Doomed      map[string]int64                  `json:"doomed"`      // object name to the wall clock (ms) when it was named
}

// Lane is one ordered log of a source and how far it is covered.
type Lane struct {
	ID          afterimage.LaneID   `json:"id"`
	Name        string              `json:"name"`
	Incarnation string              `json:"incarnation"`
	Epoch       uint32              `json:"epoch"`
	Start       afterimage.Position `json:"start"`       // where this epoch began, exclusive
	StartTime   afterimage.Time     `json:"startTime"`   // its time
	Covered     afterimage.Position `json:"covered"`     // everything up to here is in Segments
	Horizon     afterimage.Time     `json:"horizon"`     //
	RestartFrom afterimage.Position `json:"restartFrom"` //
	Seq         uint64              `json:"seq"`         // stream sequence of the last covered message: a hint
}

// Image is a base: segments that hold every row of a range of row space at Time. Rows carry their own times, all between
// MinTime and Time; a read at T >= Time needs the image and the changes later than MinTime.
type Image struct {
	ID       string           `json:"id"`
	Range    afterimage.Range `json:"range"`
	MinTime  afterimage.Time  `json:"minTime"`
	Time     afterimage.Time  `json:"time"`
	Segments []string         `json:"segments"`
}

// Scan is a first image under way. Once complete it becomes an Image and a window.
type Scan struct {
	Lane     afterimage.LaneID `json:"lane"`
	MinTime  afterimage.Time   `json:"minTime"`
	Time     afterimage.Time   `json:"time"` // no range is read at an earlier one; from the last on the image is exact
	Segments []string          `json:"segments"`
	Resume   []byte            `json:"resume,omitempty"` // where the next range begins, in the listener's own form
	Ranges   int               `json:"ranges"`           // ranges done
}

// Interval is a closed interval of times; a zero To means that it is still growing with the horizon.
type Interval struct {
	From afterimage.Time `json:"from"`
	To   afterimage.Time `json:"to,omitempty"`
}

// Gap is a hole in a lane's log: what happened between From and To, both exclusive, is not known.
type Gap struct {
	Lane   afterimage.LaneID `json:"lane"`
	From   afterimage.Time   `json:"from"`
	To     afterimage.Time   `json:"to"`
	Reason string            `json:"reason"`
}

// Uncertified marks times whose changes include an entry that was kept raw because we did not understand it.
type Uncertified struct {
	Lane   afterimage.LaneID  `json:"lane"`
	Table  afterimage.TableID `json:"table"` // zero: any
	Time   afterimage.Time    `json:"time"`
	Reason string             `json:"reason"`
}

// NoteKind says what a listener tells the committer.
type NoteKind string

// The kinds of note.
const (
	// NoteScan lists tables whose first image begins; until it is complete they can't be restored.
	NoteScan NoteKind = "scan"
	// NoteRange says that a range of a table was scanned at an exact time into Segments. Done ends the table's scan.
	// Dropped says that the table is gone: its scan ends without an image.
	NoteRange NoteKind = "range"
	// NoteGap says that the log has a hole before this batch. All windows of the lane's tables close at From; the
	// NoteScan that follows lists what must be scanned again.
	NoteGap NoteKind = "gap"
	// NoteUncertified says that an entry was kept raw.
	NoteUncertified NoteKind = "uncertified"
)

// Note travels from a listener to the committer in a batch.
type Note struct {
	Kind     NoteKind             `json:"kind"`
	Tables   []afterimage.TableID `json:"tables,omitempty"`   // scan
	Table    afterimage.TableID   `json:"table"`              // range, uncertified
	Segments []segment.Meta       `json:"segments,omitempty"` // range: objects already durable in the bucket
	MinTime  afterimage.Time      `json:"minTime"`            // range: its rows' time
	Time     afterimage.Time      `json:"time"`               // range: from when it is exact; equals MinTime but for fuzzy scans. scan: no range is older
	Resume   []byte               `json:"resume,omitempty"`   // range: where the next begins
	Done     bool                 `json:"done,omitempty"`     // range
	Dropped  bool                 `json:"dropped,omitempty"`  // range
	From     afterimage.Time      `json:"from"`               // gap
	To       afterimage.Time      `json:"to"`                 // gap
	Reason   string               `json:"reason,omitempty"`   // gap, uncertified
}
