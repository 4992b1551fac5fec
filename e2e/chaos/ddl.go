package chaos

import (
	"context"
	"strconv"
	"strings"

	"go.mongodb.org/mongo-driver/bson"

	"github.com/afterimagedb/afterimage/e2e/wire"
)

var ddlOps = []op{
	{"create", 14, createAny},
	{"drop", 5, drop},
	{"dropDatabase", 1, dropDatabase},
	{"rename", 6, rename},
	{"rename-over", 3, renameOver},
	{"rename-across", 3, renameAcross},
	{"out", 4, out},
	{"merge", 2, merge},
	{"convertToCapped", 2, convertToCapped},
	{"cloneAsCapped", 2, cloneAsCapped},
	{"collMod", 10, collMod},
	{"createIndexes", 16, createIndexes},
	{"dropIndexes", 6, dropIndexes},
	{"index-collMod", 6, indexCollMod},
	{"view", 4, view},
	{"user", 5, user},
	{"role", 3, role},
	{"applyOps-command", 1, applyCommand},
}

func (w *worker) run(ctx context.Context, db string, cmd wire.Doc) error {
	_, err := w.cl.Run(ctx, db, cmd)
	return err
}

// newName is a name of few, so that names come again; some are hard to write into a file name.
func (w *worker) newName() (db, name string) {
	names := []string{"c0", "c1", "c2", "c3", "n1", "n2", "sp ace", "per%cent", "dot.ted.name", "$dollar", "ünïcode", "sla/sh", "UPPER", "a=b&c"}
	name = names[w.r.IntN(len(names))]
	if name == "$dollar" {
		name = "x$dollar"
	}
	return databases[w.r.IntN(len(databases))], name
}

// create makes a collection of a kind, with options of that kind by chance.
func (w *worker) create(ctx context.Context, db, name string, k kind) {
	cmd := wire.D("create", name)
	switch k {
	case capped:
		cmd = wire.With(cmd, "capped", true, "size", []any{4096, 65536, int64(1 << 20)}[w.r.IntN(3)])
		if w.r.IntN(2) == 0 {
			cmd = wire.With(cmd, "max", 5+w.r.IntN(60))
		}
	case series:
		ts := wire.D("timeField", "t", "metaField", "m", "granularity", []any{"seconds", "minutes", "hours"}[w.r.IntN(3)])
		cmd = wire.With(cmd, "timeseries", ts)
		if w.r.IntN(2) == 0 {
			cmd = wire.With(cmd, "expireAfterSeconds", int64(86400+w.r.IntN(1000)))
		}
	case clustered:
		cmd = wire.With(cmd, "clusteredIndex", wire.D("key", wire.D("_id", 1), "unique", true, "name", []any{"clu", "_id_", "ü"}[w.r.IntN(3)]))
	case plain:
		cmd = w.options(cmd)
	}
	if err := w.run(ctx, db, cmd); err == nil {
		w.know(db+"."+name, k)
	}
}

func (w *worker) options(cmd wire.Doc) wire.Doc {
	if w.r.IntN(3) == 0 {
		cmd = wire.With(cmd, "validator", wire.D("n", wire.D("$not", wire.D("$type", "object"))), "validationLevel", []any{"strict", "moderate", "off"}[w.r.IntN(3)],
			"validationAction", []any{"warn", "error"}[w.r.IntN(2)])
	}
	if w.r.IntN(4) == 0 {
		cmd = wire.With(cmd, "collation", wire.D("locale", "fr", "strength", 1+w.r.IntN(3), "caseLevel", w.r.IntN(2) == 0))
	}
	if w.r.IntN(5) == 0 {
		cmd = wire.With(cmd, "storageEngine", wire.D("wiredTiger", wire.D("configString", "block_compressor=zlib")))
	}
	if w.r.IntN(6) == 0 {
		cmd = wire.With(cmd, "indexOptionDefaults", wire.D("storageEngine", wire.D("wiredTiger", wire.D("configString", ""))))
	}
	if w.from53() && w.r.IntN(4) == 0 {
		cmd = wire.With(cmd, "changeStreamPreAndPostImages", wire.D("enabled", true))
	}
	return cmd
}

func createAny(ctx context.Context, w *worker) error {
	db, name := w.newName()
	kinds := []kind{plain, plain, plain, capped}
	if w.from5() {
		kinds = append(kinds, series)
	}
	if w.from53() {
		kinds = append(kinds, clustered)
	}
	k := kinds[w.r.IntN(len(kinds))]
	w.mu.Lock()
	_, there := w.colls[db+"."+name]
	w.mu.Unlock()
	if there {
		return errNothing
	}
	w.create(ctx, db, name, k)
	return nil
}

