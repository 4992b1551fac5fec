//go:build e2e

package mongodb_test

import (
	"bytes"
	"context"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"go.mongodb.org/mongo-driver/bson"
	"go.mongodb.org/mongo-driver/bson/primitive"
	"go.mongodb.org/mongo-driver/mongo"
	"go.mongodb.org/mongo-driver/mongo/options"

	"github.com/afterimagedb/afterimage"
	"github.com/afterimagedb/afterimage/dialect/mongodb"
	"github.com/afterimagedb/afterimage/e2e/harness"
	"github.com/afterimagedb/afterimage/e2e/harness/harnesstest"
)

var update = flag.Bool("update", false, "write what the server logs into testdata")

// ddl is one step: commands in extended JSON, on database p unless they begin with another one.
type ddl struct {
	min, max string // versions that know it
	command  string
}

var ddlSteps = []ddl{
	{command: `{"create":"a"}`},
	{command: `{"create":"cap","capped":true,"size":4096.0,"max":10}`},
	{command: `{"create":"coll","collation":{"locale":"de","strength":2},"validator":{"x":{"$gt":1}},"validationLevel":"moderate","validationAction":"warn","storageEngine":{"wiredTiger":{"configString":"block_compressor=zlib"}},"indexOptionDefaults":{"storageEngine":{"wiredTiger":{"configString":""}}}}`},
	{min: "5.0", command: `{"create":"ts","timeseries":{"timeField":"t","metaField":"m","granularity":"minutes"},"expireAfterSeconds":3600}`},
	{min: "5.0", command: `{"create":"tsn","timeseries":{"timeField":"t"}}`},
	{min: "6.0", command: `{"create":"cl","clusteredIndex":{"key":{"_id":1},"unique":true},"changeStreamPreAndPostImages":{"enabled":true},"expireAfterSeconds":100}`},
	{min: "6.0", command: `{"create":"clf","clusteredIndex":{"key":{"_id":1},"unique":true,"name":"myname"}}`},
	{command: `{"createIndexes":"a","indexes":[{"key":{"x":1},"name":"x_1"}]}`},
	{command: `{"insert":"a","documents":[{"x":1,"y":1,"loc":{"type":"Point","coordinates":[1,1]},"s":"abc"},{"x":2,"p":7}]}`},
	{command: `{"createIndexes":"a","indexes":[{"key":{"y":1.0,"x":-1},"name":"yx","unique":true},{"key":{"s":"text"},"name":"txt","weights":{"s":5}}]}`},
	{command: `{"createIndexes":"a","indexes":[{"key":{"$**":1},"name":"wild","wildcardProjection":{"x":1}},{"key":{"loc":"2dsphere"},"name":"geo","background":true},{"key":{"h":"hashed"},"name":"hash"},{"key":{"e":1},"name":"ttl","expireAfterSeconds":100},{"key":{"pf":1},"name":"pf","partialFilterExpression":{"pf":{"$gt":1}},"sparse":false},{"key":{"co":1},"name":"co","collation":{"locale":"fr"}},{"key":{"p":1},"name":"p1"}]}`},
	{command: `{"createIndexes":"newimp","indexes":[{"key":{"x":1},"name":"x_1"}]}`},
	{command: `{"createIndexes":"cl","indexes":[{"key":{"x":1},"name":"x_1","expireAfterSeconds":7.5}]}`},
	{command: `{"collMod":"a","index":{"keyPattern":{"e":1},"expireAfterSeconds":200}}`},
	{min: "6.0", command: `{"collMod":"a","index":{"name":"ttl","expireAfterSeconds":300.5,"hidden":true}}`},
	{max: "5.0", command: `{"collMod":"a","index":{"name":"ttl","expireAfterSeconds":300.5}}`},
	{command: `{"collMod":"a","index":{"name":"ttl","hidden":false}}`},
	{command: `{"collMod":"a","index":{"name":"x_1","hidden":true}}`},
	{command: `{"collMod":"a","index":{"name":"x_1","hidden":true}}`},
	{command: `{"createIndexes":"a","indexes":[{"key":{"hid":1},"name":"hid","hidden":true}]}`},
	{command: `{"collMod":"a","index":{"keyPattern":{"hid":1.0},"hidden":false}}`},
	{min: "5.1", command: `{"collMod":"a","index":{"name":"x_1","expireAfterSeconds":77}}`},
	{min: "6.0", command: `{"collMod":"a","index":{"name":"p1","prepareUnique":true}}`},
	{min: "6.0", command: `{"collMod":"a","index":{"name":"p1","prepareUnique":false}}`},
	{min: "6.0", command: `{"collMod":"a","index":{"name":"p1","prepareUnique":true}}`},
	{min: "6.0", command: `{"collMod":"a","index":{"name":"p1","unique":true}}`},
	{command: `{"collMod":"a","validator":{"z":{"$exists":false}},"validationLevel":"strict","validationAction":"error"}`},
	{command: `{"collMod":"a","validationAction":"warn"}`},
	{command: `{"collMod":"a","validator":{}}`},
	{command: `{"collMod":"a","validationLevel":"off"}`},
	{command: `{"collMod":"a","recordPreImages":true}`},
	{min: "6.0", command: `{"collMod":"a","changeStreamPreAndPostImages":{"enabled":true}}`},
	{command: `{"collMod":"a","recordPreImages":true}`},
	{min: "6.0", command: `{"collMod":"a","changeStreamPreAndPostImages":{"enabled":true}}`},
	{min: "6.0", command: `{"collMod":"a","changeStreamPreAndPostImages":{"enabled":false}}`},
	{command: `{"collMod":"a","recordPreImages":true}`},
	{command: `{"collMod":"a","recordPreImages":false}`},
	{command: `{"collMod":"coll","validator":{"y":1}}`},
	{command: `{"create":"val"}`},
	{command: `{"collMod":"val","validationAction":"warn"}`},
	{command: `{"create":"val2"}`},
	{command: `{"collMod":"val2","validator":{}}`},
	{command: `{"create":"val3","validator":{"x":1}}`},
	{command: `{"collMod":"val3","validationLevel":"moderate"}`},
	{max: "5.0", command: `{"create":"pre","recordPreImages":true}`},
	{max: "5.0", command: `{"collMod":"pre","validator":{"x":1}}`},
	{max: "5.0", command: `{"createIndexes":"pre","indexes":[{"key":{"x":1},"name":"x_1"},{"key":{"e":1},"name":"e_1","expireAfterSeconds":7}]}`},
	{max: "5.0", command: `{"collMod":"pre","recordPreImages":true}`},
	{max: "5.0", command: `{"collMod":"pre","index":{"name":"x_1","hidden":true}}`},
	{max: "5.0", command: `{"collMod":"pre","recordPreImages":true}`},
	{max: "5.0", command: `{"collMod":"pre","index":{"name":"e_1","expireAfterSeconds":70}}`},
	{max: "5.0", command: `{"collMod":"pre","recordPreImages":true}`},
	{max: "5.0", command: `{"collMod":"pre"}`},
	{min: "6.0", command: `{"create":"post","changeStreamPreAndPostImages":{"enabled":true}}`},
	{min: "6.0", command: `{"collMod":"post","validator":{"x":1}}`},
	{min: "6.0", command: `{"collMod":"post","recordPreImages":false}`},
	{min: "6.0", command: `{"collMod":"post"}`},
	{min: "6.0", command: `{"collMod":"cap","cappedSize":8192}`},
	{min: "6.0", command: `{"collMod":"cap","cappedMax":100}`},
	{min: "6.0", command: `{"collMod":"cap","cappedSize":5000.5,"cappedMax":7.0}`},
	{min: "6.0", command: `{"collMod":"cap","cappedSize":100}`},
	{min: "6.0", command: `{"collMod":"cap","cappedMax":-1}`},
	{min: "6.0", command: `{"collMod":"cl","expireAfterSeconds":500}`},
	{min: "6.0", command: `{"collMod":"cl","expireAfterSeconds":500.7}`},
	{min: "6.0", command: `{"collMod":"cl","expireAfterSeconds":"off","changeStreamPreAndPostImages":{"enabled":false}}`},
	{min: "6.0", command: `{"collMod":"clf","expireAfterSeconds":5}`},
	{min: "5.0", command: `{"collMod":"ts","timeseries":{"granularity":"hours"}}`},
	{min: "5.0", command: `{"collMod":"ts","expireAfterSeconds":99}`},
	{min: "5.0", command: `{"collMod":"ts","expireAfterSeconds":"off"}`},
	{min: "5.0", command: `{"collMod":"tsn","expireAfterSeconds":"42"}`},
	{min: "5.0", command: `{"createIndexes":"ts","indexes":[{"key":{"m.a":1,"t":-1},"name":"mt"},{"key":{"t":1},"name":"tt"}]}`},
	{min: "6.0", command: `{"createIndexes":"ts","indexes":[{"key":{"x":1,"m":1},"name":"meas"},{"key":{"y":-1.0},"name":"measdown"},{"key":{"m.b":1},"name":"pfi","partialFilterExpression":{"m.b":{"$gt":1}}},{"key":{"loc":"2dsphere"},"name":"geom"}]}`},
	{min: "5.0", command: `{"createIndexes":"ts","indexes":[{"key":{"m.h":"hashed"},"name":"mh"}]}`},
	{min: "5.0", command: `{"createIndexes":"ts","indexes":[{"key":{"m.loc":"2dsphere"},"name":"geo"},{"key":{"m.$**":1},"name":"wild"},{"key":{"t":-1,"m.z":-1,"m":1.0},"name":"tm"}]}`},
	{min: "5.0", command: `{"collMod":"ts","index":{"name":"tt","hidden":true}}`},
	{min: "6.0", command: `{"collMod":"ts","index":{"name":"meas","hidden":true}}`},
	{min: "6.0", command: `{"createIndexes":"system.buckets.ts","indexes":[{"key":{"control.min.q":1,"control.max.q":-1},"name":"odd"}]}`},
	{min: "5.0", command: `{"dropIndexes":"ts","index":"tt"}`},
	{command: `{"dropIndexes":"a","index":"x_1"}`},
	{command: `{"dropIndexes":"a","index":{"loc":"2dsphere"}}`},
	{command: `{"dropIndexes":"a","index":["yx","hash"]}`},
	{command: `{"deleteIndexes":"a","index":{"co":1}}`},
	{command: `{"dropIndexes":"a","index":"*"}`},
	{command: `{"dropIndexes":"cl","index":"*"}`},
	{command: `{"admin":{"renameCollection":"p.a","to":"p.b"}}`},
	{command: `{"insert":"x1","documents":[{"a":1}]}`},
	{command: `{"insert":"x2","documents":[{"a":1}]}`},
	{command: `{"admin":{"renameCollection":"p.x1","to":"p.x2","dropTarget":true}}`},
	{command: `{"createIndexes":"x2","indexes":[{"key":{"a":1},"name":"a_1"}]}`},
	{command: `{"admin":{"renameCollection":"p.x2","to":"q.x2"}}`},
	{command: `{"createIndexes":"big","indexes":[{"key":{"x":1},"name":"x_1"}]}`},
	{command: `{"insert":"big","documents":[{"a":1},{"a":2}]}`},
	{command: `{"convertToCapped":"big","size":5000}`},
	{command: `{"cloneCollectionAsCapped":"b","toCollection":"bc","size":5000}`},
	{command: `{"emptycapped":"big"}`},
	{command: `{"create":"v","viewOn":"b","pipeline":[]}`},
	{command: `{"aggregate":"b","pipeline":[{"$out":"out"}],"cursor":{}}`},
	{command: `{"createIndexes":"out","indexes":[{"key":{"x":1},"name":"x_1"}]}`},
	{command: `{"aggregate":"b","pipeline":[{"$out":"out"}],"cursor":{}}`},
	{command: `{"admin":{"applyOps":[{"op":"c","ns":"p.$cmd","o":{"create":"viaops","capped":false,"collation":{"locale":"fr"}}}]}}`},
	{command: `{"drop":"b"}`},
	{min: "5.0", command: `{"drop":"ts"}`},
	{command: `{"dropDatabase":1}`},
}

