package oplog

import (
	"bytes"
	"fmt"
	"io"
	"slices"

	"github.com/afterimagedb/afterimage"
)

// ScratchFile keeps pieces of open transactions. Close removes it.
type ScratchFile interface {
	io.ReaderAt
	io.WriterAt
	io.Closer
}

// piece is the applyOps array of one entry of an open transaction: in memory, or in the transaction's scratch file.
type piece struct {
	mem []byte
	off int64
	len int
}

// transaction is one that has begun and not ended.
type transaction struct {
	lsid     []byte // nil for a chain outside of a session
	number   int64
	first    uint64 // ts of its first entry
	last     uint64 // ts of its newest entry
	prepared uint64 // ts of its prepare entry, 0 if not prepared
	pieces   []piece
	file     ScratchFile
	fileLen  int64
}

// openSet holds the open transactions. They are few: a list is enough.
type openSet struct {
	list  []*transaction
	bytes int64 // in memory
}

func (s *openSet) reset() error {
	var first error
	for len(s.list) > 0 {
		if err := s.drop(s.list[0]); err != nil && first == nil {
			first = err
		}
	}
	return first
}

func (s *openSet) drop(t *transaction) error {
	for _, p := range t.pieces {
		s.bytes -= int64(len(p.mem))
	}
	s.list = slices.DeleteFunc(s.list, func(x *transaction) bool { return x == t })
	t.pieces = nil
	if t.file != nil {
		f := t.file
		t.file = nil
		if err := f.Close(); err != nil {
			return fmt.Errorf("remove the scratch file of a transaction: %w", err)
		}
	}
	return nil
}

// find returns the open transaction that e continues or ends, nil if there is none.
func (s *openSet) find(e *entry) *transaction {
	for _, t := range s.list {
		if e.lsid != nil && e.hasTxn {
			if t.number == e.txn && bytes.Equal(t.lsid, e.lsid) {
				return t
			}
		} else if t.lsid == nil && e.hasPrev && t.last == e.prevTS {
			return t
		}
	}
	return nil
}

// supersede drops what the session of e has left open under a smaller number: the server allows one at a time.
func (s *openSet) supersede(e *entry) error {
	if e.lsid == nil || !e.hasTxn {
		return nil
	}
	for _, t := range slices.Clone(s.list) {
		if t.number < e.txn && t.prepared == 0 && bytes.Equal(t.lsid, e.lsid) {
			if err := s.drop(t); err != nil {
				return err
			}
		}
	}
	return nil
}

// keep appends the applyOps array of e to its transaction, which it opens if need be.
func (d *Decoder) keep(e *entry, t *transaction, ops []byte, prepared bool) error {
	if t == nil {
		t = &transaction{first: e.ts}
		if e.lsid != nil && e.hasTxn {
			t.lsid, t.number = bytes.Clone(e.lsid), e.txn
		}
		d.open.list = append(d.open.list, t)
	}
	t.last = e.ts
	if prepared {
		t.prepared = e.ts
	}
	if d.opts.Scratch == nil || d.open.bytes+int64(len(ops)) <= d.opts.MemoryBytesMax {
		t.pieces = append(t.pieces, piece{mem: bytes.Clone(ops)})
		d.open.bytes += int64(len(ops))
		return nil
	}
	if t.file == nil {
		f, err := d.opts.Scratch()
		if err != nil {
			return fmt.Errorf("make a scratch file for a transaction: %w", err)
		}
		t.file = f
	}
	if _, err := t.file.WriteAt(ops, t.fileLen); err != nil {
		return fmt.Errorf("write a transaction to its scratch file: %w", err)
	}
	t.pieces = append(t.pieces, piece{off: t.fileLen, len: len(ops)})
	t.fileLen += int64(len(ops))
	d.stats.SpilledBytes += int64(len(ops))
	return nil
}

// emission is a transaction that is being given out, piece by piece.
type emission struct {
	t    *transaction
	next int // piece
	at   cursor
	end  uint64 // ts of the entry that ended it
	tail []byte // the last piece, when it came with the entry that ended it
}

// Pending reports whether the entry added last ended a transaction of which pieces remain: call Continue, after Clear if
// what has been decoded so far is enough for a batch. No entry may be added before.
func (d *Decoder) Pending() bool { return d.pending.t != nil }

// Continue decodes the next piece of the transaction that is being given out.
func (d *Decoder) Continue() error {
	p := &d.pending
	if p.t == nil {
		return nil
	}
	total := len(p.t.pieces)
	if p.tail != nil {
		total++
	}
	if p.next < total {
		ops, err := p.piece()
		if err != nil {
			return err
		}
		p.next++
		p.at.pos = afterimage.Position{Hi: p.end - 1, Lo: uint64(p.next)}
		if p.next == total {
			p.at.pos = afterimage.Position{Hi: p.end}
		}
		if err := p.at.applyOps(ops); err != nil {
			return err
		}
	}
	if p.next < total {
		d.advance(p.at.pos)
		return nil
	}
	t, end := p.t, p.end
	d.pending = emission{}
	d.advance(afterimage.Position{Hi: end})
	return d.open.drop(t)
}

func (p *emission) piece() ([]byte, error) {
	if p.next == len(p.t.pieces) {
		return p.tail, nil
	}
	pc := p.t.pieces[p.next]
	if pc.mem != nil {
		return pc.mem, nil
	}
	b := make([]byte, pc.len)
	if _, err := p.t.file.ReadAt(b, pc.off); err != nil {
		return nil, fmt.Errorf("read a transaction from its scratch file: %w", err)
	}
	return b, nil
}
