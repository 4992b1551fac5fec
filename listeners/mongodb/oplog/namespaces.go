package oplog

import "bytes"

// Kept reports whether the namespace holds data that is protected. What is left out is the server's own bookkeeping:
// docs/format/mongodb-namespaces.md lists it.
func Kept[T string | []byte](ns T) bool {
	n := []byte(ns)
	dot := bytes.IndexByte(n, '.')
	if dot <= 0 {
		return false
	}
	db, coll := n[:dot], n[dot+1:]
	switch string(db) {
	case "config", "local":
		return false
	case "admin":
		switch string(coll) {
		case "system.version", "system.keys", "system.new_users", "system.backup_users", "system.preimages", "system.healthlog":
			return false
		}
	}
	return string(coll) != "system.profile" // never in the log: each member has its own
}