// TestCatalogAgainstServer runs DDL of every kind and compares the rows that come out of the oplog with the listing.
func TestCatalogAgainstServer(t *testing.T) {
	for _, version := range []string{harness.Mongo60, harness.Mongo50, harness.Mongo44} {
		t.Run(version, func(t *testing.T) {
			rs := harnesstest.ReplicaSet(t, harness.Options{Version: version, Args: []string{"--setParameter", "enableTestCommands=1"}})
			client, err := rs.Client()
			if err != nil {
				t.Fatal(err)
			}
			g := &golden{rows: map[afterimage.TableID][]byte{}}
			c := &catalogServer{t: t, client: client, version: version, last: newest(t, client)}
			var out strings.Builder
			for _, step := range ddlSteps {
				if step.min > version || step.max != "" && step.max < version {
					continue
				}
				line := goldenStep{Command: step.command, Error: c.run(step.command), Entries: c.entries()}
				rows := c.listing()
				for id, row := range rows {
					if !bytes.Equal(g.rows[id], row) {
						line.Rows = append(line.Rows, goldenRow{ID: id.String(), Row: row})
					}
				}
				slices.SortFunc(line.Rows, func(a, b goldenRow) int { return strings.Compare(a.ID, b.ID) })
				for _, id := range g.ids() {
					if rows[id] == nil {
						line.Dropped = append(line.Dropped, id.String())
					}
				}
				g.step(t, &line)
				if len(rows) != len(g.rows) {
					t.Errorf("%s: %d tables from the log, %d in the server", step.command, len(g.rows), len(rows))
				}
				js, err := bson.MarshalExtJSON(line, true, false)
				if err != nil {
					t.Fatal(err)
				}
				out.Write(append(js, '\n'))
			}
			if *update {
				if err := os.WriteFile(filepath.Join("testdata", "ddl-"+version+".jsonl"), []byte(out.String()), 0o644); err != nil {
					t.Fatal(err)
				}
			}
		})
	}
}

