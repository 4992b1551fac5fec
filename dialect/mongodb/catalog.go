package mongodb

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math"
	"strconv"
	"strings"

	"github.com/afterimagedb/afterimage"
)

// A catalog row is the document {ns, type, options, indexes} of one collection: options as listCollections shows them,
// indexes as the server keeps them, both as raw bytes in the server's order. See docs/format/mongodb.md.

const (
	rowNamespace = "ns"
	rowType      = "type"
	rowOptions   = "options"
	rowIndexes   = "indexes"

	bucketsPrefix = "system.buckets."
)

var emptyDoc = []byte{5, 0, 0, 0, 0}

// CatalogRow is a catalog row, taken apart. Its slices lie in the row.
type CatalogRow struct {
	Namespace         string   // "db.collection"
	DB                string   //
	Name              string   // what follows the first dot of Namespace
	Type              string   // "collection"; views are documents of system.views
	Options           []byte   // as in listCollections: without uuid and idIndex
	Indexes           [][]byte // index specs, finished builds only; empty for a clustered collection without others
	Capped            bool     // rows are returned in order of birth
	TimeseriesBuckets bool     // system.buckets.X of the time-series X
	Clustered         bool     // the collection is its own index on _id
}

// ParseCatalog reads a catalog row.
func ParseCatalog(row []byte) (CatalogRow, error) {
	var r CatalogRow
	err := eachField(row, func(name string, f field) error {
		switch {
		case name == rowNamespace && f.typ(row) == typeString:
			r.Namespace = string(stringOf(f.val(row)))
		case name == rowType && f.typ(row) == typeString:
			r.Type = string(stringOf(f.val(row)))
		case name == rowOptions && f.typ(row) == typeObject:
			r.Options = f.val(row)
		case name == rowIndexes && f.typ(row) == typeArray:
			return eachDocument(f.val(row), func(spec []byte) error {
				r.Indexes = append(r.Indexes, spec)
				return nil
			})
		}
		return nil
	})
	if err != nil {
		return CatalogRow{}, fmt.Errorf("catalog row: %w", err)
	}
	var dot bool
	if r.DB, r.Name, dot = strings.Cut(r.Namespace, "."); !dot || r.Options == nil {
		return CatalogRow{}, fmt.Errorf("catalog row: %w: has no namespace or no options", errMalformed)
	}
	err = eachField(r.Options, func(name string, f field) error {
		switch name {
		case "capped":
			r.Capped = truth(f.typ(r.Options), f.val(r.Options))
		case "clusteredIndex":
			r.Clustered = f.typ(r.Options) == typeObject || truth(f.typ(r.Options), f.val(r.Options))
		case "timeseries":
			r.TimeseriesBuckets = strings.HasPrefix(r.Name, bucketsPrefix)
		}
		return nil
	})
	if err != nil {
		return CatalogRow{}, fmt.Errorf("catalog row of %s: %w", r.Namespace, err)
	}
	return r, nil
}

// Append appends the row that r stands for.
func (r *CatalogRow) Append(dst []byte) []byte {
	start := len(dst)
	dst = appendString(beginDoc(dst), rowNamespace, r.Namespace)
	dst = appendString(dst, rowType, r.Type)
	dst = appendField(dst, typeObject, []byte(rowOptions), r.Options)
	dst = appendField(dst, typeArray, []byte(rowIndexes), nil)
	array := len(dst)
	dst = beginDoc(dst)
	for i, spec := range r.Indexes {
		dst = appendField(dst, typeObject, strconv.AppendInt(nil, int64(i), 10), spec)
	}
	return endDoc(endDoc(dst, array), start)
}

// ListedIndexes returns the index specs as listIndexes shows them: with the clustered index, which is no real one, and
// with expireAfterSeconds as the server uses it.
func (r *CatalogRow) ListedIndexes() [][]byte {
	var specs [][]byte
	// The clustering of time-series buckets (a boolean) is not listed.
	if f, ok, err := lookup(r.Options, "clusteredIndex"); err == nil && ok && f.typ(r.Options) == typeObject {
		specs = append(specs, setField(f.val(r.Options), "clustered", typeBool, []byte{1}))
	}
	for _, spec := range r.Indexes {
		specs = append(specs, listedTTL(spec))
	}
	return specs
}

// listedTTL returns the spec with expireAfterSeconds as servers from 5.0 on list it: a 32-bit integer, whatever type
// the catalog holds; what is no number never expires.
func listedTTL(spec []byte) []byte {
	f, ok, err := lookup(spec, ttlField)
	if err != nil || !ok || f.typ(spec) == typeInt32 {
		return spec
	}
	seconds := int64(math.MaxInt32)
	if f.typ(spec) != typeDouble || !math.IsNaN(math.Float64frombits(binary.LittleEndian.Uint64(f.val(spec)))) {
		seconds = max(0, min(seconds, wholeNumber(f.typ(spec), f.val(spec))))
	}
	return setField(spec, ttlField, typeInt32, int64Bytes(seconds)[:4])
}

