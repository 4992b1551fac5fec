package mongodb

import (
	"fmt"
	"strings"

	"github.com/afterimagedb/afterimage"
)

// EventOf describes a change of a catalog row for an operator: what kind of DDL, on what, in which detail, and whether
// it destroys data. before is the row before the change, nil if not known. kind is "" for what is no event, such as the
// start of an index build.
func EventOf(op afterimage.Op, body, before []byte) (kind, namespace, detail string, destructive bool) {
	if r, err := ParseCatalog(before); err == nil {
		namespace = r.Namespace
	}
	switch op {
	case afterimage.OpInsert, afterimage.OpPut:
		r, err := ParseCatalog(body)
		if err != nil {
			return "", namespace, "", false
		}
		return "create", r.Namespace, createDetail(&r), false
	case afterimage.OpDelete, afterimage.OpPatch:
	default:
		return "", namespace, "", false
	}
	c, err := readCommand(body)
	if op == afterimage.OpDelete {
		if err != nil {
			return "drop", namespace, "", true
		}
		target := c.namespace()
		if c.name == "renameCollection" {
			target, detail = optionText(c.o, "to"), "replaced by the rename of "+c.coll
		}
		if namespace == "" {
			namespace = target
		}
		return "drop", namespace, detail, true
	}
	if err != nil {
		return "", namespace, "", false
	}
	if namespace == "" {
		namespace = c.namespace()
	}
	kind, detail = c.event()
	return kind, namespace, detail, kind == "emptycapped"
}

// namespace is the collection that a command names.
func (c *command) namespace() string {
	if c.name == "renameCollection" {
		return c.coll // a whole namespace
	}
	return database(c.ns) + "." + c.coll
}

func (c *command) event() (kind, detail string) {
	switch c.name {
	case "renameCollection":
		return "rename", "to " + optionText(c.o, "to")
	case "createIndexes":
		return c.name, indexName(c.o)
	case "commitIndexBuild":
		return "createIndexes", strings.Join(c.indexNames(), ", ")
	case "dropIndexes", "deleteIndexes", "deleteIndex", "dropIndex":
		return "dropIndexes", strings.Join(c.indexNames(), ", ")
	case "collMod":
		return c.name, strings.Join(c.changed(), ", ")
	case "convertToCapped", "emptycapped":
		return c.name, ""
	}
	return "", ""
}

// indexNames lists what "index" or "indexes" of the command names.
func (c *command) indexNames() []string {
	var names []string
	_ = eachField(c.o, func(name string, f field) error {
		value := f.val(c.o)
		switch {
		case name == "index" && f.typ(c.o) == typeString:
			names = append(names, string(stringOf(value)))
		case name == "index" && f.typ(c.o) == typeArray:
			return eachField(value, func(_ string, e field) error {
				names = append(names, string(stringOf(e.val(value))))
				return nil
			})
		case name == "indexes" && f.typ(c.o) == typeArray:
			return eachDocument(value, func(spec []byte) error {
				names = append(names, indexName(spec))
				return nil
			})
		}
		return nil
	})
	return names
}

// changed lists the settings that a collMod names; those of an index with the index.
func (c *command) changed() []string {
	var names []string
	_ = eachField(c.o, func(name string, f field) error {
		if name == "collMod" {
			return nil
		}
		if name != "index" || f.typ(c.o) != typeObject {
			names = append(names, name)
			return nil
		}
		index := f.val(c.o)
		return eachField(index, func(setting string, _ field) error {
			if setting != "name" && setting != "keyPattern" {
				names = append(names, fmt.Sprintf("index %s %s", indexName(index), setting))
			}
			return nil
		})
	})
	return names
}

func createDetail(r *CatalogRow) string {
	switch {
	case r.TimeseriesBuckets:
		return "time-series"
	case r.Capped:
		return "capped"
	case r.Clustered:
		return "clustered"
	}
	return ""
}
