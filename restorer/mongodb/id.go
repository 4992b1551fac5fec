package mongodb

import (
	"encoding/binary"
	"encoding/hex"
	"strings"

	"go.mongodb.org/mongo-driver/bson"

	"github.com/afterimagedb/afterimage"
)

// ID is what names one document: the values of _id that a text may mean, in the order to try.
type ID []bson.RawValue

// ParseID reads an _id as a person types it: extended JSON, or a bare ObjectId, UUID, number or string. It tries the same
// meanings in the same order as the dialect's ParseKey.
func ParseID(text string) (ID, error) {
	text = strings.TrimSpace(text)
	var id ID
	add := func(typ byte, value []byte) {
		doc := newDocument().value("_id", typ, value).end()
		id = append(id, doc.Lookup("_id"))
	}
	if raw, err := hex.DecodeString(text); err == nil && len(raw) == 12 {
		add(0x07, raw)
	}
	var uuid afterimage.TableID
	if len(text) == 36 && uuid.UnmarshalText([]byte(text)) == nil {
		add(0x05, append([]byte{16, 0, 0, 0, 4}, uuid[:]...))
	}
	var doc bson.Raw
	written := strings.HasPrefix(text, `"`) || strings.HasPrefix(text, "{") || strings.HasPrefix(text, "[")
	if err := bson.UnmarshalExtJSON([]byte(`{"_id":`+text+`}`), false, &doc); err == nil {
		if e, ok := lookup(doc, "_id"); ok && e.end == len(doc)-1 {
			id = append(id, doc.Lookup("_id"))
		}
	} else if written {
		return nil, afterimage.Usagef("id %s: not valid extended JSON: %v", text, err)
	}
	if !written && text != "" {
		add(typeString, append(append(binary.LittleEndian.AppendUint32(nil, uint32(len(text)+1)), text...), 0))
	}
	if len(id) == 0 {
		return nil, afterimage.Usagef("id %q: want extended JSON of _id, an ObjectId, a UUID, a number or a string", text)
	}
	return id, nil
}

// ParseQuery reads a query in extended JSON that names documents by _id: {"_id": 1} or {"_id": {"$in": [1, 2]}}.
func ParseQuery(text string) ([]ID, error) {
	var doc bson.Raw
	if err := bson.UnmarshalExtJSON([]byte(text), false, &doc); err != nil {
		return nil, afterimage.Usagef("query %s: not valid extended JSON: %v", text, err)
	}
	e, ok := lookup(doc, "_id")
	if !ok || e.at != 4 || e.end != len(doc)-1 {
		return nil, afterimage.Usagef(`query %s: want the documents named by _id: {"_id": 1} or {"_id": {"$in": [1, 2]}}`, text)
	}
	value := doc.Lookup("_id")
	sub, isDoc := value.DocumentOK()
	if !isDoc {
		return []ID{{value}}, nil
	}
	in, ok := lookup(sub, "$in")
	if !ok {
		op := ""
		_ = walk(sub, func(e element) bool { op = string(e.name); return false })
		if strings.HasPrefix(op, "$") {
			return nil, afterimage.Usagef("query %s: only $in is understood, not %s", text, op)
		}
		return []ID{{value}}, nil
	}
	array, ok := sub.Lookup("$in").ArrayOK()
	if !ok || in.end != len(sub)-1 {
		return nil, afterimage.Usagef("query %s: $in wants an array and nothing beside it", text)
	}
	values, err := array.Values()
	if err != nil {
		return nil, afterimage.Usagef("query %s: %v", text, err)
	}
	ids := make([]ID, 0, len(values))
	for _, v := range values {
		ids = append(ids, ID{v})
	}
	return ids, nil
}
