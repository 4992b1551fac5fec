package mongodb

import (
	"bytes"

	"github.com/afterimagedb/afterimage"
)

// Event describes a change of the catalog: see [EventOf].
func (mongoDialect) Event(op afterimage.Op, body, before []byte) (kind, namespace, detail string, destructive bool) {
	return EventOf(op, body, before)
}

// ChangedFields names the top-level fields that differ between two documents: those of after in its order, then those
// that are gone. Either may be nil. Damaged documents are compared as far as they can be read.
func (mongoDialect) ChangedFields(before, after []byte) []string {
	var out []string
	old := fieldsOf(before)
	for _, f := range fieldsOf(after) {
		i := indexField(old, f.name)
		if i < 0 || !bytes.Equal(old[i].raw, f.raw) {
			out = append(out, f.name)
		}
		if i >= 0 {
			old[i].name = "" // seen; a field without a name is rare enough to be listed twice
		}
	}
	for _, f := range old {
		if f.name != "" {
			out = append(out, f.name)
		}
	}
	return out
}

type namedField struct {
	name string
	raw  []byte
}

func fieldsOf(doc []byte) []namedField {
	if checkDoc(doc) != nil {
		return nil
	}
	var out []namedField
	for pos := 4; ; {
		f, ok, err := nextField(doc, pos)
		if !ok || err != nil {
			return out
		}
		out = append(out, namedField{string(f.name(doc)), f.raw(doc)})
		pos = f.end
	}
}

func indexField(fields []namedField, name string) int {
	for i := range fields {
		if fields[i].name == name {
			return i
		}
	}
	return -1
}
