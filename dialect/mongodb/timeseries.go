package mongodb

import (
	"bytes"
	"encoding/binary"
)

// TimeseriesIndex turns an index spec of system.buckets.X into the one that listIndexes on X shows and createIndexes
// on X takes. timeseries is the `timeseries` option of the buckets collection. ok is false if the index has no such
// form; listIndexes on X leaves it out then.
func TimeseriesIndex(bucketsSpec, timeseries []byte) (spec []byte, ok bool) {
	if f, has, err := lookup(bucketsSpec, "originalSpec"); err != nil {
		return nil, false
	} else if has && f.typ(bucketsSpec) == typeObject {
		return f.val(bucketsSpec), true
	}
	f, has, err := lookup(bucketsSpec, "key")
	if err != nil || !has || f.typ(bucketsSpec) != typeObject {
		return nil, false
	}
	key, ok := timeseriesKey(f.val(bucketsSpec), optionText(timeseries, "metaField"))
	if !ok {
		return nil, false
	}
	return setField(bucketsSpec, "key", typeObject, key), true
}

func optionText(doc []byte, name string) string {
	f, ok, err := lookup(doc, name)
	if err != nil || !ok || f.typ(doc) != typeString {
		return ""
	}
	return string(stringOf(f.val(doc)))
}

// timeseriesKey maps the key of an index on buckets to fields of measurements: meta to the meta field, and the pair of
// the least and greatest value of a field to the field.
func timeseriesKey(key []byte, metaField string) ([]byte, bool) {
	out := beginDoc(nil)
	pending, direction := "", int64(0) // the other half of a pair that must come next
	good := true
	err := eachField(key, func(name string, f field) error {
		typ, value := f.typ(key), f.val(key)
		switch {
		case pending != "":
			good = good && name == pending && numberDirection(typ, value) == direction
			pending = ""
		case name == "meta" || len(name) > 5 && name[:5] == "meta.":
			good = good && metaField != ""
			out = appendField(out, typ, []byte(metaField+name[4:]), value)
		case cut(name, "control.min.") != "":
			pending, direction = "control.max."+cut(name, "control.min."), numberDirection(typ, value)
			good = good && direction > 0
			out = appendField(out, typ, []byte(cut(name, "control.min.")), value)
		case cut(name, "control.max.") != "":
			pending, direction = "control.min."+cut(name, "control.max."), numberDirection(typ, value)
			good = good && direction < 0
			out = appendField(out, typ, []byte(cut(name, "control.max.")), value)
		case cut(name, "data.") != "" && bytes.Equal(stringOf(value), []byte("2dsphere_bucket")):
			out = appendString(out, cut(name, "data."), "2dsphere")
		default:
			good = false
		}
		return nil
	})
	if err != nil || !good || pending != "" {
		return nil, false
	}
	return endDoc(out, 0), true
}

// cut returns s without the prefix, "" if it does not have it.
func cut(s, prefix string) string {
	if len(s) > len(prefix) && s[:len(prefix)] == prefix {
		return s[len(prefix):]
	}
	return ""
}

// numberDirection is 1 for an ascending part of an index key, -1 for a descending one, 0 for another kind.
func numberDirection(typ byte, value []byte) int64 {
	n := wholeNumber(typ, value)
	if typ == typeDecimal && len(value) == 16 {
		n = 1
		if binary.LittleEndian.Uint64(value[8:])&signBit != 0 {
			n = -1
		}
	}
	return max(-1, min(1, n))
}
