package mongodb

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math"
)

const ttlField = "expireAfterSeconds" // of an index, or of a clustered collection

// applyCatalogPatch returns the row that the server's catalog shows after the DDL command in patch ({ns, o, o2}, see
// [CatalogPatch]). Commands that change nothing of a row (startIndexBuild, ...) return it as it is; an unknown command
// is an error.
func applyCatalogPatch(row, patch []byte) ([]byte, error) {
	r, err := ParseCatalog(row)
	if err != nil {
		return nil, err
	}
	c, err := readCommand(patch)
	if err != nil {
		return nil, fmt.Errorf("DDL of %s: %w", r.Namespace, err)
	}
	switch c.name {
	case "renameCollection":
		err = r.rename(c)
	case "createIndexes":
		spec := removeField(c.o, c.name)
		err = r.putIndex(spec)
	case "commitIndexBuild":
		err = r.commitIndexes(c)
	case "dropIndexes", "deleteIndexes", "deleteIndex", "dropIndex":
		err = r.dropIndexes(c)
	case "collMod":
		err = r.collMod(c.o)
	case "convertToCapped":
		r.convertToCapped(c.o)
	case "emptycapped", "startIndexBuild", "abortIndexBuild":
		return row, nil
	default:
		err = fmt.Errorf("command is not known")
	}
	if err != nil {
		return nil, fmt.Errorf("%s of %s: %w", c.name, r.Namespace, err)
	}
	return r.Append(nil), nil
}

// command is a DDL command as logged.
type command struct {
	name  string // first name of o
	coll  string // its value, if a string
	ns    string
	o, o2 []byte
}

func readCommand(patch []byte) (command, error) {
	var c command
	err := eachField(patch, func(name string, f field) error {
		switch {
		case name == "ns" && f.typ(patch) == typeString:
			c.ns = string(stringOf(f.val(patch)))
		case name == "o" && f.typ(patch) == typeObject:
			c.o = f.val(patch)
		case name == "o2" && f.typ(patch) == typeObject:
			c.o2 = f.val(patch)
		}
		return nil
	})
	if err != nil {
		return c, err
	}
	if err := checkDoc(c.o); err != nil {
		return c, err
	}
	f, ok, err := nextField(c.o, 4)
	if err != nil || !ok {
		return c, fmt.Errorf("%w: command is empty", errMalformed)
	}
	c.name = string(f.name(c.o))
	if f.typ(c.o) == typeString {
		c.coll = string(stringOf(f.val(c.o)))
	}
	return c, nil
}

func (r *CatalogRow) rename(c command) error {
	to, ok, err := lookup(c.o, "to")
	if err != nil || !ok || to.typ(c.o) != typeString {
		return fmt.Errorf("%w: has no new name", errMalformed)
	}
	r.Namespace = string(stringOf(to.val(c.o)))
	if stay, ok, _ := lookup(c.o, "stayTemp"); !ok || !truth(stay.typ(c.o), stay.val(c.o)) {
		r.Options = removeField(r.Options, "temp")
	}
	return nil
}

// indexName returns the name in an index spec, "" if there is none.
func indexName(spec []byte) string {
	f, ok, err := lookup(spec, "name")
	if err != nil || !ok || f.typ(spec) != typeString {
		return ""
	}
	return string(stringOf(f.val(spec)))
}

func (r *CatalogRow) findIndex(name string) int {
	for i, spec := range r.Indexes {
		if indexName(spec) == name {
			return i
		}
	}
	return -1
}

// putIndex adds an index, or replaces the one of its name: a listing may have seen it before the log said so.
func (r *CatalogRow) putIndex(spec []byte) error {
	name := indexName(spec)
	if name == "" {
		return fmt.Errorf("%w: index has no name", errMalformed)
	}
	if i := r.findIndex(name); i >= 0 {
		r.Indexes[i] = spec
		return nil
	}
	r.Indexes = append(r.Indexes, spec)
	return nil
}

func (r *CatalogRow) commitIndexes(c command) error {
	f, ok, err := lookup(c.o, "indexes")
	if err != nil || !ok || f.typ(c.o) != typeArray {
		return fmt.Errorf("%w: lists no indexes", errMalformed)
	}
	return eachDocument(f.val(c.o), r.putIndex)
}

