package snapshotter

import (
	"bufio"
	"cmp"
	"container/heap"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"

	"github.com/afterimagedb/afterimage"
	"github.com/afterimagedb/afterimage/fold"
)

const (
	// sortBytesMax is how much of an ordered table is sorted in memory; what is larger goes to a scratch file in sorted
	// runs of this size.
	sortBytesMax = 32 << 20
	// runBufferBytes is read at once of each run.
	runBufferBytes = 64 << 10
)

// bornRow is a row waiting for its turn. Key and body lie in an arena.
type bornRow struct {
	row fold.Row
	seq int64 // order of arrival, so that equal births keep the order of keys
}

func (b *bornRow) compare(c *bornRow) int {
	return cmp.Or(b.row.Born.Compare(c.row.Born), cmp.Compare(b.seq, c.seq))
}

// byBirth sorts rows by birth, in memory or by merging runs of a scratch file.
type byBirth struct {
	file *os.File
	ends []int64 // where each run ends in the file
	runs runHeap
	rows []bornRow // when there are no runs, all that is left
	cur  *fold.Row
	fail error
}

// sortByBirth reads src to its end and closes it.
func sortByBirth(src source, scratch string, bytesMax int) (_ source, err error) {
	out := &byBirth{}
	defer func() {
		err = errors.Join(err, src.Close())
		if err != nil {
			discard(out)
		}
	}()
	var hold arena
	var seq int64
	for src.next() {
		row := src.row()
		if hold.bytes+len(row.Key)+len(row.Body) > bytesMax && len(out.rows) > 0 {
			if err := out.spill(scratch); err != nil {
				return nil, err
			}
			hold = arena{}
		}
		b := bornRow{row: *row, seq: seq}
		b.row.Key, b.row.Body = hold.keep(row.Key), hold.keep(row.Body)
		out.rows = append(out.rows, b)
		seq++
	}
	if err := src.err(); err != nil {
		return nil, err
	}
	if out.file == nil {
		slices.SortFunc(out.rows, func(a, b bornRow) int { return a.compare(&b) })
		return out, nil
	}
	if err := out.spill(scratch); err != nil {
		return nil, err
	}
	return out, out.merge()
}

// arena holds copies of bytes in blocks that grow with what it holds. What was kept stays where it is.
type arena struct {
	block []byte
	bytes int // held in all blocks
}

// arenaBlockMax is the size of a block, unless one value is larger.
const arenaBlockMax = 1 << 20

func (a *arena) keep(b []byte) []byte {
	if cap(a.block)-len(a.block) < len(b) {
		a.block = make([]byte, 0, max(len(b), min(max(2*cap(a.block), 4<<10), arenaBlockMax)))
	}
	n := len(a.block)
	a.block = append(a.block, b...)
	a.bytes += len(b)
	return a.block[n:len(a.block):len(a.block)]
}

// spill writes the rows as a sorted run.
func (o *byBirth) spill(scratch string) error {
	if o.file == nil {
		f, err := os.CreateTemp(scratch, "afterimage-sort-*")
		if err != nil {
			return fmt.Errorf("scratch file for an ordered table: %w", err)
		}
		// Without a name it is gone with the process, whatever happens. Where that is not allowed, Close removes it.
		_ = os.Remove(f.Name())
		o.file = f
	}
	slices.SortFunc(o.rows, func(a, b bornRow) int { return a.compare(&b) })
	w := bufio.NewWriterSize(o.file, runBufferBytes)
	var head [rowHead]byte
	for i := range o.rows {
		o.rows[i].encode(&head)
		for _, b := range [][]byte{head[:], o.rows[i].row.Key, o.rows[i].row.Body} {
			if _, err := w.Write(b); err != nil {
				return fmt.Errorf("scratch file for an ordered table: %w", err)
			}
		}
	}
	if err := w.Flush(); err != nil {
		return fmt.Errorf("scratch file for an ordered table: %w", err)
	}
	end, err := o.file.Seek(0, io.SeekCurrent)
	if err != nil {
		return fmt.Errorf("scratch file for an ordered table: %w", err)
	}
	o.ends = append(o.ends, end)
	o.rows = o.rows[:0]
	return nil
}

// rowHead is the size of a row's fixed part in a run: table, born, time, lane, sequence, lengths of key and body.
const rowHead = 16 + 8 + 4 + 8 + 4 + 8 + 4 + 4

