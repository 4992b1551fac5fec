package mongodb

import (
	"fmt"
	"slices"
	"strings"

	"go.mongodb.org/mongo-driver/bson"

	"github.com/afterimagedb/afterimage/dialect"
	"github.com/afterimagedb/afterimage/dialect/mongodb"
)

// The kinds of what is restored, as reports name them.
const (
	kindCollection = "collection"
	kindCapped     = "capped"
	kindTimeseries = "timeseries"
	kindView       = "view"
	kindAuth       = "auth"
)

const bucketPrefix = "system.buckets."

// collection is a table at T as the catalog describes it.
type collection struct {
	table   dialect.Table
	kind    string
	logical string   // namespace as users name it: without system.buckets.
	options bson.Raw // as at T
	idIndex bson.Raw // nil when it is the usual one
	indexes [][]byte // specifications, without the one on _id
}

func readCollection(t dialect.Table) (collection, error) {
	row, err := mongodb.ParseCatalog(t.Row)
	if err != nil {
		return collection{}, fmt.Errorf("%s: %w", t.Namespace, err)
	}
	c := collection{table: t, kind: kindCollection, logical: row.Namespace, options: row.Options}
	switch {
	case row.TimeseriesBuckets:
		c.kind, c.logical = kindTimeseries, row.DB+"."+strings.TrimPrefix(row.Name, bucketPrefix)
	case row.Capped:
		c.kind = kindCapped
	}
	for _, spec := range row.Indexes {
		key, ok := lookup(spec, "key")
		if !ok || !isIDKey(spec[key.value:key.end]) {
			c.indexes = append(c.indexes, spec)
		} else if !usualIDIndex(spec) {
			c.idIndex = spec
		}
	}
	return c, nil
}

// isIDKey reports whether an index is the one on _id, which every collection gets when it is created.
func isIDKey(key []byte) bool {
	n, id := 0, false
	_ = walk(key, func(e element) bool {
		n++
		id = string(e.name) == "_id"
		return true
	})
	return n == 1 && id && key[4] != typeString // {_id: "hashed"} is an index like any other
}

// usualIDIndex reports whether create makes that index by itself: version 2, nothing but key, name and collation.
func usualIDIndex(spec []byte) bool {
	usual := true
	_ = walk(spec, func(e element) bool {
		switch string(e.name) {
		case "key", "name", "ns", "collation":
		case "v":
			usual = usual && number(spec, e) == 2
		default:
			usual = false
		}
		return usual
	})
	return usual
}

// number reads a numeric value of any width; 0 for anything else.
func number(doc []byte, e element) float64 {
	v := bson.RawValue{Type: e.btype(), Value: doc[e.value:e.end]}
	switch e.typ {
	case typeDouble:
		return v.Double()
	case 0x10:
		return float64(v.Int32())
	case 0x12:
		return float64(v.Int64())
	}
	return 0
}

// without returns doc less the named fields, as bytes.
func without(doc []byte, names ...string) bson.Raw {
	out := newDocument()
	_ = walk(doc, func(e element) bool {
		if slices.Contains(names, string(e.name)) {
			return true
		}
		out = append(out, doc[e.at:e.end]...)
		return true
	})
	return out.end()
}

// internal reports whether a namespace belongs to the server, or is restored in another way than by its rows.
func internal(ns string) bool {
	db, name := splitNamespace(ns)
	switch {
	case db == "config" || db == "local" || name == "":
		return true
	case !strings.HasPrefix(name, "system."):
		return false
	case db == "admin":
		return true
	}
	return name != "system.js" && !strings.HasPrefix(name, bucketPrefix)
}

func isAuth(ns string) bool { return ns == "admin.system.users" || ns == "admin.system.roles" }

func isViews(ns string) bool {
	db, name := splitNamespace(ns)
	return name == "system.views" && db != "config" && db != "local" && db != "admin"
}
