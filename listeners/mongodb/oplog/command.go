package oplog

import (
	"bytes"
	"fmt"

	"github.com/afterimagedb/afterimage"
	dialect "github.com/afterimagedb/afterimage/dialect/mongodb"
)

// depthMax is how deep applyOps may lie in applyOps; the server allows 10.
const depthMax = 32

// command decodes an entry of kind c.
func (d *Decoder) command(e *entry, c *cursor) error {
	cmd, ok := first(e.o)
	if !ok || e.oKind != typeDocument {
		c.unknown(e, "command in an unknown form")
		return nil
	}
	switch string(cmd.name) {
	case "applyOps":
		return d.applyOpsEntry(e, c)
	case "commitTransaction":
		return d.commit(e, c)
	case "abortTransaction":
		if t := d.open.find(e); t != nil {
			return d.open.drop(t)
		}
		return nil
	}
	c.ddl(e, &cmd)
	return nil
}

// applyOpsEntry decodes an applyOps: a user's own, a whole transaction, or a piece of one.
func (d *Decoder) applyOpsEntry(e *entry, c *cursor) error {
	var ops element
	var partial, prepare, last bool
	w := walk(e.o)
	var f element
	for w.next(&f) {
		switch string(f.name) {
		case "applyOps":
			ops = f
		case "partialTxn":
			partial = f.truth()
		case "prepare":
			prepare = f.truth()
		case "count": // of the whole transaction, in the last of several entries
			last = true
		}
	}
	if w.bad || ops.kind != typeArray {
		c.unknown(e, "applyOps in an unknown form")
		return nil
	}
	if err := d.open.supersede(e); err != nil {
		return err
	}
	t := d.open.find(e)
	if t != nil && !e.hasPrev { // begun anew under the same number
		if err := d.open.drop(t); err != nil {
			return err
		}
		t = nil
	}
	switch {
	case t == nil && e.hasPrev && (partial || prepare):
		return nil // its head is missing: its end tells
	case t == nil && e.hasPrev && last:
		c.unknown(e, "the end of a transaction that began before the lane's start")
		return nil
	case partial || prepare:
		return d.keep(e, t, ops.value, prepare)
	case t != nil:
		d.pending = emission{t: t, at: *c, end: e.ts, tail: ops.value}
		return d.Continue()
	}
	return c.applyOps(ops.value)
}

// commit ends a prepared transaction: its changes happened at the commitTimestamp.
func (d *Decoder) commit(e *entry, c *cursor) error {
	ct, ok := lookup(e.o, "commitTimestamp")
	if !ok || ct.kind != typeTimestamp {
		c.unknown(e, "commitTransaction without a commitTimestamp")
		return nil
	}
	c.time = afterimage.Time(ct.timestamp())
	c.order = OrderPrepared
	t := d.open.find(e)
	if t == nil {
		// A restart re-reads from where the oldest open transaction began, so this one ended before, or began before
		// the lane did.
		c.unknown(e, "commitTransaction of a transaction that began before the lane's start")
		return nil
	}
	d.pending = emission{t: t, at: *c, end: e.ts}
	return d.Continue()
}

// applyOps decodes the operations of an applyOps array.
func (c *cursor) applyOps(ops []byte) error { return c.nested(ops, 0) }

func (c *cursor) nested(ops []byte, depth int) error {
	w := walk(ops)
	var f element
	var e entry
	for w.next(&f) {
		if f.kind != typeDocument {
			return malformed("applyOps holds something that is no operation")
		}
		if err := e.parse(f.value); err != nil {
			return err
		}
		if len(e.op) != 1 || e.op[0] != 'c' {
			c.operation(&e)
			continue
		}
		cmd, ok := first(e.o)
		switch {
		case !ok || e.oKind != typeDocument || depth >= depthMax:
			c.unknown(&e, "command within an applyOps in an unknown form")
		case string(cmd.name) == "applyOps" && cmd.kind == typeArray:
			if err := c.nested(cmd.value, depth+1); err != nil {
				return err
			}
		default:
			c.ddl(&e, &cmd)
		}
	}
	if w.bad {
		return malformed("applyOps")
	}
	return nil
}

// ddl decodes a command that changes the catalog. The value of a command is the collection's name, or its namespace.
func (c *cursor) ddl(e *entry, cmd *element) {
	name := string(cmd.name)
	switch name {
	case "startIndexBuild", "abortIndexBuild", "dropDatabase":
		return // the commit of the build, and the drops that come before dropDatabase, say what changes
	case "create", "drop", "createIndexes", "commitIndexBuild", "dropIndexes", "deleteIndexes", "collMod":
	case "renameCollection":
		c.rename(e, cmd)
		return
	default:
		c.unknown(e, fmt.Sprintf("command %q", name))
		return
	}
	db := databaseOf(e.ns)
	coll := cmd.text()
	if db == nil || coll == nil {
		c.unknown(e, fmt.Sprintf("command %q without a collection", name))
		return
	}
	ns := string(db) + "." + string(coll)
	if !Kept(ns) {
		return
	}
	if !e.hasUI {
		c.unknown(e, fmt.Sprintf("command %q on %s without a collection UUID", name, ns))
		return
	}
	switch name {
	case "create":
		row, err := dialect.CatalogCreate(ns, e.o)
		if err != nil {
			c.unknown(e, fmt.Sprintf("create %s: %v", ns, err))
			return
		}
		c.catalog(afterimage.OpInsert, e.ui, row)
	case "drop":
		c.catalog(afterimage.OpDelete, e.ui, dialect.CatalogDelete(ns, e.o))
	default:
		c.catalog(afterimage.OpPatch, e.ui, dialect.CatalogPatch(ns, e.o, e.o2))
	}
}

func (c *cursor) rename(e *entry, cmd *element) {
	from := cmd.text()
	to, _ := lookup(e.o, "to")
	if from == nil || to.text() == nil {
		c.unknown(e, "renameCollection without two namespaces")
		return
	}
	if !Kept(from) && !Kept(to.text()) {
		return
	}
	if !e.hasUI {
		c.unknown(e, fmt.Sprintf("renameCollection of %s without a collection UUID", from))
		return
	}
	if target, ok := lookup(e.o, "dropTarget"); ok {
		id, isID := target.uuid()
		switch {
		case isID:
			c.catalog(afterimage.OpDelete, id, dialect.CatalogDelete(string(to.text()), e.o))
		case target.truth():
			c.unknown(e, fmt.Sprintf("renameCollection over %s without its UUID", to.text()))
			return
		}
	}
	c.catalog(afterimage.OpPatch, e.ui, dialect.CatalogPatch(string(from), e.o, e.o2))
}

// catalog adds a change of the catalog row of a table.
func (c *cursor) catalog(op afterimage.Op, table afterimage.TableID, row []byte) {
	d := c.d
	mark := len(d.arena)
	d.arena = append(d.arena, table[:]...)
	c.add(op, afterimage.CatalogTable, d.arena[mark:len(d.arena):len(d.arena)], row)
}

// databaseOf returns the database of a namespace.
func databaseOf(ns []byte) []byte {
	if i := bytes.IndexByte(ns, '.'); i > 0 {
		return ns[:i]
	}
	return nil
}
