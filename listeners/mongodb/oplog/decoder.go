package oplog

import (
	"errors"
	"fmt"

	"github.com/afterimagedb/afterimage"
	dialect "github.com/afterimagedb/afterimage/dialect/mongodb"
	"github.com/afterimagedb/afterimage/manifest"
)

// OrderPrepared is the order of the first change of a prepared transaction. Its commitTimestamp can equal the ts of some
// other entry, whose changes are counted from 0: so the two never share an order.
const OrderPrepared uint32 = 1 << 30

// Options of a decoder.
type Options struct {
	// MemoryBytesMax bounds what open transactions hold in memory, all together; 64 MB when 0.
	MemoryBytesMax int64
	// Scratch makes a file for what goes beyond that; nil keeps everything in memory.
	Scratch func() (ScratchFile, error)
}

// Stats counts what a decoder has seen since it was made.
type Stats struct {
	Entries      int64 // entries read
	Unknown      int64 // entries or operations kept raw
	SpilledBytes int64 // bytes of open transactions written to scratch files
}

// Decoder turns entries into changes. It is not safe for concurrent use.
//
// Changes and notes gather until [Decoder.Clear]; their memory is the entries' own and the decoder's, so neither may be
// used again before that.
type Decoder struct {
	opts  Options
	stats Stats

	skip afterimage.Position // changes up to here are published already
	to   afterimage.Position // everything up to here has been given out
	open openSet

	changes []afterimage.Change
	notes   []manifest.Note
	arena   []byte
	bytes   int
	pending emission

	entry, inner entry // reused
}

// NewDecoder returns a decoder at position zero.
func NewDecoder(o Options) *Decoder {
	if o.MemoryBytesMax == 0 {
		o.MemoryBytesMax = 64 << 20
	}
	return &Decoder{opts: o}
}

// Reset forgets everything and continues after the position to: entries from the RestartFrom that belongs to it on are
// expected next, and changes up to it are left out.
func (d *Decoder) Reset(to afterimage.Position) error {
	d.skip, d.to = to, to
	d.pending = emission{}
	d.Clear()
	return d.open.reset()
}

// Close removes the scratch files.
func (d *Decoder) Close() error { return d.open.reset() }

// Changes returns what has been decoded since the last Clear.
func (d *Decoder) Changes() []afterimage.Change { return d.changes }

// Notes returns what the committer must know about these changes.
func (d *Decoder) Notes() []manifest.Note { return d.notes }

// Bytes returns the size of the keys and bodies of Changes.
func (d *Decoder) Bytes() int { return d.bytes }

// To returns the position up to which Changes reach.
func (d *Decoder) To() afterimage.Position { return d.to }

// OpenTransactions returns how many transactions have begun and not ended.
func (d *Decoder) OpenTransactions() int { return len(d.open.list) }

// Stats returns the counts so far.
func (d *Decoder) Stats() Stats { return d.stats }

// Horizon returns the time up to which nothing more can appear after To. It is 0 after a Reset until To advances: only
// then has everything that is open been read again.
func (d *Decoder) Horizon() afterimage.Time {
	if d.to == d.skip {
		return 0
	}
	h := afterimage.Time(d.to.Hi)
	for _, t := range d.open.list {
		if t.prepared != 0 {
			h = min(h, afterimage.Time(t.prepared)-1)
		}
	}
	return h
}

// RestartFrom returns the position of the oldest entry that a decoder needs to continue after To. After a Reset it is
// not known until To advances.
func (d *Decoder) RestartFrom() afterimage.Position {
	from := d.to
	for _, t := range d.open.list {
		if p := (afterimage.Position{Hi: t.first}); p.Less(from) {
			from = p
		}
	}
	return from
}

// Clear lets go of the changes and notes.
func (d *Decoder) Clear() {
	d.changes, d.notes, d.arena, d.bytes = d.changes[:0], d.notes[:0], d.arena[:0], 0
}

// Add decodes the next entry, which must stay as it is until Clear. After it, [Decoder.Pending] tells whether the entry
// ended a transaction that is given out in parts. An error means that the log or a scratch file can't be read.
func (d *Decoder) Add(raw []byte) error {
	e := &d.entry
	if err := e.parse(raw); err != nil {
		return err
	}
	if !e.hasTS || e.ts == 0 {
		return malformed("entry without a ts")
	}
	d.stats.Entries++
	c := cursor{d: d, time: afterimage.Time(e.ts), pos: afterimage.Position{Hi: e.ts}, wall: e.wall}
	if len(e.op) == 1 && e.op[0] == 'c' {
		if err := d.command(e, &c); err != nil {
			return err
		}
	} else {
		c.operation(e)
	}
	if !d.Pending() {
		d.advance(afterimage.Position{Hi: e.ts})
	}
	return nil
}

