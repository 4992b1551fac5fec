package format

import (
	"cmp"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strings"

	"go.mongodb.org/mongo-driver/x/bsonx/bsoncore"

	"github.com/afterimagedb/afterimage/dialect"
	"github.com/afterimagedb/afterimage/dialect/mongodb"
)

const (
	viewsName     = "system.views"
	bucketsPrefix = "system.buckets."
)

// The types of namespaces, as listCollections names them.
const (
	TypeCollection = "collection"
	TypeView       = "view"
	TypeTimeseries = "timeseries"
)

// Namespace is one thing that a dump describes.
type Namespace struct {
	DB, Name string
	Type     string         // TypeCollection, TypeView or TypeTimeseries
	Metadata []byte         // mongodump's metadata.json; nil for a collection without one
	DataName string         // where the documents come from: Name, or system.buckets.Name
	Table    *dialect.Table // of the documents; nil for a view. Its Row is nil when there are only Extra documents.
	Extra    [][]byte       // documents that are not in the table
}

// Layout turns the tables of the source into namespaces, by database and name.
func Layout(ctx context.Context, src Source) ([]Namespace, error) {
	tables, err := src.Tables(ctx)
	if err != nil {
		return nil, err
	}
	l := layout{views: map[string][]byte{}}
	var rows []mongodb.CatalogRow
	for i := range tables {
		r, err := mongodb.ParseCatalog(tables[i].Row)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", tables[i].Namespace, err)
		}
		if r.Name == viewsName {
			if err := l.readViews(ctx, src, tables[i], r.DB); err != nil {
				return nil, err
			}
		}
		rows = append(rows, r)
	}
	for i := range tables {
		if rows[i].Name != viewsName {
			l.addTable(&tables[i], &rows[i])
		}
	}
	for ns, view := range l.views {
		l.addView(ns, view)
	}
	l.addAuthVersion()
	slices.SortFunc(l.out, func(a, b Namespace) int {
		return cmp.Or(strings.Compare(a.DB, b.DB), strings.Compare(a.Name, b.Name))
	})
	for i := 1; i < len(l.out); i++ {
		if a, b := &l.out[i-1], &l.out[i]; a.DB == b.DB && a.Name == b.Name {
			return nil, fmt.Errorf("%s.%s is in the catalog twice", a.DB, a.Name)
		}
	}
	return l.out, errors.Join(l.errs...)
}

type layout struct {
	views map[string][]byte // rows of system.views by namespace
	out   []Namespace
	errs  []error
}

func (l *layout) readViews(ctx context.Context, src Source, t dialect.Table, db string) error {
	n := &Namespace{DB: db, Name: viewsName, DataName: viewsName, Table: &t}
	_, err := Copy(ctx, src, n, func(doc []byte) error {
		ns, ok := bsoncore.Document(doc).Lookup("_id").StringValueOK()
		if !ok || !strings.HasPrefix(ns, db+".") {
			return fmt.Errorf("a view's _id is not the name of a view of the database")
		}
		l.views[ns] = slices.Clone(doc)
		return nil
	})
	return err
}

// addTable adds a collection, or a time-series if its view is there.
func (l *layout) addTable(t *dialect.Table, r *mongodb.CatalogRow) {
	n := Namespace{DB: r.DB, Name: r.Name, Type: TypeCollection, DataName: r.Name, Table: t}
	m := metadata{options: r.Options, indexes: r.ListedIndexes(), name: r.Name, kind: TypeCollection, uuid: hex.EncodeToString(t.ID[:])}
	shown := strings.TrimPrefix(r.Name, bucketsPrefix)
	if view, ok := l.views[r.DB+"."+shown]; ok && r.TimeseriesBuckets && viewOn(view) == r.Name {
		delete(l.views, r.DB+"."+shown)
		n.Name, n.Type = shown, TypeTimeseries
		m = timeseriesMetadata(shown, r)
	}
	l.add(n, m)
}