func drop(ctx context.Context, w *worker) error {
	w.mu.Lock()
	few := len(w.colls) < 8
	w.mu.Unlock()
	db, name, _, ok := w.some(plain, clustered, capped, series)
	if !ok || few {
		return errNothing
	}
	w.forget(db + "." + name)
	return w.run(ctx, db, wire.D("drop", name))
}

func dropDatabase(ctx context.Context, w *worker) error {
	db := databases[w.r.IntN(len(databases))]
	for _, k := range w.of(db) {
		w.forget(k)
	}
	if err := w.run(ctx, db, wire.D("dropDatabase", 1)); err != nil {
		return err
	}
	for i := range 3 {
		w.create(ctx, db, "c"+strconv.Itoa(i), plain)
	}
	w.create(ctx, db, "cap", capped)
	return nil
}

func (w *worker) of(db string) []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	var all []string
	for ns := range w.colls {
		if len(ns) > len(db) && ns[:len(db)+1] == db+"." {
			all = append(all, ns)
		}
	}
	return all
}

func (w *worker) move(ctx context.Context, fromDB, from string, k kind, toDB, to string, over bool) error {
	w.forget(fromDB + "." + from)
	if over {
		w.forget(toDB + "." + to)
	}
	err := w.run(ctx, "admin", wire.D("renameCollection", fromDB+"."+from, "to", toDB+"."+to, "dropTarget", over))
	if err != nil {
		if wire.Code(err) > 0 {
			w.know(fromDB+"."+from, k)
		}
		return err
	}
	w.know(toDB+"."+to, k)
	return nil
}

func rename(ctx context.Context, w *worker) error {
	db, from, k, ok := w.some(plain, clustered, capped)
	if !ok {
		return errNothing
	}
	_, to := w.newName()
	return w.move(ctx, db, from, k, db, to, false)
}

func renameOver(ctx context.Context, w *worker) error {
	db, from, k, ok := w.some(plain, clustered)
	toDB, to, _, ok2 := w.some(plain, clustered)
	if !ok || !ok2 || db != toDB || from == to {
		return errNothing
	}
	return w.move(ctx, db, from, k, db, to, true)
}

func renameAcross(ctx context.Context, w *worker) error {
	db, from, k, ok := w.some(plain, capped)
	toDB, to := w.newName()
	if !ok || db == toDB {
		return errNothing
	}
	return w.move(ctx, db, from, k, toDB, to, w.r.IntN(3) == 0)
}

func out(ctx context.Context, w *worker) error {
	db, from, _, ok := w.some(plain, clustered, series)
	if !ok {
		return errNothing
	}
	toDB, to := w.newName()
	err := w.run(ctx, db, wire.D("aggregate", from, "pipeline", wire.A(wire.D("$limit", 1+w.r.IntN(50)), wire.D("$out", wire.D("db", toDB, "coll", to))), "cursor", wire.D()))
	if err == nil {
		w.know(toDB+"."+to, plain)
	}
	return err
}

func merge(ctx context.Context, w *worker) error {
	db, from, _, ok := w.some(plain, clustered)
	toDB, to, _, ok2 := w.some(plain)
	if !ok || !ok2 {
		return errNothing
	}
	return w.run(ctx, db, wire.D("aggregate", from, "pipeline", wire.A(wire.D("$limit", 30), wire.D("$merge", wire.D("into", wire.D("db", toDB, "coll", to),
		"whenMatched", []any{"merge", "replace", "keepExisting"}[w.r.IntN(3)]))), "cursor", wire.D()))
}

func convertToCapped(ctx context.Context, w *worker) error {
	db, name, _, ok := w.some(plain)
	if !ok {
		return errNothing
	}
	w.forget(db + "." + name)
	err := w.run(ctx, db, wire.D("convertToCapped", name, "size", 65536))
	if err == nil {
		w.know(db+"."+name, capped)
	}
	return err
}

func cloneAsCapped(ctx context.Context, w *worker) error {
	db, name, _, ok := w.some(plain)
	if !ok {
		return errNothing
	}
	_, to := w.newName()
	err := w.run(ctx, db, wire.D("cloneCollectionAsCapped", name, "toCollection", to, "size", 100000))
	if err == nil {
		w.know(db+"."+to, capped)
	}
	return err
}

