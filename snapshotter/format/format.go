// Package format holds what the outputs of a MongoDB snapshot share: where the rows come from, how the tables of the
// catalog become the namespaces of a dump, extended JSON, the tally of what was written, and folders that appear whole.
//
// # Words
//
// A namespace is one thing that a dump describes: a collection, a view or a time-series. Its description is the
// metadata, in mongodump's form. Its documents, if it has any, come from one table: for a time-series that is
// system.buckets.X.
//
// # Invariants
//
//  1. Every table of the source is in the layout exactly once: as a namespace's documents, or, for system.views, as
//     the views that its rows stand for.
//  2. Documents are written as the source's bytes, never decoded and encoded again.
//  3. A folder or file under its final name is complete and durable.
package format

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/zeebo/xxh3"

	"github.com/afterimagedb/afterimage/dialect"
)

// Source is the state of a protected cluster at one time.
type Source interface {
	// Tables returns every table that was live at T: system.views of each database, system.buckets.* of time-series,
	// admin.system.users and admin.system.roles included.
	Tables(ctx context.Context) ([]dialect.Table, error)
	// Rows reads the rows of t in the order of their keys, or of their birth when t.Ordered. With more than one worker
	// it is called from several goroutines at once.
	Rows(ctx context.Context, t dialect.Table) (Rows, error)
}

// Rows is a reading of a table. Body is valid until the next call of Next, Err after Next returned false.
type Rows interface {
	Next() bool
	Body() []byte
	Err() error
	Close() error
}

// Written is what was written of one namespace.
type Written struct {
	Namespace string `json:"namespace"`
	Type      string `json:"type"`           // collection, view or timeseries
	File      string `json:"file,omitempty"` // of the documents, relative to the folder
	Count     int64  `json:"count"`          // documents
	Bytes     int64  `json:"bytes"`          // of their BSON
	Hash      Hash   `json:"hash"`           // of their BSON, whatever their order
}

// Summary is what was written.
type Summary struct {
	Namespaces []Written `json:"namespaces"` // by database and name
	Count      int64     `json:"count"`
	Bytes      int64     `json:"bytes"`
}

// Add adds a namespace.
func (s *Summary) Add(w Written) {
	s.Namespaces = append(s.Namespaces, w)
	s.Count += w.Count
	s.Bytes += w.Bytes
}

// Hash is the sum of the documents' 128-bit xxh3 hashes, each half by itself modulo 2^64: two sets of documents with
// equal sums are the same, in whatever order they come.
type Hash struct{ Hi, Lo uint64 }

// Add adds a document.
func (h *Hash) Add(doc []byte) {
	d := xxh3.Hash128(doc)
	h.Hi += d.Hi
	h.Lo += d.Lo
}

// MarshalText writes 32 hexadecimal digits.
func (h Hash) MarshalText() ([]byte, error) { return fmt.Appendf(nil, "%016x%016x", h.Hi, h.Lo), nil }

// Copy gives each document of a table to put and returns the tally. What put gets is valid during the call only.
func Copy(ctx context.Context, src Source, n *Namespace, put func(doc []byte) error) (w Written, err error) {
	w = Written{Namespace: n.DB + "." + n.Name, Type: n.Type}
	if n.Table == nil {
		return w, nil
	}
	defer func() {
		if err != nil {
			err = fmt.Errorf("%s.%s: %w", n.DB, n.DataName, err)
		}
	}()
	for _, doc := range n.Extra {
		w.add(doc)
		if err := put(doc); err != nil {
			return w, err
		}
	}
	if n.Table.Row == nil {
		return w, nil
	}
	rows, err := src.Rows(ctx, *n.Table)
	if err != nil {
		return w, err
	}
	defer func() { err = errors.Join(err, rows.Close()) }()
	for rows.Next() {
		doc := rows.Body()
		// Nothing but the documents' own lengths divides a dump: one wrong length would damage all that follows.
		if len(doc) < 5 || int(binary.LittleEndian.Uint32(doc)) != len(doc) || doc[len(doc)-1] != 0 {
			return w, fmt.Errorf("document %d: %d bytes that are no BSON document", w.Count+1, len(doc))
		}
		w.add(doc)
		if err := put(doc); err != nil {
			return w, err
		}
		if w.Count%1024 == 0 && ctx.Err() != nil {
			return w, ctx.Err()
		}
	}
	return w, rows.Err()
}

func (w *Written) add(doc []byte) {
	w.Count++
	w.Bytes += int64(len(doc))
	w.Hash.Add(doc)
}
