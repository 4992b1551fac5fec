//go:build e2e

package format

import (
	"context"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.mongodb.org/mongo-driver/bson"
	"go.mongodb.org/mongo-driver/bson/primitive"
	"go.mongodb.org/mongo-driver/mongo"

	"github.com/afterimagedb/afterimage/dialect"
	"github.com/afterimagedb/afterimage/dialect/mongodb"
	"github.com/afterimagedb/afterimage/e2e/harness"
	"github.com/afterimagedb/afterimage/e2e/harness/harnesstest"
	"github.com/afterimagedb/afterimage/snapshotter/format"
	bsondump "github.com/afterimagedb/afterimage/snapshotter/format/bson"
	"github.com/afterimagedb/afterimage/snapshotter/format/jsonl"
)

// liveSource reads a server that stands still.
type liveSource struct{ client *mongo.Client }

func (s liveSource) Tables(ctx context.Context) ([]dialect.Table, error) {
	cur, err := s.client.Database("admin").Aggregate(ctx, mongo.Pipeline{{{Key: "$listCatalog", Value: bson.D{}}}})
	if err != nil {
		return nil, err
	}
	defer func() { _ = cur.Close(ctx) }()
	var out []dialect.Table
	for cur.Next(ctx) {
		id, row, err := mongodb.CatalogListing(cur.Current)
		if err != nil {
			return nil, err
		}
		if row == nil {
			continue
		}
		t, err := mongodb.New().Table(id, row)
		if err != nil {
			return nil, err
		}
		if db, name, _ := strings.Cut(t.Namespace, "."); db != "local" && db != "config" && name != "system.version" && name != "system.keys" {
			out = append(out, t)
		}
	}
	return out, cur.Err()
}

func (s liveSource) Rows(ctx context.Context, t dialect.Table) (format.Rows, error) {
	db, name, _ := strings.Cut(t.Namespace, ".")
	cur, err := s.client.Database(db).Collection(name).Find(ctx, bson.D{})
	return liveRows{ctx, cur}, err
}

type liveRows struct {
	ctx context.Context //nolint:containedctx // of one walk
	*mongo.Cursor
}

func (r liveRows) Next() bool   { return r.Cursor.Next(r.ctx) }
func (r liveRows) Body() []byte { return r.Current }
func (r liveRows) Close() error { return r.Cursor.Close(r.ctx) }

// populate makes one of each kind of thing. Database odd holds what mongorestore itself is known to change.
func populate(t *testing.T, c *mongo.Client) {
	t.Helper()
	ctx := t.Context()
	run := func(db, command string) {
		t.Helper()
		var cmd bson.D
		if err := bson.UnmarshalExtJSON([]byte(command), false, &cmd); err != nil {
			t.Fatalf("%s: %v", command, err)
		}
		if err := c.Database(db).RunCommand(ctx, cmd).Err(); err != nil {
			t.Fatalf("%s: %v", command, err)
		}
	}
	long := strings.Repeat("long/näme ", 15) + "end"
	for _, command := range []string{
		`{"create":"items","validator":{"n":{"$gte":0}},"validationLevel":"moderate","collation":{"locale":"de"}}`,
		`{"insert":"items","documents":[{"_id":2,"n":1},{"_id":{"$numberLong":"1"},"n":2.5,"tags":["a",null,{"x":{"$minKey":1}}]},{"_id":"a","n":7,"at":{"$date":"2026-01-02T03:04:05Z"},"d":{"$numberDecimal":"1.50"}}]}`,
		`{"createIndexes":"items","indexes":[{"key":{"n":1,"a.b":-1},"name":"n_1","unique":true,"sparse":true},{"key":{"t":"text"},"name":"text","weights":{"t":3},"collation":{"locale":"simple"}},{"key":{"at":1},"name":"ttl","expireAfterSeconds":99999999},{"key":{"$**":1},"name":"wild"},{"key":{"n":"hashed"},"name":"hash","collation":{"locale":"simple"}},{"key":{"p":1},"name":"part","partialFilterExpression":{"n":{"$gt":5}}}]}`,
		`{"create":"cap","capped":true,"size":8192,"max":3}`,
		`{"insert":"cap","documents":[{"_id":5},{"_id":4},{"_id":3},{"_id":9},{"_id":1}]}`,
		`{"create":"clustered","clusteredIndex":{"key":{"_id":1},"unique":true,"name":"by id"}}`,
		`{"insert":"clustered","documents":[{"_id":1}]}`,
		`{"create":"empty"}`,
		`{"create":"odd name/% +ü","storageEngine":{"wiredTiger":{"configString":"block_compressor=zlib"}}}`,
		`{"insert":"odd name/% +ü","documents":[{"_id":1}]}`,
		`{"create":"cheap","viewOn":"items","pipeline":[{"$match":{"n":{"$lt":3}}}],"collation":{"locale":"fr"}}`,
		`{"create":"weather","timeseries":{"timeField":"t","metaField":"m","granularity":"minutes"},"expireAfterSeconds":99999999}`,
		`{"insert":"weather","documents":[{"t":{"$date":"2026-01-02T03:04:05Z"},"m":{"s":1},"c":20.5},{"t":{"$date":"2026-01-02T03:05:05Z"},"m":{"s":1},"c":21.5},{"t":{"$date":"2026-01-02T03:05:05Z"},"m":{"s":2},"c":1}]}`,
		`{"createIndexes":"weather","indexes":[{"key":{"m.s":1,"t":-1},"name":"st"},{"key":{"c":1},"name":"measurement"}]}`,
		`{"create":"warmest","viewOn":"weather","pipeline":[{"$sort":{"c":-1}}]}`,
		`{"create":"system.js"}`,
		`{"insert":"system.js","documents":[{"_id":"f","value":{"$code":"function(){}"}}]}`,
		`{"createRole":"reader","privileges":[{"resource":{"db":"shop","collection":""},"actions":["find"]}],"roles":[]}`,
		`{"createUser":"bob","pwd":"secret","roles":["reader"]}`,
	} {
		run("shop", command)
	}
	run("odd", `{"insert":"odd","documents":[{"_id":1,"b":{"$binary":{"base64":"","subType":"02"}}}]}`)
	run("long", `{"insert":"`+long+`","documents":[{"_id":1}]}`)
	run("odd", `{"insert":"odd","documents":[{"_id":2}]}`)
	run("odd", `{"update":"odd","updates":[{"q":{"_id":2},"u":[{"$set":{"t":{"$literal":{"$timestamp":{"t":0,"i":0}}}}}]}]}`)
	var many []any
	for i := range 5000 {
		many = append(many, bson.D{{Key: "_id", Value: i}, {Key: "x", Value: strings.Repeat("x", i%900)}})
	}
	if _, err := c.Database("shop").Collection("many").InsertMany(ctx, many); err != nil {
		t.Fatal(err)
	}
}