// dropIndexes removes one index by name or key, several by name, or all but _id by "*". One that is not there is passed
// over: a listing may have missed it already.
func (r *CatalogRow) dropIndexes(c command) error {
	f, ok, err := lookup(c.o, "index")
	if err != nil || !ok {
		return fmt.Errorf("%w: names no index", errMalformed)
	}
	value := f.val(c.o)
	switch f.typ(c.o) {
	case typeString:
		name := string(stringOf(value))
		if name == "*" {
			r.keepIndexes(func(spec []byte) bool { return indexName(spec) == "_id_" })
			return nil
		}
		r.keepIndexes(func(spec []byte) bool { return indexName(spec) != name })
		return nil
	case typeArray:
		return eachField(value, func(_ string, e field) error {
			name := string(stringOf(e.val(value)))
			r.keepIndexes(func(spec []byte) bool { return indexName(spec) != name })
			return nil
		})
	case typeObject:
		r.keepIndexes(func(spec []byte) bool { return !sameKey(spec, value) })
		return nil
	}
	return fmt.Errorf("%w: index has type 0x%02x", errMalformed, f.typ(c.o))
}

func (r *CatalogRow) keepIndexes(keep func(spec []byte) bool) {
	kept := r.Indexes[:0:0]
	for _, spec := range r.Indexes {
		if keep(spec) {
			kept = append(kept, spec)
		}
	}
	r.Indexes = kept
}

// sameKey reports whether the index has the key pattern, as the server compares them: by value, in order.
func sameKey(spec, pattern []byte) bool {
	f, ok, err := lookup(spec, "key")
	if err != nil || !ok || f.typ(spec) != typeObject {
		return false
	}
	a, errA := AppendValueKey(nil, typeObject, f.val(spec))
	b, errB := AppendValueKey(nil, typeObject, pattern)
	return errA == nil && errB == nil && bytes.Equal(a, b)
}

// collMod applies the new values in o; o2 holds old ones only.
func (r *CatalogRow) collMod(o []byte) error {
	err := eachField(o, func(name string, f field) error {
		typ, value := f.typ(o), f.val(o)
		switch name {
		case "index":
			if typ != typeObject {
				return fmt.Errorf("%w: index has type 0x%02x", errMalformed, typ)
			}
			return r.collModIndex(value)
		case "validator":
			if typ == typeObject && len(value) == len(emptyDoc) {
				r.Options = removeField(r.Options, name)
				return nil
			}
			r.setOption(name, typ, value)
		case "validationLevel", "validationAction":
			r.setOption(name, typ, value)
		case "recordPreImages":
			r.Options = removeField(r.Options, name)
			if truth(typ, value) {
				r.setOption(name, typ, value)
				r.Options = removeField(r.Options, "changeStreamPreAndPostImages")
			}
		case "changeStreamPreAndPostImages":
			r.Options = removeField(r.Options, name)
			if enabled, ok, _ := lookup(value, "enabled"); ok && truth(enabled.typ(value), enabled.val(value)) {
				r.setOption(name, typ, value)
				r.Options = removeField(r.Options, "recordPreImages")
			}
		case ttlField:
			if typ == typeString { // "off"
				r.Options = removeField(r.Options, name)
				return nil
			}
			r.setOption(name, typeInt64, int64Bytes(wholeNumber(typ, value)))
		case "cappedSize":
			r.setCount("size", cappedSize(wholeNumber(typ, value)))
		case "cappedMax":
			documents := wholeNumber(typ, value)
			if documents <= 0 {
				documents = math.MaxInt32 // no limit, as the server stores it
			}
			r.setCount("max", documents)
		case "timeseries":
			return r.collModTimeseries(typ, value)
		}
		return nil
	})
	if err != nil {
		return err
	}
	return r.validationDefaults(o)
}

// validationDefaults writes level and action out, as the server does with whichever of the three validation options it changes.
func (r *CatalogRow) validationDefaults(o []byte) error {
	changed := false
	for _, name := range []string{"validator", "validationLevel", "validationAction"} {
		_, ok, err := lookup(o, name)
		if err != nil {
			return err
		}
		changed = changed || ok
	}
	if !changed {
		return nil
	}
	for _, option := range [][2]string{{"validationLevel", "strict"}, {"validationAction", "error"}} {
		if _, ok, err := lookup(r.Options, option[0]); err != nil {
			return err
		} else if !ok {
			text := binary.LittleEndian.AppendUint32(nil, uint32(len(option[1])+1))
			r.setOption(option[0], typeString, append(append(text, option[1]...), 0))
		}
	}
	return nil
}

