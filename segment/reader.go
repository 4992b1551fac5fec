package segment

import (
	"bytes"
	"context"
	"fmt"

	"github.com/zeebo/xxh3"

	"github.com/afterimagedb/afterimage"
)

// Getter reads parts of objects; bucket.Bucket is one. The result belongs to the caller.
type Getter interface {
	GetRange(ctx context.Context, name string, offset, length int64) ([]byte, error)
}

// ReadOptions says which rows to read. The zero value reads all.
type ReadOptions struct {
	Range afterimage.Range
	After afterimage.Time // exclusive; 0 is no bound
	Until afterimage.Time // inclusive; 0 is no bound
	// FetchBytes bounds what is read at once, and with about 2 MB of decoded rows the reader's memory; 0 is 4 MiB. A merge
	// of many inputs divides its budget. A row group is always read whole.
	FetchBytes int64
}

const (
	// fetchBytes is the default of ReadOptions.FetchBytes. A scan begins with one row group and doubles up to it, so that
	// who reads little fetches little.
	fetchBytes = 4 << 20
	// filterAhead is how much is read behind the index when one row is wanted: in a small segment the filters are in it.
	filterAhead = 32 << 10
)

// Open begins to read the rows of the segment m that o wants, in ascending order. It reads the key index; the context
// serves the iterator too. The iterator must be closed.
func Open(ctx context.Context, g Getter, m Meta, o ReadOptions) (Iterator, error) {
	if err := m.check(); err != nil {
		return nil, err
	}
	r := &reader{ctx: ctx, get: g, meta: m, opts: o, name: ObjectName(m.ID)}
	if o.Until == 0 {
		r.opts.Until = afterimage.MaxTime
	}
	if o.FetchBytes == 0 {
		r.opts.FetchBytes = fetchBytes
	}
	if !o.Range.Overlaps(m.First, m.Last) || m.MaxTime <= o.After && o.After != 0 || m.MinTime > r.opts.Until {
		return r, nil
	}
	dec, err := getDecoder()
	if err != nil {
		return nil, err
	}
	r.rows.dec = dec
	if err := r.plan(); err != nil {
		putDecoder(dec)
		return nil, err
	}
	return r, nil
}

// reader is the iterator of a segment.
type reader struct {
	ctx  context.Context //nolint:containedctx // an iterator is one read, begun with this context
	get  Getter
	meta Meta
	name string
	opts ReadOptions

	groups []group
	wanted []int  // numbers of the row groups to read
	fetch  int64  // size of the next fetch
	data   []byte // fetched row groups, not yet decoded
	at     int    // number of the row group being read
	edges  bool   // rows of this group may lie outside the range

	rows    rows
	change  afterimage.Change
	began   bool              // change is a row
	prev    afterimage.Change // place of the row before
	lastKey []byte            // last key of the group before
	err     error
}

// plan reads the index and picks the row groups that may hold wanted rows.
func (r *reader) plan() error {
	x := r.meta.Index
	row, single := singleRow(r.opts.Range)
	length := x.Length
	if single {
		length = min(length+filterAhead, r.meta.Bytes-x.Offset)
	}
	section, err := r.get.GetRange(r.ctx, r.name, x.Offset, length)
	if err != nil {
		return fmt.Errorf("segment %s: key index: %w", r.meta.ID, err)
	}
	if int64(len(section)) != length {
		return fmt.Errorf("segment %s: key index: got %d bytes of %d: the object is cut off, run `afterimage verify`", r.meta.ID, len(section), length)
	}
	section, ahead := section[:x.Length], section[x.Length:]
	if r.groups, err = decodeIndex(section, &r.meta, r.rows.dec); err != nil {
		return fmt.Errorf("segment %s: %w: run `afterimage verify`", r.meta.ID, err)
	}
	from, to := span(r.groups, r.opts.Range)
	for i := from; i < to; i++ {
		g := &r.groups[i]
		if g.maxTime <= r.opts.After && r.opts.After != 0 || g.minTime > r.opts.Until {
			continue
		}
		if single {
			has, err := r.mayHold(g, ahead, row)
			if err != nil {
				return fmt.Errorf("segment %s: row group %d: filter: %w", r.meta.ID, i, err)
			}
			if !has {
				continue
			}
		}
		r.wanted = append(r.wanted, i)
	}
	return nil
}

// singleRow reports whether the range is that of one row, and its hash.
func singleRow(r afterimage.Range) (uint64, bool) {
	k := r.From.Key
	if r.Open() || r.From.Table != r.To.Table || len(r.To.Key) != len(k)+1 || r.To.Key[len(k)] != 0 || !bytes.Equal(r.To.Key[:len(k)], k) {
		return 0, false
	}
	return rowHash(r.From.Table, k), true
}

