// Package segment owns the immutable Parquet object of changes: writer, reader, key index and k-way merge.
//
// # Invariants
//
//  1. Rows are strictly ascending by (table, key, time, order): the writer refuses anything else, the reader checks it.
//  2. A segment is cut in row groups of about [RowGroupBytes]; the key index names each one's first row and byte range,
//     so a row's history is found with two range reads: index, row group.
//  3. Checksums are over stored bytes: Meta.Sum over the object, one per row group in the key index.
//  4. Any Parquet reader opens a segment; our envelope lives in the footer's metadata. docs/format/segment.md specifies it.
package segment

import "github.com/afterimagedb/afterimage"

// FormatVersion is the version of the segment format that this package writes.
const FormatVersion = 1

// RowGroupBytes is the uncompressed size at which a row group is closed.
const RowGroupBytes = 1 << 20

// Kind says what a segment holds.
type Kind string

// The kinds.
const (
	Changes Kind = "changes" // changes as they were logged
	Image   Kind = "image"   // rows of tables at one or several times, each row carrying its own
)

// Meta describes a segment; manifests hold it, so no object is opened to plan a read.
type Meta struct {
	ID       string              `json:"id"` // object name is segments/<ID>.parquet
	Kind     Kind                `json:"kind"`
	Level    int                 `json:"level"`
	Rows     int64               `json:"rows"`
	Bytes    int64               `json:"bytes"`    // size of the object
	RawBytes int64               `json:"rawBytes"` // keys and bodies before compression
	MinTime  afterimage.Time     `json:"minTime"`
	MaxTime  afterimage.Time     `json:"maxTime"`
	First    afterimage.Bound    `json:"first"` // first row's place
	Last     afterimage.Bound    `json:"last"`  // last row's place, inclusive
	Index    IndexRef            `json:"index"`
	Sum      uint64              `json:"sum"`               // XXH3-64 of the stored object
	KeyID    string              `json:"keyID,omitempty"`   // encryption key, "" for none
	Parents  []string            `json:"parents,omitempty"` // segments it was merged or folded from
	Lanes    []afterimage.LaneID `json:"lanes,omitempty"`   // lanes with rows in it
}

// IndexRef is where the key index lies within the object.
type IndexRef struct {
	Offset int64 `json:"offset"`
	Length int64 `json:"length"`
}

// ObjectName is the name of a segment's object in its source's prefix.
func ObjectName(id string) string { return "segments/" + id + ".parquet" }

// Iterator walks changes in ascending order. Change is valid until the next call of Next. Close may be called twice.
type Iterator interface {
	Next() bool
	Change() *afterimage.Change
	Err() error
	Close() error
}
