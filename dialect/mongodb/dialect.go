package mongodb

import (
	"encoding/hex"
	"encoding/json"
	"fmt"
	"strings"

	"go.mongodb.org/mongo-driver/bson"

	"github.com/afterimagedb/afterimage"
	"github.com/afterimagedb/afterimage/dialect"
)

// Name is the source kind of MongoDB in repository.json.
const Name = "mongodb"

type mongoDialect struct{}

var _ dialect.Dialect = mongoDialect{}

// New returns the MongoDB dialect.
func New() dialect.Dialect { return mongoDialect{} }

func (mongoDialect) Name() string { return Name }

func (mongoDialect) NewFolder() dialect.Folder { return new(folder) }

func (mongoDialect) Table(id afterimage.TableID, row []byte) (dialect.Table, error) {
	r, err := ParseCatalog(row)
	if err != nil {
		return dialect.Table{}, fmt.Errorf("table %s: %w", id, err)
	}
	// convertToCapped makes a clustered collection capped as well: its natural order stays that of _id.
	return dialect.Table{ID: id, Namespace: r.Namespace, Ordered: r.Capped && !r.Clustered, Row: row}, nil
}

// ParseKey reads extended JSON, or a bare ObjectId, UUID, number or string. What looks like another type is also tried
// as a string.
func (mongoDialect) ParseKey(text string) ([][]byte, error) {
	var keys [][]byte
	add := func(typ byte, value []byte) {
		if key, err := AppendValueKey(nil, typ, value); err == nil {
			keys = append(keys, key)
		}
	}
	text = strings.TrimSpace(text)
	if raw, err := hex.DecodeString(text); err == nil && len(raw) == 12 {
		add(typeObjectID, raw)
	}
	var id afterimage.TableID
	if len(text) == 36 && id.UnmarshalText([]byte(text)) == nil {
		add(typeBinary, append([]byte{16, 0, 0, 0, 4}, id[:]...))
	}
	quoted := strings.HasPrefix(text, `"`)
	if value, ok := parseExtended(text); ok {
		add(value.typ, value.value)
	} else if quoted || strings.HasPrefix(text, "{") || strings.HasPrefix(text, "[") {
		return nil, afterimage.Usagef("key %s: not valid extended JSON", text)
	}
	if !quoted && !strings.HasPrefix(text, "{") && !strings.HasPrefix(text, "[") {
		doc := endDoc(appendString(beginDoc(nil), "_id", text), 0)
		if key, err := AppendDocKey(nil, doc); err == nil {
			keys = append(keys, key)
		}
	}
	if len(keys) == 0 {
		return nil, afterimage.Usagef("key %q: want extended JSON of _id, an ObjectId, a UUID, a number or a string", text)
	}
	return keys, nil
}

type typedValue struct {
	typ   byte
	value []byte
}

// parseExtended reads one value of extended JSON.
func parseExtended(text string) (typedValue, bool) {
	if !json.Valid([]byte(text)) {
		return typedValue{}, false
	}
	var doc bson.Raw
	if err := bson.UnmarshalExtJSON([]byte(`{"_id":`+text+`}`), false, &doc); err != nil {
		return typedValue{}, false
	}
	f, ok, err := lookup(doc, "_id")
	if err != nil || !ok {
		return typedValue{}, false
	}
	return typedValue{f.typ(doc), f.val(doc)}, true
}

// FormatKey returns canonical extended JSON of a document's _id, "" if it has none or is no document: patches do not
// name their row.
func (mongoDialect) FormatKey(body []byte) string {
	f, ok, err := lookup(body, "_id")
	if err != nil || !ok {
		return ""
	}
	doc := endDoc(append(beginDoc(nil), f.raw(body)...), 0)
	out, err := bson.MarshalExtJSON(bson.Raw(doc), true, false)
	if err != nil {
		return ""
	}
	return strings.TrimSuffix(strings.TrimPrefix(string(out), `{"_id":`), "}")
}