// mayHold asks a group's filter; ahead is what was read behind the index already.
func (r *reader) mayHold(g *group, ahead []byte, row uint64) (bool, error) {
	var f []byte
	if end := g.filterOffset + g.filterLength; end <= int64(len(ahead)) {
		f = ahead[g.filterOffset:end]
	} else {
		var err error
		f, err = r.get.GetRange(r.ctx, r.name, r.meta.Index.Offset+r.meta.Index.Length+g.filterOffset, g.filterLength)
		if err != nil {
			return false, err
		}
	}
	if sum := xxh3.Hash(f); sum != g.filterSum {
		return false, fmt.Errorf("damaged: checksum %016x, the index says %016x: run `afterimage verify`", sum, g.filterSum)
	}
	return filterHas(f, row), nil
}

// Next moves to the next wanted row.
func (r *reader) Next() bool {
	for r.err == nil {
		if r.rows.i == r.rows.n {
			if !r.advance() {
				return false
			}
			continue
		}
		if err := r.step(); err != nil {
			return r.fail(err)
		}
		c := &r.change
		if c.Time <= r.opts.After && r.opts.After != 0 || c.Time > r.opts.Until {
			continue
		}
		if r.edges {
			b := afterimage.Bound{Table: c.Table, Key: c.Key}
			if b.Compare(r.opts.Range.From) < 0 {
				continue
			}
			if !r.opts.Range.Open() && b.Compare(r.opts.Range.To) >= 0 {
				r.stop()
				return false
			}
		}
		return true
	}
	return false
}

// step reads a row and checks that it sorts after the one before it.
func (r *reader) step() error {
	r.prev.Table, r.prev.Time, r.prev.Order = r.change.Table, r.change.Time, r.change.Order
	if r.rows.i > 0 {
		r.prev.Key = r.change.Key // still there: the page of this group
	}
	if err := r.rows.next(&r.change); err != nil {
		return err
	}
	if r.began && r.prev.Compare(&r.change) >= 0 {
		return fmt.Errorf("row %d: %w", r.rows.i-1, ErrOrder)
	}
	r.began = true
	return nil
}

// advance loads the next wanted row group.
func (r *reader) advance() bool {
	if r.rows.n > 0 {
		if err := r.rows.end(); err != nil {
			return r.fail(err)
		}
		r.rows.n, r.rows.i = 0, 0
	}
	if len(r.wanted) == 0 {
		return false
	}
	// The last key's page is about to be used again.
	r.lastKey = append(r.lastKey[:0], r.change.Key...)
	r.prev.Key = r.lastKey
	r.at = r.wanted[0]
	if len(r.data) == 0 {
		if err := r.fill(); err != nil {
			return r.fail(err)
		}
	}
	r.wanted = r.wanted[1:]
	g := &r.groups[r.at]
	stored := r.data[:g.length]
	r.data = r.data[g.length:]
	if err := r.rows.load(g, stored); err != nil {
		return r.fail(err)
	}
	r.edges = g.first.Compare(r.opts.Range.From) < 0
	if !r.opts.Range.Open() {
		// Without a group behind this one its last row is not known.
		r.edges = r.edges || r.at+1 == len(r.groups) || r.groups[r.at+1].first.Compare(r.opts.Range.To) >= 0
	}
	return true
}

// fill fetches the next wanted row groups that lie side by side.
func (r *reader) fill() error {
	first := &r.groups[r.wanted[0]]
	length := first.length
	for i := 1; i < len(r.wanted) && r.wanted[i] == r.wanted[i-1]+1; i++ {
		g := &r.groups[r.wanted[i]]
		if length+g.length > r.fetch {
			break
		}
		length += g.length
	}
	data, err := r.get.GetRange(r.ctx, r.name, first.offset, length)
	if err != nil {
		return err
	}
	if int64(len(data)) != length {
		return fmt.Errorf("got %d bytes of %d: the object is cut off", len(data), length)
	}
	r.data = data
	r.fetch = min(max(2*length, 2*r.fetch), r.opts.FetchBytes)
	return nil
}

func (r *reader) fail(err error) bool {
	hint := ": run `afterimage verify`"
	if r.ctx.Err() != nil {
		hint = ""
	}
	r.err = fmt.Errorf("segment %s: row group %d: %w%s", r.meta.ID, r.at, err, hint)
	return false
}

// stop ends the iteration: nothing wanted is left.
func (r *reader) stop() {
	r.wanted, r.data = nil, nil
	r.rows.n, r.rows.i = 0, 0
}

// Change returns the current row.
func (r *reader) Change() *afterimage.Change { return &r.change }

// Err returns what ended the iteration early.
func (r *reader) Err() error { return r.err }

// Close gives the decoder back and drops the buffers.
func (r *reader) Close() error {
	if r.rows.dec != nil {
		putDecoder(r.rows.dec)
		r.rows = rows{}
	}
	r.stop()
	return nil
}