func collMod(ctx context.Context, w *worker) error {
	db, name, k, ok := w.some(plain, clustered, capped, series)
	if !ok {
		return errNothing
	}
	var all []wire.Doc
	switch k {
	case series:
		all = []wire.Doc{wire.D("expireAfterSeconds", int64(90000+w.r.IntN(100))), wire.D("expireAfterSeconds", "off"), wire.D("timeseries", wire.D("granularity", "hours"))}
	case clustered:
		all = []wire.Doc{wire.D("expireAfterSeconds", int64(90000)), wire.D("validator", wire.D("n", wire.D("$exists", true)), "validationAction", "warn")}
	case capped:
		all = []wire.Doc{wire.D("validator", wire.D("n", wire.D("$exists", true)), "validationAction", "warn")}
		if w.from53() {
			all = append(all, wire.D("cappedSize", int64(200000+w.r.IntN(1000))), wire.D("cappedMax", int64(30+w.r.IntN(50))))
		}
	case plain:
		all = []wire.Doc{
			wire.D("validator", wire.D("str", wire.D("$type", wire.A("string", "missing", "int"))), "validationLevel", "moderate", "validationAction", "warn"),
			wire.D("validator", wire.D("$jsonSchema", wire.D("bsonType", "object", "properties", wire.D("n", wire.D("bsonType", "number")))), "validationAction", "warn"),
			wire.D("validator", wire.D()), wire.D("validationLevel", "off"),
		}
		if w.from53() { // which drops recordPreImages with any later collMod, and says nothing of it in the log
			all = append(all, wire.D("changeStreamPreAndPostImages", wire.D("enabled", w.r.IntN(2) == 0)))
		} else {
			all = append(all, wire.D("recordPreImages", w.r.IntN(2) == 0))
		}
	}
	m := all[w.r.IntN(len(all))]
	pairs := []any{"collMod", name}
	for _, e := range elementsOf(m) {
		pairs = append(pairs, e.name, e.value)
	}
	return w.run(ctx, db, wire.D(pairs...))
}

func (w *worker) index() wire.Doc {
	n := strconv.Itoa(w.r.IntN(4))
	all := []wire.Doc{
		wire.D("key", wire.D("n", 1), "name", "n"+n), wire.D("key", wire.D("n", -1.0, "s.x", int64(1)), "name", "compound"+n),
		wire.D("key", wire.D("f"+n, 1), "name", "f"+n, "sparse", true), wire.D("key", wire.D("str", 1), "name", "hid"+n, "hidden", true),
		wire.D("key", wire.D("docs.k", 1), "name", "multi"+n), wire.D("key", wire.D("uniq"+n, 1), "name", "uniq"+n, "unique", true, "sparse", true),
		wire.D("key", wire.D("s.t.u", 1), "name", "part"+n, "partialFilterExpression", wire.D("n", wire.D("$gt", 5))),
		wire.D("key", wire.D("expires", 1), "name", "ttl"+n, "expireAfterSeconds", []any{0, 3.0, int64(3600)}[w.r.IntN(3)]),
		wire.D("key", wire.D("str", "text", "s.t.w", "text"), "name", "text", "weights", wire.D("str", 3), "default_language", "none"),
		wire.D("key", wire.D("loc", "2dsphere"), "name", "geo"), wire.D("key", wire.D("$**", 1), "name", "wild", "wildcardProjection", wire.D("s", 1, "a", 1)),
		wire.D("key", wire.D("s.$**", 1), "name", "wilds"), wire.D("key", wire.D("str", "hashed"), "name", "hash"),
		wire.D("key", wire.D("a", 1), "name", "coll"+n, "collation", wire.D("locale", "de", "strength", 2)),
		wire.D("key", wire.D("loc2", "2d"), "name", "flat", "bits", 20, "min", -10.5, "max", 500),
		wire.D("key", wire.D("str", 1, "n", 1), "name", "se"+n, "storageEngine", wire.D("wiredTiger", wire.D("configString", ""))),
	}
	return all[w.r.IntN(len(all))]
}

func createIndexes(ctx context.Context, w *worker) error {
	db, name, k, ok := w.some(plain, clustered, capped, series)
	if !ok {
		return errNothing
	}
	specs := []wire.Doc{w.index()}
	if w.r.IntN(3) == 0 {
		specs = append(specs, w.index())
	}
	if k == series {
		specs = []wire.Doc{wire.D("key", wire.D("m.dev", 1, "t", -1), "name", "devt")}
	}
	return w.run(ctx, db, wire.D("createIndexes", name, "indexes", wire.Docs(specs...)))
}

var indexNames = []string{"n0", "n1", "n2", "n3", "ttl0", "ttl1", "ttl2", "hid0", "hid1", "text", "wild", "uniq0", "uniq1", "geo", "hash", "compound1", "multi2", "coll1", "devt"}

