package mongodb

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"go.mongodb.org/mongo-driver/bson"
	"go.mongodb.org/mongo-driver/bson/primitive"
	"go.mongodb.org/mongo-driver/mongo"

	"github.com/afterimagedb/afterimage"
	dialect "github.com/afterimagedb/afterimage/dialect/mongodb"
	"github.com/afterimagedb/afterimage/listeners/mongodb/oplog"
)

// Wire versions from which on servers can do something.
const (
	wireSnapshotReads = 13 // 5.0: reads at a cluster time outside of transactions
	wireListCatalog   = 17 // 6.0
)

// listTries is how often the catalog of an old server is listed in the hope that two listings agree.
const listTries = 20

// scanTable is a table to be scanned.
type scanTable struct {
	id     afterimage.TableID
	ns     string
	db     string
	capped bool
	byID   bool   // has an index on _id, or is clustered by it: it can be read in ranges
	resume []byte // {_id: ...} of the last row read, nil at the start
}

// catalogRow is the row of a table in the catalog.
type catalogRow struct {
	id  afterimage.TableID
	row []byte
}

// scanPlan says what is to be scanned.
type scanPlan struct {
	resume bool            // the rest is found in the manifest
	at     afterimage.Time // time of the catalog: every range is read at this or a later one
	rows   []catalogRow    // the whole catalog, by id
	tables []scanTable     // by id
	exact  bool            // the server can read at a cluster time outside of transactions
}

// snapshotAt is the read concern for reads at an exact cluster time.
func snapshotAt(t afterimage.Time) bson.D {
	return bson.D{{Key: "level", Value: "snapshot"}, {Key: "atClusterTime", Value: primitive.Timestamp{T: t.Seconds(), I: t.Ordinal()}}}
}

// majorityAfter is the read concern for what a majority has, at the time or later. Without the time a member may read
// something older than the majority time that it tells.
func majorityAfter(t afterimage.Time) bson.D { return levelAfter("majority", t) }

// localAfter is the read concern for what the member has, at the time or later.
func localAfter(t afterimage.Time) bson.D { return levelAfter("local", t) }

func levelAfter(level string, t afterimage.Time) bson.D {
	return bson.D{{Key: "level", Value: level}, {Key: "afterClusterTime", Value: primitive.Timestamp{T: t.Seconds(), I: t.Ordinal()}}}
}

// catalog reads the catalog at an exact time, not before least.
func (l *Listener) catalog(ctx context.Context, m *member, least afterimage.Time) (*scanPlan, error) {
	at, err := majorityFrom(ctx, m, least)
	if err != nil {
		return nil, err
	}
	plan := &scanPlan{at: at, exact: m.hello.MaxWireVersion >= wireSnapshotReads}
	err = plan.listCatalog(ctx, m)
	if m.hello.MaxWireVersion < wireListCatalog || noSuchStage(err) {
		err = plan.listTwice(ctx, m)
	}
	if err != nil {
		return nil, err
	}
	slices.SortFunc(plan.rows, func(a, b catalogRow) int { return bytes.Compare(a.id[:], b.id[:]) })
	slices.SortFunc(plan.tables, func(a, b scanTable) int { return bytes.Compare(a.id[:], b.id[:]) })
	return plan, nil
}

// noSuchStage reports whether the server does not know $listCatalog.
func noSuchStage(err error) bool {
	const unrecognizedStage = 40324
	var cmd mongo.CommandError
	return errors.As(err, &cmd) && cmd.Code == unrecognizedStage
}

// listCatalog reads the catalog at plan.at.
func (p *scanPlan) listCatalog(ctx context.Context, m *member) error {
	cur, err := m.client.Database("admin").RunCommandCursor(ctx, bson.D{
		{Key: "aggregate", Value: 1},
		{Key: "pipeline", Value: bson.A{bson.D{{Key: "$listCatalog", Value: bson.D{}}}}},
		{Key: "cursor", Value: bson.D{}},
		{Key: "readConcern", Value: snapshotAt(p.at)},
	}, anyMember())
	if err != nil {
		return fmt.Errorf("$listCatalog: %w", err)
	}
	defer cur.Close(ctx) //nolint:errcheck // nothing depends on it
	for cur.Next(ctx) {
		doc := cur.Current
		ns, _ := doc.Lookup("ns").StringValueOK()
		if _, isTable := doc.Lookup("md").DocumentOK(); !isTable || !oplog.Kept(ns) {
			continue // views are rows of system.views
		}
		id, row, err := dialect.CatalogListing(doc)
		if err != nil {
			return fmt.Errorf("catalog entry of %s: %w", ns, err)
		}
		indexes, _ := doc.Lookup("md", "indexes").ArrayOK()
		options := doc.Lookup("md", "options")
		p.add(id, row, ns, options, hasIDIndex(indexes, "spec") || isClustered(options))
	}
	if err := cur.Err(); err != nil {
		return fmt.Errorf("$listCatalog: %w", err)
	}
	return nil
}

// isClustered reports whether a collection is its own index on _id.
func isClustered(options bson.RawValue) bool {
	opts, _ := options.DocumentOK()
	_, err := opts.LookupErr("clusteredIndex")
	return err == nil
}

// add notes a table; byID says whether it can be read in ranges of _id, by a hint.
func (p *scanPlan) add(id afterimage.TableID, row []byte, ns string, options bson.RawValue, byID bool) {
	p.rows = append(p.rows, catalogRow{id: id, row: bytes.Clone(row)})
	opts, _ := options.DocumentOK()
	capped, _ := opts.Lookup("capped").BooleanOK()
	db, _, _ := strings.Cut(ns, ".")
	p.tables = append(p.tables, scanTable{id: id, ns: ns, db: db, capped: capped, byID: byID})
}