func (b *bornRow) encode(h *[rowHead]byte) {
	le, r := binary.LittleEndian, &b.row
	copy(h[:16], r.Table[:])
	le.PutUint64(h[16:], uint64(r.Born.Time))
	le.PutUint32(h[24:], r.Born.Order)
	le.PutUint64(h[28:], uint64(r.Time))
	le.PutUint32(h[36:], uint32(r.Lane))
	le.PutUint64(h[40:], uint64(b.seq))
	le.PutUint32(h[48:], uint32(len(r.Key)))
	le.PutUint32(h[52:], uint32(len(r.Body)))
}

// run reads one sorted run.
type run struct {
	r    *bufio.Reader
	head bornRow
	body []byte
	done bool
}

// next reads the run's next row.
func (r *run) next() error {
	var h [rowHead]byte
	if _, err := io.ReadFull(r.r, h[:]); err != nil {
		r.done = errors.Is(err, io.EOF)
		if r.done {
			return nil
		}
		return err
	}
	le, row := binary.LittleEndian, &r.head.row
	copy(row.Table[:], h[:16])
	row.Born = afterimage.Born{Time: afterimage.Time(le.Uint64(h[16:])), Order: le.Uint32(h[24:])}
	row.Time, row.Lane = afterimage.Time(le.Uint64(h[28:])), afterimage.LaneID(le.Uint32(h[36:]))
	r.head.seq = int64(le.Uint64(h[40:]))
	key, size := int(le.Uint32(h[48:])), int(le.Uint32(h[48:]))+int(le.Uint32(h[52:]))
	r.body = slices.Grow(r.body[:0], size)[:size]
	if _, err := io.ReadFull(r.r, r.body); err != nil {
		return err
	}
	row.Key, row.Body, row.Exists = r.body[:key:key], r.body[key:], true
	return nil
}

// merge begins to read the runs.
func (o *byBirth) merge() error {
	o.rows = nil
	start := int64(0)
	for _, end := range o.ends {
		r := &run{r: bufio.NewReaderSize(io.NewSectionReader(o.file, start, end-start), runBufferBytes)}
		if err := r.next(); err != nil {
			return fmt.Errorf("scratch file for an ordered table: %w", err)
		}
		o.runs = append(o.runs, r)
		start = end
	}
	heap.Init(&o.runs)
	return nil
}

func (o *byBirth) next() bool {
	if o.file == nil {
		if len(o.rows) == 0 {
			return false
		}
		o.cur, o.rows = &o.rows[0].row, o.rows[1:]
		return true
	}
	if o.fail != nil || len(o.runs) == 0 {
		return false
	}
	if o.cur != nil { // the head of the first run was handed out
		if err := o.runs[0].next(); err != nil {
			o.fail = fmt.Errorf("scratch file for an ordered table: %w", err)
			return false
		}
		if o.runs[0].done {
			heap.Pop(&o.runs)
		} else {
			heap.Fix(&o.runs, 0)
		}
	}
	if len(o.runs) == 0 {
		return false
	}
	o.cur = &o.runs[0].head.row
	return true
}

func (o *byBirth) row() *fold.Row { return o.cur }
func (o *byBirth) err() error     { return o.fail }

// Close removes the scratch file.
func (o *byBirth) Close() error {
	o.rows, o.runs = nil, nil
	if o.file == nil {
		return nil
	}
	err := o.file.Close()
	if rm := os.Remove(o.file.Name()); rm != nil && !errors.Is(rm, os.ErrNotExist) {
		err = errors.Join(err, rm)
	}
	if errors.Is(err, os.ErrClosed) {
		return nil
	}
	return err
}

// runHeap orders runs by their heads.
type runHeap []*run

func (h runHeap) Len() int           { return len(h) }
func (h runHeap) Less(i, j int) bool { return h[i].head.compare(&h[j].head) < 0 }
func (h runHeap) Swap(i, j int)      { h[i], h[j] = h[j], h[i] }

// Push is part of heap.Interface; runs are never added.
func (h *runHeap) Push(x any) {
	if r, ok := x.(*run); ok {
		*h = append(*h, r)
	}
}

// Pop is part of heap.Interface.
func (h *runHeap) Pop() any {
	old := *h
	last := old[len(old)-1]
	*h = old[:len(old)-1]
	return last
}