type catalogServer struct {
	t       *testing.T
	client  *mongo.Client
	version string
	last    primitive.Timestamp
}

func newest(t *testing.T, client *mongo.Client) primitive.Timestamp {
	t.Helper()
	e, err := client.Database("local").Collection("oplog.rs").FindOne(t.Context(), bson.D{}, options.FindOne().SetSort(bson.D{{Key: "$natural", Value: -1}})).Raw()
	if err != nil {
		t.Fatal(err)
	}
	var ts primitive.Timestamp
	ts.T, ts.I = e.Lookup("ts").Timestamp()
	return ts
}

func (c *catalogServer) run(command string) string {
	var cmd bson.D
	if err := bson.UnmarshalExtJSON([]byte(command), false, &cmd); err != nil {
		c.t.Fatal(err)
	}
	db := "p"
	if d, ok := cmd[0].Value.(bson.D); ok {
		db, cmd = cmd[0].Key, d
	}
	if err := c.client.Database(db).RunCommand(c.t.Context(), cmd).Err(); err != nil {
		return err.Error()
	}
	return ""
}

// entries returns the commands logged since the last call, those inside applyOps too.
func (c *catalogServer) entries() (out []goldenEntry) {
	cur, err := c.client.Database("local").Collection("oplog.rs").Find(c.t.Context(), bson.D{{Key: "ts", Value: bson.D{{Key: "$gt", Value: c.last}}}}, options.Find().SetSort(bson.D{{Key: "$natural", Value: 1}}))
	if err != nil {
		c.t.Fatal(err)
	}
	for cur.Next(c.t.Context()) {
		var e goldenEntry
		if err := bson.Unmarshal(bytes.Clone(cur.Current), &e); err != nil {
			c.t.Fatal(err)
		}
		c.last.T, c.last.I = cur.Current.Lookup("ts").Timestamp()
		if e.Op != "c" {
			continue
		}
		if ops, err := e.O.LookupErr("applyOps"); err == nil {
			vs, _ := ops.Array().Values()
			for _, v := range vs {
				var inner goldenEntry
				if err := bson.Unmarshal(v.Value, &inner); err != nil {
					c.t.Fatal(err)
				}
				if inner.Op == "c" {
					out = append(out, inner)
				}
			}
			continue
		}
		// The server writes collections of its own after it has started.
		if strings.HasPrefix(e.NS, "p.") || strings.HasPrefix(e.NS, "q.") {
			out = append(out, e)
		}
	}
	return out
}