// advance moves To; while entries before the restart position are read again it stays.
func (d *Decoder) advance(p afterimage.Position) {
	if d.to.Less(p) {
		d.to = p
	}
}

// cursor is where in (Time, Order) the next change goes.
type cursor struct {
	d     *Decoder
	time  afterimage.Time
	pos   afterimage.Position
	wall  int64
	order uint32
}

// add appends a change, unless it is published already. The order counts on either way.
func (c *cursor) add(op afterimage.Op, table afterimage.TableID, key, body []byte) {
	order := c.order
	c.order++
	d := c.d
	if !d.skip.Less(c.pos) {
		return
	}
	d.changes = append(d.changes, afterimage.Change{
		Time: c.time, Pos: c.pos, Wall: c.wall, Order: order, Op: op, Table: table, Key: key, Body: body,
	})
	d.bytes += len(key) + len(body)
}

// unknown keeps what is not understood, and says so.
func (c *cursor) unknown(e *entry, reason string) {
	d := c.d
	d.stats.Unknown++
	var table afterimage.TableID
	if e.hasUI {
		table = e.ui
	}
	if d.skip.Less(c.pos) {
		d.notes = append(d.notes, manifest.Note{Kind: manifest.NoteUncertified, Table: table, Time: c.time, Reason: reason})
	}
	c.add(afterimage.OpUnknown, table, c.missingKey(), e.raw)
}

// operation decodes an operation that is not a command.
func (c *cursor) operation(e *entry) {
	kind := byte(0)
	if len(e.op) == 1 {
		kind = e.op[0]
	}
	switch kind {
	case 'n':
		return
	case 'i', 'u', 'd':
		if !Kept(e.ns) {
			return
		}
		if !e.hasUI {
			c.unknown(e, fmt.Sprintf("operation %q on %s without a collection UUID", e.op, e.ns))
			return
		}
	default:
		if len(e.ns) > 0 && !Kept(e.ns) && len(e.op) > 0 {
			return
		}
		c.unknown(e, fmt.Sprintf("operation kind %q", e.op))
		return
	}
	ok := false
	switch kind {
	case 'i':
		ok = c.insert(e)
	case 'u':
		ok = c.update(e)
	case 'd':
		ok = c.delete(e)
	}
	if !ok {
		c.unknown(e, fmt.Sprintf("operation %q on %s in an unknown form", e.op, e.ns))
	}
}

// docKey makes the key of the document's _id.
func (c *cursor) docKey(doc []byte) ([]byte, error) {
	d := c.d
	mark := len(d.arena)
	arena, err := dialect.AppendDocKey(d.arena, doc)
	if err != nil {
		return nil, err
	}
	d.arena = arena
	return arena[mark:len(arena):len(arena)], nil
}

// missingKey makes the key of a row that has no _id.
func (c *cursor) missingKey() []byte {
	d := c.d
	mark := len(d.arena)
	d.arena = dialect.AppendMissingKey(d.arena, c.time, c.order)
	return d.arena[mark:len(d.arena):len(d.arena)]
}

func (c *cursor) insert(e *entry) bool {
	switch e.oKind {
	case typeDocument:
		return c.insertDoc(e.ui, e.o)
	case typeArray: // a vectored insert
		w := walk(e.o)
		var f element
		docs := 0
		for w.next(&f) {
			if f.kind != typeDocument {
				return false
			}
			docs++
		}
		if w.bad || docs == 0 {
			return false
		}
		for w = walk(e.o); w.next(&f); {
			if !c.insertDoc(e.ui, f.value) {
				return false
			}
		}
		return true
	}
	return false
}

func (c *cursor) insertDoc(table afterimage.TableID, doc []byte) bool {
	key, err := c.docKey(doc)
	switch {
	case errors.Is(err, dialect.ErrNoID):
		key = c.missingKey()
	case err != nil:
		return false
	}
	c.add(afterimage.OpInsert, table, key, doc)
	return true
}

func (c *cursor) update(e *entry) bool {
	if e.oKind != typeDocument || e.o2 == nil {
		return false
	}
	key, err := c.docKey(e.o2)
	if err != nil {
		return false
	}
	switch dialect.UpdateOp(e.o) {
	case afterimage.OpPatch:
		c.add(afterimage.OpPatch, e.ui, key, e.o)
	case afterimage.OpPut:
		d := c.d
		mark := len(d.arena)
		d.arena = dialect.ReplacementDocument(d.arena, e.o)
		c.add(afterimage.OpPut, e.ui, key, d.arena[mark:len(d.arena):len(d.arena)])
	default:
		return false
	}
	return true
}

func (c *cursor) delete(e *entry) bool {
	if e.oKind != typeDocument {
		return false
	}
	key, err := c.docKey(e.o)
	if err != nil {
		return false
	}
	c.add(afterimage.OpDelete, e.ui, key, e.o)
	return true
}
