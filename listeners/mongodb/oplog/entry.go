package oplog

import (
	"encoding/binary"

	"github.com/afterimagedb/afterimage"
)

// entry holds the fields of an entry, or of an operation in an applyOps array, that matter here.
type entry struct {
	raw     []byte
	op      []byte
	ns      []byte
	ui      afterimage.TableID
	hasUI   bool
	o       []byte
	oKind   byte
	o2      []byte
	ts      uint64
	hasTS   bool
	wall    int64
	lsid    []byte
	txn     int64
	hasTxn  bool
	prevTS  uint64
	hasPrev bool // prevOpTime names an earlier entry
}

// parse fills in e from raw. An operation within an applyOps has no ts: only the caller knows whether one is needed.
func (e *entry) parse(raw []byte) error {
	*e = entry{raw: raw}
	w := walk(raw)
	var f element
	for w.next(&f) {
		switch len(f.name) {
		case 1:
			if f.name[0] == 'o' {
				e.o, e.oKind = f.value, f.kind
			}
		case 2:
			e.short(&f)
		case 4:
			switch {
			case string(f.name) == "wall" && f.kind == typeDate:
				e.wall = int64(binary.LittleEndian.Uint64(f.value))
			case string(f.name) == "lsid" && f.kind == typeDocument:
				e.lsid = f.value
			}
		default:
			switch {
			case string(f.name) == "txnNumber":
				e.txn, e.hasTxn = f.number()
			case string(f.name) == "prevOpTime" && f.kind == typeDocument:
				if ts, ok := lookup(f.value, "ts"); ok && ts.kind == typeTimestamp {
					e.prevTS = ts.timestamp()
					e.hasPrev = e.prevTS != 0
				}
			}
		}
	}
	if w.bad {
		return malformed("entry")
	}
	return nil
}

// short takes a field with a name of two letters.
func (e *entry) short(f *element) {
	switch {
	case f.name[0] == 'o' && f.name[1] == 'p':
		e.op = f.text()
	case f.name[0] == 'n' && f.name[1] == 's':
		e.ns = f.text()
	case f.name[0] == 'u' && f.name[1] == 'i':
		e.ui, e.hasUI = f.uuid()
	case f.name[0] == 'o' && f.name[1] == '2':
		if f.kind == typeDocument {
			e.o2 = f.value
		}
	case f.name[0] == 't' && f.name[1] == 's':
		if f.kind == typeTimestamp {
			e.ts, e.hasTS = f.timestamp(), true
		}
	}
}