// listing reads the catalog of databases p and q, by $listCatalog where the server has it, and checks the other listing
// and the indexes of time-series on the way.
func (c *catalogServer) listing() map[afterimage.TableID][]byte {
	ctx := c.t.Context()
	rows := map[afterimage.TableID][]byte{}
	for _, db := range []string{"p", "q"} {
		d := c.client.Database(db)
		infos := c.cursor(d, bson.D{{Key: "listCollections", Value: 1}})
		for _, info := range infos {
			name := info.Lookup("name").StringValue()
			var indexes [][]byte
			if typ := info.Lookup("type").StringValue(); typ == "collection" {
				indexes = rawSlices(c.cursor(d, bson.D{{Key: "listIndexes", Value: name}, {Key: "includeBuildUUIDs", Value: true}}))
			}
			id, row, err := mongodb.CatalogListCollections(db, info, indexes)
			if err != nil {
				c.t.Fatal(err)
			}
			if row == nil {
				continue
			}
			rows[id] = row
			c.checkIndexes(d, row, indexes)
		}
	}
	if c.version < "6.0" {
		return rows
	}
	cur, err := c.client.Database("admin").Aggregate(ctx, mongo.Pipeline{{{Key: "$listCatalog", Value: bson.D{}}}})
	if err != nil {
		c.t.Fatal(err)
	}
	for cur.Next(ctx) {
		if db := cur.Current.Lookup("db").StringValue(); db != "p" && db != "q" {
			continue
		}
		id, row, err := mongodb.CatalogListing(bytes.Clone(cur.Current))
		if err != nil {
			c.t.Fatal(err)
		}
		if row == nil {
			continue
		}
		if a, b := normalRow(c.t, row), normalRow(c.t, rows[id]); a != b {
			c.t.Errorf("the two listings differ: %s", difference(a, b))
		}
		rows[id] = row
	}
	return rows
}