func (r *CatalogRow) collModIndex(change []byte) error {
	at := -1
	if name := indexName(change); name != "" {
		at = r.findIndex(name)
	} else if f, ok, _ := lookup(change, "keyPattern"); ok && f.typ(change) == typeObject {
		for i, spec := range r.Indexes {
			if sameKey(spec, f.val(change)) {
				at = i
			}
		}
	}
	if at < 0 {
		return fmt.Errorf("index is not in the catalog row")
	}
	spec := r.Indexes[at]
	err := eachField(change, func(name string, f field) error {
		typ, value := f.typ(change), f.val(change)
		switch name {
		case ttlField:
			spec = setField(spec, name, typeInt64, int64Bytes(wholeNumber(typ, value)))
		case "hidden", "prepareUnique":
			spec = removeField(spec, name)
			if truth(typ, value) {
				spec = setField(spec, name, typeBool, []byte{1})
			}
		case "unique":
			spec = setField(removeField(spec, "prepareUnique"), name, typeBool, []byte{1})
		}
		return nil
	})
	r.Indexes[at] = spec
	return err
}

// bucketSpan is how long a bucket of the granularity may last.
func bucketSpan(granularity []byte) (seconds int64, ok bool) {
	switch string(granularity) {
	case "seconds":
		return 3600, true
	case "minutes":
		return 86400, true
	case "hours":
		return 2592000, true
	}
	return 0, false
}

func (r *CatalogRow) collModTimeseries(typ byte, change []byte) error {
	f, ok, err := lookup(r.Options, "timeseries")
	if err != nil || !ok || f.typ(r.Options) != typeObject || typ != typeObject {
		return fmt.Errorf("%w: collection is no time-series", errMalformed)
	}
	ts := f.val(r.Options)
	err = eachField(change, func(name string, f field) error {
		typ, value := f.typ(change), f.val(change)
		switch name {
		case "granularity":
			ts = setField(ts, name, typ, value)
			if span, ok := bucketSpan(stringOf(value)); ok && typ == typeString {
				ts = setField(ts, "bucketMaxSpanSeconds", typeInt32, int64Bytes(span)[:4])
			}
		case "bucketMaxSpanSeconds", "bucketRoundingSeconds":
			ts = setField(removeField(ts, "granularity"), name, typ, value)
		}
		return nil
	})
	r.Options = setField(r.Options, "timeseries", typeObject, ts)
	return err
}

func (r *CatalogRow) convertToCapped(o []byte) {
	r.setOption("capped", typeBool, []byte{1})
	if f, ok, _ := lookup(o, "size"); ok {
		r.setCount("size", cappedSize(wholeNumber(f.typ(o), f.val(o))))
	}
	r.keepIndexes(func(spec []byte) bool { return indexName(spec) == "_id_" })
}

// optionOrder is the order in which the server lists options.
var optionOrder = []string{
	"uuid", "capped", "size", "max", "temp", "recordPreImages", "changeStreamPreAndPostImages", "storageEngine",
	"indexOptionDefaults", "validator", "validationLevel", "validationAction", "collation", "viewOn", "pipeline",
	"clusteredIndex", "expireAfterSeconds", "encryptedFields", "timeseries",
}

// setOption sets an option at the place where the server lists it.
func (r *CatalogRow) setOption(name string, typ byte, value []byte) {
	if _, ok, err := lookup(r.Options, name); ok || err != nil {
		r.Options = setField(r.Options, name, typ, value)
		return
	}
	rank := func(name string) int {
		for i, o := range optionOrder {
			if o == name {
				return i
			}
		}
		return len(optionOrder)
	}
	at := len(r.Options) - 1
	_ = eachField(r.Options, func(other string, f field) error {
		if rank(other) > rank(name) {
			at = min(at, f.start)
		}
		return nil
	})
	out := appendField(append([]byte(nil), r.Options[:at]...), typ, []byte(name), value)
	r.Options = endDoc(append(out, r.Options[at:len(r.Options)-1]...), 0)
}

// setCount sets a number of a capped collection, in the type that the server lists it in.
func (r *CatalogRow) setCount(name string, n int64) {
	if n == int64(int32(n)) {
		r.setOption(name, typeInt32, int64Bytes(n)[:4])
		return
	}
	r.setOption(name, typeInt64, int64Bytes(n))
}

// cappedSize rounds up as the server does: to 256 bytes.
func cappedSize(n int64) int64 { return (n + 255) &^ 255 }

// wholeNumber reads a number of any type but decimal, rounding towards zero; other values are 0.
func wholeNumber(typ byte, value []byte) int64 {
	switch typ {
	case typeInt32:
		return int64(int32(binary.LittleEndian.Uint32(value)))
	case typeInt64:
		return int64(binary.LittleEndian.Uint64(value))
	case typeDouble:
		if f := math.Float64frombits(binary.LittleEndian.Uint64(value)); math.Abs(f) < 1<<62 {
			return int64(f)
		}
	}
	return 0
}

func int64Bytes(n int64) []byte { return binary.LittleEndian.AppendUint64(nil, uint64(n)) }