// timeseriesMetadata describes the time-series that lies over buckets as listCollections and listIndexes show it.
func timeseriesMetadata(name string, r *mongodb.CatalogRow) metadata {
	m := metadata{name: name, kind: TypeTimeseries}
	options, _ := bsoncore.Document(r.Options).Elements()
	var kept [][]byte
	var timeseries bsoncore.Document
	for _, e := range options {
		switch e.Key() { // the rest is how the server builds the buckets
		case "timeseries":
			timeseries, _ = e.Value().DocumentOK()
			kept = append(kept, e)
		case "storageEngine", "indexOptionDefaults", "collation", "expireAfterSeconds":
			kept = append(kept, e)
		}
	}
	m.options = bsoncore.BuildDocument(nil, slices.Concat(kept...))
	for _, spec := range r.Indexes {
		if shown, ok := mongodb.TimeseriesIndex(spec, timeseries); ok {
			m.indexes = append(m.indexes, shown)
		}
	}
	return m
}

// addView adds a view from its row of system.views.
func (l *layout) addView(ns string, row []byte) {
	db, name, _ := strings.Cut(ns, ".")
	elements, err := bsoncore.Document(row).Elements()
	if err != nil {
		l.errs = append(l.errs, fmt.Errorf("view %s: %w", ns, err))
		return
	}
	var kept [][]byte
	for _, e := range elements {
		if e.Key() != "_id" {
			kept = append(kept, e)
		}
	}
	l.add(Namespace{DB: db, Name: name, Type: TypeView, DataName: name},
		metadata{name: name, kind: TypeView, options: bsoncore.BuildDocument(nil, slices.Concat(kept...))})
}

func (l *layout) add(n Namespace, m metadata) {
	var err error
	if n.Metadata, err = m.json(); err == nil {
		err = checkDB(n.DB)
	}
	if err != nil {
		l.errs = append(l.errs, fmt.Errorf("%s.%s: %w", n.DB, n.Name, err))
		return
	}
	l.out = append(l.out, n)
}

// addAuthVersion adds what mongorestore wants to see before it takes users and roles: that they are of the form that
// every server since 3.0 has. The server keeps it in admin.system.version, which is not protected: it belongs to the
// server's version.
func (l *layout) addAuthVersion() {
	auth, version := false, false
	for i := range l.out {
		if n := &l.out[i]; n.DB == "admin" {
			auth = auth || n.Name == "system.users" || n.Name == "system.roles"
			version = version || n.Name == "system.version"
		}
	}
	if !auth || version {
		return
	}
	doc := bsoncore.NewDocumentBuilder().AppendString("_id", "authSchema").AppendInt32("currentVersion", 5).Build()
	l.out = append(l.out, Namespace{
		DB: "admin", Name: "system.version", Type: TypeCollection, DataName: "system.version",
		Table: &dialect.Table{}, Extra: [][]byte{doc},
	})
}

// metadata is what mongodump writes beside a collection's documents.
type metadata struct {
	options []byte
	indexes [][]byte
	uuid    string
	name    string
	kind    string
}

func (m *metadata) json() ([]byte, error) {
	out := []byte{'{'}
	var err error
	if len(m.options) > 5 {
		if out, err = AppendJSON(append(out, `"options":`...), m.options); err != nil {
			return nil, fmt.Errorf("options: %w", err)
		}
		out = append(out, ',')
	}
	out = append(out, `"indexes":[`...)
	for i, spec := range m.indexes {
		if i > 0 {
			out = append(out, ',')
		}
		if out, err = AppendJSON(out, spec); err != nil {
			return nil, fmt.Errorf("index %d: %w", i, err)
		}
	}
	out = append(out, ']')
	if m.uuid != "" {
		out = appendString(append(out, `,"uuid":`...), []byte(m.uuid))
	}
	out = appendString(append(out, `,"collectionName":`...), []byte(m.name))
	out = appendString(append(out, `,"type":`...), []byte(m.kind))
	return append(out, '}'), nil
}

func viewOn(view []byte) string {
	s, _ := bsoncore.Document(view).Lookup("viewOn").StringValueOK()
	return s
}

// checkDB refuses names of databases that would lead out of the folder.
func checkDB(db string) error {
	if db == "" || len(db) > 255 || strings.ContainsAny(db, "./\\\x00") {
		return fmt.Errorf("%q is no name of a database", db)
	}
	return nil
}