// checkIndexes compares the indexes that a row shows with the server's own listing.
func (c *catalogServer) checkIndexes(d *mongo.Database, row []byte, listed [][]byte) {
	r, err := mongodb.ParseCatalog(row)
	if err != nil {
		c.t.Fatal(err)
	}
	want, got := listed, r.ListedIndexes()
	if r.TimeseriesBuckets {
		want = rawSlices(c.cursor(d, bson.D{{Key: "listIndexes", Value: strings.TrimPrefix(r.Name, "system.buckets.")}}))
		got = nil
		for _, spec := range r.Indexes {
			if s, ok := mongodb.TimeseriesIndex(spec, bson.Raw(r.Options).Lookup("timeseries").Document()); ok {
				got = append(got, s)
			}
		}
	}
	if a, b := normalIndexes(got), normalIndexes(want); a != b {
		c.t.Errorf("indexes of %s: %s", r.Namespace, difference(a, b))
	}
}

func (c *catalogServer) cursor(d *mongo.Database, cmd bson.D) (out []bson.Raw) {
	cur, err := d.RunCommandCursor(context.Background(), cmd)
	if err != nil {
		c.t.Fatal(fmt.Errorf("%v: %w", cmd, err))
	}
	for cur.Next(context.Background()) {
		out = append(out, bytes.Clone(cur.Current))
	}
	return out
}

func rawSlices(docs []bson.Raw) (out [][]byte) {
	for _, d := range docs {
		out = append(out, d)
	}
	return out
}