func TestMongorestoreTakesWhatWeWrite(t *testing.T) {
	rs := harnesstest.ReplicaSet(t, harness.Options{TTLMonitorOff: true})
	client, err := rs.Client()
	if err != nil {
		t.Fatal(err)
	}
	populate(t, client)
	judge := harnesstest.Judge(t)
	record := filepath.Join(t.TempDir(), "record.jsonl")
	if _, err := judge.RecordTruth(t.Context(), rs.URI(), primitive.Timestamp{}, record); err != nil {
		t.Fatal(err)
	}
	src := liveSource{client}
	for _, form := range []struct {
		name string
		zip  bool
	}{{"directory", false}, {"directory", true}, {"archive", false}, {"archive", true}} {
		name, args := form.name, []string{}
		o := bsondump.Options{Gzip: form.zip, Workers: 2, ServerVersion: "6.0.5"}
		if form.zip {
			name, args = name+" gzip", append(args, "--gzip")
		}
		t.Run(name, func(t *testing.T) {
			out := filepath.Join(t.TempDir(), "dump")
			var sum *format.Summary
			var err error
			if form.name == "archive" {
				sum, err = bsondump.WriteArchive(t.Context(), out, src, o)
				args = append(args, "--archive="+out)
			} else {
				sum, err = bsondump.WriteDirectory(t.Context(), out, src, o)
				args = append(args, "--dir="+out)
			}
			if err != nil || sum.Count < 5000 {
				t.Fatalf("%+v, %v", sum, err)
			}
			if form.name == "directory" {
				// Every byte is in the folder; the judge does not know the file names of long collections.
				wantSame(t, judge, out, record, "--ignore", "long")
			}
			target := harnesstest.Target(t, "")
			mongorestore(t, target.URI(), args...)
			wantSame(t, judge, target.URI(), record, "--ignore", "odd")
		})
	}
}

func wantSame(t *testing.T, judge *harness.Judge, target, record string, args ...string) {
	t.Helper()
	if diffs, ok, err := judge.Verify(t.Context(), target, record, "", args...); err != nil || !ok {
		t.Errorf("%s: %v\n%s", target, err, diffs)
	}
}

func mongorestore(t *testing.T, uri string, args ...string) {
	t.Helper()
	program, err := harness.Mongorestore.Path()
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	out, err := exec.CommandContext(ctx, program, append([]string{"--uri=" + uri, "--drop"}, args...)...).CombinedOutput()
	if err != nil {
		t.Fatalf("mongorestore: %v\n%s", err, out)
	}
	t.Logf("mongorestore:\n%s", out)
}

// TestMongodumpWritesTheSame: the metadata files are those of the real mongodump.
func TestMongodumpWritesTheSame(t *testing.T) {
	rs := harnesstest.ReplicaSet(t, harness.Options{TTLMonitorOff: true})
	client, err := rs.Client()
	if err != nil {
		t.Fatal(err)
	}
	populate(t, client)
	program, err := harness.Mongodump.Path()
	if err != nil {
		t.Fatal(err)
	}
	theirs, ours := filepath.Join(t.TempDir(), "theirs"), filepath.Join(t.TempDir(), "ours")
	if out, err := exec.CommandContext(t.Context(), program, "--uri="+rs.URI(), "--out="+theirs).CombinedOutput(); err != nil {
		t.Fatalf("mongodump: %v\n%s", err, out)
	}
	if _, err := bsondump.WriteDirectory(t.Context(), ours, liveSource{client}, bsondump.Options{}); err != nil {
		t.Fatal(err)
	}
	compareFolders(t, theirs, ours)
	if _, err := jsonl.WriteDirectory(t.Context(), ours+".jsonl", liveSource{client}, jsonl.Options{}); err != nil {
		t.Fatal(err)
	}
}
