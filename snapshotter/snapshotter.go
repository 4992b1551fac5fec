package snapshotter

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"

	"github.com/afterimagedb/afterimage"
	"github.com/afterimagedb/afterimage/dialect"
	"github.com/afterimagedb/afterimage/manifest"
	"github.com/afterimagedb/afterimage/segment"
)

// Options says what to read. Windows and Warnings need only State.
type Options struct {
	State   *manifest.State // what is live; the snapshotter never changes it
	Bucket  segment.Getter
	Dialect dialect.Dialect
	Scratch string // folder for what does not fit in memory; "" is the system's
}

// Snapshotter reads one state of a source's manifest. It is safe for concurrent use; what it returns is not.
type Snapshotter struct {
	state   *manifest.State
	bucket  segment.Getter
	dialect dialect.Dialect
	scratch string

	mu      sync.Mutex
	catalog *catalogHistory // read when it is first needed
	at      afterimage.Time // time of needed
	needed  *manifest.State // the part of state that reads at that time need
}

// New returns a snapshotter of a state.
func New(o Options) *Snapshotter {
	s := &Snapshotter{state: o.State, dialect: o.Dialect, scratch: o.Scratch}
	if o.Bucket != nil {
		s.bucket = newCache(o.Bucket)
	}
	return s
}

// cover says what to read for the state of r at a time.
func (s *Snapshotter) cover(r afterimage.Range, at afterimage.Time) []manifest.Piece {
	return s.stateAt(at).Cover(r, at)
}

// stateAt returns the state less the segments that no read at the time needs, so that planning the read of one of many
// tables does not look at all of history. The last one is kept: reads at one time come together.
func (s *Snapshotter) stateAt(at afterimage.Time) *manifest.State {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.needed != nil && s.at == at {
		return s.needed
	}
	n := &manifest.State{Images: s.state.Images, Segments: map[string]segment.Meta{}}
	for _, p := range s.state.Cover(afterimage.Range{}, at) {
		for _, m := range p.Images {
			n.Segments[m.ID] = m
		}
		for _, m := range p.Changes {
			n.Segments[m.ID] = m
		}
	}
	s.at, s.needed = at, n
	return n
}

// Catalog returns the tables that lived at a time, by namespace.
func (s *Snapshotter) Catalog(ctx context.Context, at afterimage.Time) ([]dialect.Table, error) {
	rows, err := s.rows(ctx, afterimage.TableRange(afterimage.CatalogTable), at)
	if err != nil {
		return nil, fmt.Errorf("catalog at %s: %w", at, err)
	}
	defer discard(rows)
	var tables []dialect.Table
	for rows.next() {
		row := rows.row()
		id, err := tableID(row.Key)
		if err != nil {
			return nil, fmt.Errorf("catalog at %s: %w", at, err)
		}
		if n := len(tables); n > 0 && tables[n-1].ID == id {
			continue // the same table on another lane
		}
		t, err := s.dialect.Table(id, slices.Clone(row.Body))
		if err != nil {
			return nil, fmt.Errorf("catalog at %s: %w", at, err)
		}
		tables = append(tables, t)
	}
	if err := rows.err(); err != nil {
		return nil, fmt.Errorf("catalog at %s: %w", at, err)
	}
	slices.SortStableFunc(tables, func(a, b dialect.Table) int { return strings.Compare(a.Namespace, b.Namespace) })
	return tables, nil
}

// tableID reads the key of a row of the catalog.
func tableID(key []byte) (afterimage.TableID, error) {
	var id afterimage.TableID
	if len(key) != len(id) {
		return id, fmt.Errorf("key %x is not that of a table: run `afterimage verify`", key)
	}
	copy(id[:], key)
	return id, nil
}

// Row returns one row as it was at a time; Exists is false when there was none. It reads a few ranges of objects only.
// The bytes are the caller's.
func (s *Snapshotter) Row(ctx context.Context, t dialect.Table, key []byte, at afterimage.Time) (dialect.State, error) {
	rows, err := s.rows(ctx, afterimage.KeyRange(t.ID, key), at)
	if err != nil {
		return dialect.State{}, fmt.Errorf("%s: %w", named(t), err)
	}
	defer discard(rows)
	if !rows.next() {
		if err := rows.err(); err != nil {
			return dialect.State{}, fmt.Errorf("%s: %w", named(t), err)
		}
		return dialect.State{}, nil
	}
	st := rows.row().State
	st.Body = slices.Clone(st.Body)
	return st, nil
}

// named is a table's name for errors.
func named(t dialect.Table) string {
	if t.Namespace == "" {
		return "table " + t.ID.String()
	}
	return t.Namespace
}