// CatalogCreate makes the catalog row of a collection from the oplog's create command. Of ns only the database counts,
// so "db.$cmd" will do.
func CatalogCreate(ns string, o []byte) ([]byte, error) {
	r := CatalogRow{Type: "collection"}
	options := beginDoc(nil)
	withID := true
	var idIndex []byte
	err := eachField(o, func(name string, f field) error {
		typ, value := f.typ(o), f.val(o)
		switch name {
		case "create":
			if typ != typeString {
				return fmt.Errorf("name has type 0x%02x", typ)
			}
			r.Namespace = database(ns) + "." + string(stringOf(value))
			return nil
		case "idIndex":
			if typ == typeObject {
				idIndex = value
			}
			return nil
		case "uuid":
			return nil
		case "capped", "temp":
			if !truth(typ, value) {
				return nil
			}
		case "clusteredIndex":
			withID = typ == typeBool && value[0] == 0
		case "autoIndexId":
			withID = truth(typ, value)
		}
		options = append(options, f.raw(o)...)
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("create in %s: %w", ns, err)
	}
	if r.Namespace == "" {
		return nil, fmt.Errorf("create in %s: %w: names no collection", ns, errMalformed)
	}
	r.Options = endDoc(options, 0)
	if withID && idIndex == nil {
		idIndex = oldIDIndex()
	}
	if withID {
		r.Indexes = [][]byte{idIndex}
	}
	return r.Append(nil), nil
}

// oldIDIndex is the index on _id that the server makes when a create (of a user's applyOps) does not say: the one of
// servers that logged no idIndex, without the collection's collation.
func oldIDIndex() []byte {
	key := endDoc(appendField(beginDoc(nil), typeInt32, []byte("_id"), []byte{1, 0, 0, 0}), 0)
	spec := appendField(beginDoc(nil), typeInt32, []byte("v"), []byte{1, 0, 0, 0})
	spec = appendField(spec, typeObject, []byte("key"), key)
	return endDoc(appendString(spec, "name", "_id_"), 0)
}

// CatalogListing makes a catalog row from a document of $listCatalog. What has no UUID (a view, the view over a
// time-series) is no table: row is nil then. Index builds that are not finished are left out.
func CatalogListing(doc []byte) (id afterimage.TableID, row []byte, err error) {
	r := CatalogRow{Type: "collection"}
	var md []byte
	err = eachField(doc, func(name string, f field) error {
		switch {
		case name == "db" && f.typ(doc) == typeString:
			r.DB = string(stringOf(f.val(doc)))
		case name == "name" && f.typ(doc) == typeString:
			r.Name = string(stringOf(f.val(doc)))
		case name == "md" && f.typ(doc) == typeObject:
			md = f.val(doc)
		}
		return nil
	})
	if err != nil || md == nil {
		return id, nil, wrap("listing of the catalog", err)
	}
	r.Namespace = r.DB + "." + r.Name
	err = eachField(md, func(name string, f field) error {
		switch {
		case name == "options" && f.typ(md) == typeObject:
			r.Options = f.val(md)
		case name == "indexes" && f.typ(md) == typeArray:
			return eachDocument(f.val(md), func(entry []byte) error {
				spec, ready, err := listedIndex(entry)
				if err == nil && ready && spec != nil {
					r.Indexes = append(r.Indexes, spec)
				}
				return err
			})
		}
		return nil
	})
	if err != nil {
		return id, nil, fmt.Errorf("listing of %s: %w", r.Namespace, err)
	}
	if id, err = uuidOf(r.Options, "uuid"); err != nil {
		return id, nil, fmt.Errorf("listing of %s: %w", r.Namespace, err)
	}
	r.Options = removeField(r.Options, "uuid")
	return id, r.Append(nil), nil
}

// listedIndex reads an entry {spec, ready, ...} of a listing's indexes.
func listedIndex(entry []byte) (spec []byte, ready bool, err error) {
	err = eachField(entry, func(name string, f field) error {
		switch {
		case name == "spec" && f.typ(entry) == typeObject:
			spec = f.val(entry)
		case name == "ready":
			ready = truth(f.typ(entry), f.val(entry))
		}
		return nil
	})
	return spec, ready, err
}

// CatalogListCollections makes a catalog row from one document of listCollections and the documents of listIndexes of
// that collection (with includeBuildUUIDs, so that unfinished builds can be told and left out). row is nil for what has
// no UUID, as in [CatalogListing].
func CatalogListCollections(db string, info []byte, indexes [][]byte) (id afterimage.TableID, row []byte, err error) {
	r := CatalogRow{Type: "collection", Options: emptyDoc}
	var inner []byte
	err = eachField(info, func(name string, f field) error {
		switch {
		case name == "name" && f.typ(info) == typeString:
			r.Namespace = db + "." + string(stringOf(f.val(info)))
		case name == "type" && f.typ(info) == typeString:
			r.Type = string(stringOf(f.val(info)))
		case name == "options" && f.typ(info) == typeObject:
			r.Options = f.val(info)
		case name == "info" && f.typ(info) == typeObject:
			inner = f.val(info)
		}
		return nil
	})
	if err != nil || r.Type != "collection" {
		return id, nil, wrap("listing of collections of "+db, err)
	}
	if id, err = uuidOf(inner, "uuid"); err != nil {
		return id, nil, fmt.Errorf("listing of %s: %w", r.Namespace, err)
	}
	r.Options = removeField(r.Options, "uuid")
	for _, spec := range indexes {
		_, building, err := lookup(spec, "buildUUID")
		if err != nil {
			return id, nil, fmt.Errorf("indexes of %s: %w", r.Namespace, err)
		}
		if _, clustered, _ := lookup(spec, "clustered"); !building && !clustered {
			r.Indexes = append(r.Indexes, spec)
		}
	}
	return id, r.Append(nil), nil
}

// CatalogPatch makes the body of the change that a DDL command logged as (o, o2) makes to its collection's row:
// {ns, o, o2}, with ns as logged. o2 may be nil.
func CatalogPatch(ns string, o, o2 []byte) []byte {
	dst := appendField(appendString(beginDoc(nil), "ns", ns), typeObject, []byte("o"), o)
	if o2 != nil {
		dst = appendField(dst, typeObject, []byte("o2"), o2)
	}
	return endDoc(dst, 0)
}

// CatalogDelete makes the body of the removal of a row by a drop logged as o: {ns, o}.
func CatalogDelete(ns string, o []byte) []byte { return CatalogPatch(ns, o, nil) }

func wrap(what string, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%s: %w", what, err)
}

// database returns what precedes the first dot of a namespace.
func database(ns string) string {
	db, _, _ := strings.Cut(ns, ".")
	return db
}

func uuidOf(doc []byte, name string) (id afterimage.TableID, err error) {
	f, ok, err := lookup(doc, name)
	if err != nil {
		return id, err
	}
	if !ok || f.typ(doc) != typeBinary || len(f.val(doc)) != 5+len(id) {
		return id, fmt.Errorf("%w: has no %s", errMalformed, name)
	}
	copy(id[:], f.val(doc)[5:])
	return id, nil
}

// truth is the server's notion of a true option: true, or a number other than 0.
func truth(typ byte, value []byte) bool {
	switch typ {
	case typeBool:
		return value[0] != 0
	case typeInt32, typeInt64:
		return len(bytes.Trim(value, "\x00")) > 0
	case typeDouble:
		return smallInt(typ, value) != 0
	}
	return false
}

// eachField calls do for each element of doc.
func eachField(doc []byte, do func(name string, f field) error) error {
	if err := checkDoc(doc); err != nil {
		return err
	}
	for pos := 4; ; {
		f, ok, err := nextField(doc, pos)
		if err != nil || !ok {
			return err
		}
		if err := do(string(f.name(doc)), f); err != nil {
			return err
		}
		pos = f.end
	}
}

// eachDocument calls do for each element of an array that is a document.
func eachDocument(array []byte, do func(doc []byte) error) error {
	return eachField(array, func(_ string, f field) error {
		if f.typ(array) != typeObject {
			return fmt.Errorf("%w: array holds a value of type 0x%02x, want documents", errMalformed, f.typ(array))
		}
		return do(f.val(array))
	})
}

// setField returns a copy of doc with the field replaced in its place, or added at the end.
func setField(doc []byte, name string, typ byte, value []byte) []byte {
	f, ok, err := lookup(doc, name)
	if err != nil {
		return doc
	}
	out := make([]byte, 0, len(doc)+len(name)+len(value)+2)
	if !ok {
		out = append(out, doc[:len(doc)-1]...)
		return endDoc(appendField(out, typ, []byte(name), value), 0)
	}
	out = appendField(append(out, doc[:f.start]...), typ, []byte(name), value)
	return endDoc(append(out, doc[f.end:len(doc)-1]...), 0)
}

// removeField returns doc without the field; a copy if it had it.
func removeField(doc []byte, name string) []byte {
	f, ok, err := lookup(doc, name)
	if !ok || err != nil {
		return doc
	}
	out := append(make([]byte, 0, len(doc)), doc[:f.start]...)
	return endDoc(append(out, doc[f.end:len(doc)-1]...), 0)
}