func dropIndexes(ctx context.Context, w *worker) error {
	db, name, _, ok := w.some(plain, clustered, capped, series)
	if !ok {
		return errNothing
	}
	var which any = indexNames[w.r.IntN(len(indexNames))]
	switch w.r.IntN(6) {
	case 0:
		which = "*"
	case 1:
		which = wire.D("n", 1)
	case 2:
		which = wire.A("n1", "n2")
	}
	return w.run(ctx, db, wire.D("dropIndexes", name, "index", which))
}

func indexCollMod(ctx context.Context, w *worker) error {
	db, name, _, ok := w.some(plain, clustered)
	if !ok {
		return errNothing
	}
	var names []string
	err := w.cl.Each(ctx, db, wire.D("listIndexes", name, "cursor", wire.D()), func(d bson.Raw) error {
		if n := d.Lookup("name").StringValue(); n != "_id_" {
			names = append(names, n)
		}
		return nil
	})
	if err != nil {
		return err
	}
	if len(names) == 0 {
		return errNothing
	}
	n := names[w.r.IntN(len(names))]
	m := wire.D("name", n, "hidden", w.r.IntN(2) == 0)
	if strings.HasPrefix(n, "ttl") {
		m = wire.D("name", n, "expireAfterSeconds", 5+w.r.IntN(4000))
	} else if w.from53() && w.r.IntN(3) == 0 {
		m = wire.D("name", n, []string{"prepareUnique", "unique"}[w.r.IntN(2)], true)
	}
	return w.run(ctx, db, wire.D("collMod", name, "index", m))
}

func view(ctx context.Context, w *worker) error {
	db, on, _, ok := w.some(plain, clustered, series)
	if !ok {
		return errNothing
	}
	name := "v" + strconv.Itoa(w.r.IntN(3))
	pipe := wire.A(wire.D("$match", wire.D("n", wire.D("$gt", w.r.IntN(9)), "re", regex("^x", "i"))), wire.D("$project", wire.D("a", 1)))
	switch w.r.IntN(4) {
	case 0:
		return w.run(ctx, db, wire.D("drop", name))
	case 1:
		return w.run(ctx, db, wire.D("collMod", name, "viewOn", on, "pipeline", pipe))
	case 2:
		return w.run(ctx, db, wire.D("create", name, "viewOn", on, "pipeline", pipe, "collation", wire.D("locale", "en", "strength", 2)))
	}
	return w.run(ctx, db, wire.D("create", name, "viewOn", on, "pipeline", wire.A()))
}

func user(ctx context.Context, w *worker) error {
	db := append([]string{"admin"}, databases...)[w.r.IntN(1+len(databases))]
	name := "user" + strconv.Itoa(w.r.IntN(3))
	roles := wire.A(wire.D("role", []any{"read", "readWrite", "dbAdmin"}[w.r.IntN(3)], "db", "shop"))
	switch w.r.IntN(5) {
	case 0:
		return w.run(ctx, db, wire.D("dropUser", name))
	case 1:
		return w.run(ctx, db, wire.D("updateUser", name, "customData", w.gen.doc(1), "roles", roles))
	case 2:
		return w.run(ctx, db, wire.D("grantRolesToUser", name, "roles", roles))
	}
	return w.run(ctx, db, wire.D("createUser", name, "pwd", "secret", "roles", roles))
}

func role(ctx context.Context, w *worker) error {
	db := databases[w.r.IntN(len(databases))]
	name := "role" + strconv.Itoa(w.r.IntN(3))
	privileges := wire.A(wire.D("resource", wire.D("db", db, "collection", "c0"), "actions", wire.A("find", "update")))
	switch w.r.IntN(4) {
	case 0:
		return w.run(ctx, db, wire.D("dropRole", name))
	case 1:
		return w.run(ctx, db, wire.D("updateRole", name, "privileges", privileges))
	}
	return w.run(ctx, db, wire.D("createRole", name, "privileges", privileges, "roles", wire.A("read")))
}

// applyCommand makes a collection, or an index, by a user's applyOps.
func applyCommand(ctx context.Context, w *worker) error {
	db, name := w.newName()
	w.txns.Lock()
	defer w.txns.Unlock()
	err := w.run(ctx, "admin", wire.D("applyOps", wire.A(wire.D("op", "c", "ns", db+".$cmd", "o", wire.D("create", name, "idIndex", wire.D("v", 2, "key", wire.D("_id", 1), "name", "_id_"))))))
	if err == nil {
		w.know(db+"."+name, plain)
	}
	return err
}
