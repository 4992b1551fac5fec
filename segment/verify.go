package segment

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"slices"

	"github.com/zeebo/xxh3"

	"github.com/afterimagedb/afterimage"
)

// Verify checks that data is the segment m: its checksum, what it says about itself, every row group, the order and the
// number of its rows, their times and places, and the filters.
func Verify(data []byte, m Meta) error {
	if int64(len(data)) != m.Bytes {
		return fmt.Errorf("segment %s: has %d bytes, the manifest says %d: cut off or replaced", m.ID, len(data), m.Bytes)
	}
	if sum := xxh3.Hash(data); sum != m.Sum {
		return fmt.Errorf("segment %s: damaged: checksum %016x, the manifest says %016x%s", m.ID, sum, m.Sum, where(data, m))
	}
	own, err := ReadMeta(data)
	if err != nil {
		return fmt.Errorf("segment %s: %w", m.ID, err)
	}
	if !reflect.DeepEqual(normal(own), normal(m)) {
		return fmt.Errorf("segment %s: describes itself otherwise than the manifest does: %+v, want %+v", m.ID, own, m)
	}
	it, err := Open(context.Background(), object(data), m, ReadOptions{})
	if err != nil {
		return err
	}
	defer it.Close()
	r := it.(*reader)
	seen, err := r.count(data)
	if err != nil {
		return err
	}
	seen.ID, seen.Kind, seen.Level, seen.Parents = m.ID, m.Kind, m.Level, m.Parents
	seen.Bytes, seen.Sum, seen.Index, seen.KeyID = m.Bytes, m.Sum, m.Index, m.KeyID
	if !reflect.DeepEqual(normal(seen), normal(m)) {
		return fmt.Errorf("segment %s: its rows are not what its description says: %+v, want %+v", m.ID, seen, m)
	}
	return nil
}

// count reads all rows and describes them, and checks index and filters against them.
func (r *reader) count(data []byte) (Meta, error) {
	var seen Meta
	at := -1
	var times [2]afterimage.Time // least and greatest of the group
	var filter []byte
	for r.Next() {
		c := r.Change()
		if r.at != at {
			if err := r.checkTimes(at, times); err != nil {
				return seen, err
			}
			at, times = r.at, [2]afterimage.Time{c.Time, c.Time}
			g := &r.groups[at]
			if g.first.Compare(afterimage.Bound{Table: c.Table, Key: c.Key}) != 0 {
				return seen, fmt.Errorf("segment %s: row group %d: begins at another row than the index says", r.meta.ID, at)
			}
			f := r.meta.Index.Offset + r.meta.Index.Length + g.filterOffset
			if filter = data[f : f+g.filterLength]; xxh3.Hash(filter) != g.filterSum {
				return seen, fmt.Errorf("segment %s: row group %d: damaged filter", r.meta.ID, at)
			}
		}
		times[0], times[1] = min(times[0], c.Time), max(times[1], c.Time)
		if !filterHas(filter, rowHash(c.Table, c.Key)) {
			return seen, fmt.Errorf("segment %s: row group %d: a row is not in its filter", r.meta.ID, at)
		}
		seen.add(c)
	}
	if r.Err() != nil {
		return seen, r.Err()
	}
	seen.Last.Key = slices.Clone(seen.Last.Key)
	return seen, r.checkTimes(at, times)
}

// checkTimes compares the times seen in row group i with the index; -1 is none.
func (r *reader) checkTimes(i int, seen [2]afterimage.Time) error {
	if i < 0 {
		return nil
	}
	if g := &r.groups[i]; g.minTime != seen[0] || g.maxTime != seen[1] {
		return fmt.Errorf("segment %s: row group %d: has times %s to %s, the index says %s to %s", r.meta.ID, i, seen[0], seen[1], g.minTime, g.maxTime)
	}
	return nil
}

// add counts a row; the key of Last is borrowed until the next.
func (m *Meta) add(c *afterimage.Change) {
	if m.Rows == 0 {
		m.First = afterimage.Bound{Table: c.Table, Key: slices.Clone(c.Key)}
		m.MinTime, m.MaxTime = c.Time, c.Time
	}
	m.Rows++
	m.RawBytes += int64(len(c.Key) + len(c.Body))
	m.MinTime, m.MaxTime = min(m.MinTime, c.Time), max(m.MaxTime, c.Time)
	m.Last = afterimage.Bound{Table: c.Table, Key: c.Key}
	if i, found := slices.BinarySearch(m.Lanes, c.Lane); !found {
		m.Lanes = slices.Insert(m.Lanes, i, c.Lane)
	}
}

// where names the damaged part of an object, as far as it can be told.
func where(data []byte, m Meta) string {
	if m.check() != nil || int64(len(data)) != m.Bytes {
		return ""
	}
	dec, err := getDecoder()
	if err != nil {
		return ""
	}
	defer putDecoder(dec)
	x := m.Index
	groups, err := decodeIndex(data[x.Offset:x.Offset+x.Length], &m, dec)
	if err != nil {
		return " (" + err.Error() + ")"
	}
	for i := range groups {
		g := &groups[i]
		if xxh3.Hash(data[g.offset:g.offset+g.length]) != g.sum {
			return fmt.Sprintf(" (row group %d of %d, rows from table %s key %x)", i, len(groups), g.first.Table, g.first.Key)
		}
		f := x.Offset + x.Length + g.filterOffset
		if xxh3.Hash(data[f:f+g.filterLength]) != g.filterSum {
			return fmt.Sprintf(" (filter of row group %d; the rows are whole)", i)
		}
	}
	return " (outside the row groups; the rows are whole)"
}

// normal makes descriptions comparable: empty and nil slices are the same.
func normal(m Meta) Meta {
	if len(m.Parents) == 0 {
		m.Parents = nil
	}
	if len(m.Lanes) == 0 {
		m.Lanes = nil
	}
	if len(m.First.Key) == 0 {
		m.First.Key = nil
	}
	if len(m.Last.Key) == 0 {
		m.Last.Key = nil
	}
	if m.KeyID == "none" {
		m.KeyID = ""
	}
	return m
}

// object is a Getter over one object in memory.
type object []byte

// GetRange returns a part of the object.
func (b object) GetRange(_ context.Context, name string, offset, length int64) ([]byte, error) {
	if offset < 0 || length < 0 || offset > int64(len(b)) || length > int64(len(b))-offset {
		return nil, errors.New(name + ": range past the end")
	}
	return b[offset : offset+length : offset+length], nil
}