// hasIDIndex looks for an index named _id_ among index specifications, which may lie in a field of the elements.
func hasIDIndex(indexes bson.Raw, field string) bool {
	values, err := indexes.Values()
	if err != nil {
		return false
	}
	for _, v := range values {
		doc, ok := v.DocumentOK()
		if ok && field != "" {
			doc, ok = doc.Lookup(field).DocumentOK()
		}
		if !ok {
			continue
		}
		if name, _ := doc.Lookup("name").StringValueOK(); name == "_id_" {
			return true
		}
	}
	return false
}

// listTwice lists the catalog before and after a majority time until both agree: then that is the catalog at the time.
func (p *scanPlan) listTwice(ctx context.Context, m *member) error {
	before, err := listOnce(ctx, m)
	if err != nil {
		return err
	}
	for range listTries {
		at, err := majorityAfterNow(ctx, m)
		if err != nil {
			return err
		}
		after, err := listOnce(ctx, m)
		if err != nil {
			return err
		}
		if before.same(after) {
			p.at, p.rows, p.tables = at, after.rows, after.tables
			return nil
		}
		before = after
	}
	return fmt.Errorf("the catalog changed during each of %d listings", listTries)
}

func (p *scanPlan) same(q *scanPlan) bool {
	return slices.EqualFunc(p.rows, q.rows, func(a, b catalogRow) bool { return a.id == b.id && bytes.Equal(a.row, b.row) })
}

// majorityAfterNow waits until a majority has what the member has now, and returns its time.
func majorityAfterNow(ctx context.Context, m *member) (afterimage.Time, error) {
	h, err := hello(ctx, m.client)
	if err != nil {
		return 0, fmt.Errorf("ask for the member's time: %w", err)
	}
	return majorityFrom(ctx, m, afterimage.MongoTime(h.LastWrite.Op.TS.T, h.LastWrite.Op.TS.I))
}

// majorityFrom waits until the member knows a majority to have the time, and returns the majority's.
func majorityFrom(ctx context.Context, m *member, want afterimage.Time) (afterimage.Time, error) {
	for {
		h, err := hello(ctx, m.client)
		if err != nil {
			return 0, fmt.Errorf("ask for the majority's time: %w", err)
		}
		if at := h.majority(); at >= want {
			return at, nil
		}
		if err := sleep(ctx, 10*time.Millisecond); err != nil {
			return 0, err
		}
	}
}

// listOnce lists databases, collections and indexes, by id.
func listOnce(ctx context.Context, m *member) (*scanPlan, error) {
	var dbs struct {
		Databases []struct {
			Name string `bson:"name"`
		} `bson:"databases"`
	}
	err := m.client.Database("admin").RunCommand(ctx, bson.D{{Key: "listDatabases", Value: 1}, {Key: "nameOnly", Value: true}}, anyMember()).Decode(&dbs)
	if err != nil {
		return nil, fmt.Errorf("list databases: %w", err)
	}
	p := &scanPlan{}
	for _, db := range dbs.Databases {
		if err := p.listDatabase(ctx, m.client.Database(db.Name)); err != nil {
			return nil, err
		}
	}
	slices.SortFunc(p.rows, func(a, b catalogRow) int { return bytes.Compare(a.id[:], b.id[:]) })
	return p, nil
}

func (p *scanPlan) listDatabase(ctx context.Context, db *mongo.Database) error {
	colls, err := all(ctx, db, bson.D{{Key: "listCollections", Value: 1}})
	if err != nil {
		return fmt.Errorf("list the collections of %s: %w", db.Name(), err)
	}
	for i := range colls {
		info := bson.Raw(colls[i])
		name, _ := info.Lookup("name").StringValueOK()
		ns := db.Name() + "." + name
		if kind, _ := info.Lookup("type").StringValueOK(); kind != "collection" || !oplog.Kept(ns) {
			continue
		}
		indexes, err := all(ctx, db, bson.D{{Key: "listIndexes", Value: name}})
		const namespaceNotFound = 26
		if hasCode(err, namespaceNotFound) {
			continue // dropped in between: the next listing tells
		}
		if err != nil {
			return fmt.Errorf("list the indexes of %s: %w", ns, err)
		}
		id, row, err := dialect.CatalogListCollections(db.Name(), info, indexes)
		if err != nil {
			return fmt.Errorf("catalog entry of %s: %w", ns, err)
		}
		// Servers that are listed so do not take a hint on the cluster key of a time-series' buckets (5.0): no range reads.
		idIndex := slices.ContainsFunc(indexes, func(ix []byte) bool {
			n, _ := bson.Raw(ix).Lookup("name").StringValueOK()
			return n == "_id_"
		})
		p.add(id, row, ns, info.Lookup("options"), idIndex)
	}
	return nil
}

// all runs a command with a cursor and gathers what it returns.
func all(ctx context.Context, db *mongo.Database, cmd bson.D) ([][]byte, error) {
	cur, err := db.RunCommandCursor(ctx, cmd, anyMember())
	if err != nil {
		return nil, err
	}
	defer cur.Close(ctx) //nolint:errcheck // nothing depends on it
	var docs [][]byte
	for cur.Next(ctx) {
		docs = append(docs, bytes.Clone(cur.Current))
	}
	return docs, cur.Err()
}

// hasCode reports whether a server's error has one of the codes.
func hasCode(err error, codes ...int32) bool {
	var cmd mongo.CommandError
	return errors.As(err, &cmd) && slices.Contains(codes, cmd.Code)
}
