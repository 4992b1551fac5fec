//go:build e2e

package oplog_test

import (
	"bytes"
	"context"
	"flag"
	"fmt"
	"os"
	"testing"
	"time"

	"go.mongodb.org/mongo-driver/bson"
	"go.mongodb.org/mongo-driver/bson/primitive"
	"go.mongodb.org/mongo-driver/mongo"
	"go.mongodb.org/mongo-driver/mongo/options"

	"github.com/afterimagedb/afterimage/e2e/harness"
	"github.com/afterimagedb/afterimage/listeners/mongodb/oplog"
)

var capture = flag.Bool("capture", false, "write testdata/*.bson from the real servers' entries")

// TestRealEntries lets a real server of each version log every kind of entry and decodes them. With -capture the entries
// become the golden ones.
func TestRealEntries(t *testing.T) {
	for _, version := range []string{harness.Mongo60, harness.Mongo50, harness.Mongo44} {
		t.Run(version, func(t *testing.T) {
			if _, err := harness.Mongod(version); err != nil {
				if version == harness.Mongo60 {
					t.Fatal(err)
				}
				t.Skip(err)
			}
			entries := realEntries(t, version)
			d := oplog.NewDecoder(oplog.Options{})
			for _, e := range entries {
				if err := d.Add(e); err != nil {
					t.Fatal(err)
				}
				for d.Pending() {
					if err := d.Continue(); err != nil {
						t.Fatal(err)
					}
				}
			}
			for _, n := range d.Notes() {
				t.Errorf("not understood: %s", n.Reason)
			}
			if n := d.OpenTransactions(); n != 1 {
				t.Errorf("%d open transactions, want 1: the prepared one that is left", n)
			}
			if *capture {
				if err := os.WriteFile("testdata/oplog-"+version+".bson", bytes.Join(entries, nil), 0o644); err != nil {
					t.Fatal(err)
				}
			}
		})
	}
}

// script runs commands and remembers the first failure.
type script struct {
	ctx    context.Context
	client *mongo.Client
	err    error
}

func (s *script) run(db string, cmd any) {
	if s.err == nil {
		if err := s.client.Database(db).RunCommand(s.ctx, cmd).Err(); err != nil {
			s.err = fmt.Errorf("%v: %w", cmd, err)
		}
	}
}

// must runs a command given as extended JSON.
func (s *script) must(db, json string) {
	var cmd bson.D
	if err := bson.UnmarshalExtJSON([]byte(json), false, &cmd); err != nil {
		panic(json + ": " + err.Error())
	}
	s.run(db, cmd)
}

func realEntries(t *testing.T, version string) [][]byte {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	rs, err := harness.StartReplicaSet(ctx, harness.Options{Version: version, Args: []string{
		"--setParameter", "enableTestCommands=1", "--setParameter", "maxNumberOfTransactionOperationsInSingleOplogEntry=2",
	}})
	if err != nil {
		t.Fatal(err)
	}
	defer rs.Stop() //nolint:errcheck // the test is over
	client, err := rs.Client()
	if err != nil {
		t.Fatal(err)
	}
	log := client.Database("local").Collection("oplog.rs")
	var start struct{ TS primitive.Timestamp }
	if err := log.FindOne(ctx, bson.D{}, options.FindOne().SetSort(bson.D{{Key: "$natural", Value: -1}})).Decode(&start); err != nil {
		t.Fatal(err)
	}
	s := &script{ctx: ctx, client: client}
	plainWrites(s)
	ddl(s, version)
	transactions(s)
	if s.err != nil {
		t.Fatal(s.err)
	}
	cur, err := log.Find(ctx, bson.D{{Key: "ts", Value: bson.D{{Key: "$gt", Value: start.TS}}}})
	if err != nil {
		t.Fatal(err)
	}
	var entries [][]byte
	for cur.Next(ctx) {
		entries = append(entries, bytes.Clone(cur.Current))
	}
	if err := cur.Err(); err != nil {
		t.Fatal(err)
	}
	return entries
}

func plainWrites(s *script) {
	s.must("g", `{"insert":"a","documents":[{"_id":1,"x":1},{"_id":2.5},{"_id":"three"},{"_id":{"k":[1]}},{"x":"no id"}]}`)
	s.must("g", `{"update":"a","updates":[{"q":{"_id":1},"u":{"$set":{"x":2,"y.z":1}}},{"q":{"_id":1},"u":{"$unset":{"x":1},"$push":{"l":7}}}]}`)
	s.must("g", `{"update":"a","updates":[{"q":{"_id":2.5},"u":{"b":2,"a":1}}]}`)
	s.must("g", `{"update":"a","updates":[{"q":{"_id":99},"u":{"$set":{"up":1}},"upsert":true}]}`)
	s.must("g", `{"update":"a","updates":[{"q":{},"u":[{"$set":{"all":"$_id"}}],"multi":true}]}`)
	s.must("g", `{"findAndModify":"a","query":{"_id":1},"update":{"$inc":{"n":1}}}`)
	s.must("g", `{"delete":"a","deletes":[{"q":{"_id":{"$numberLong":"1"}},"limit":1}]}`)
	s.must("g", `{"applyOps":[{"op":"i","ns":"g.a","o":{"_id":500}},{"op":"u","ns":"g.a","o2":{"_id":500},"o":{"$set":{"q":1}}},{"op":"d","ns":"g.a","o":{"_id":99}}]}`)
	s.must("g", `{"applyOps":[{"op":"c","ns":"g.$cmd","o":{"create":"byapply"}},{"op":"n","ns":"","o":{}}]}`)
	s.must("admin", `{"appendOplogNote":1,"data":{"note":1}}`)
}

func ddl(s *script, version string) {
	s.must("g", `{"createIndexes":"a","indexes":[{"key":{"x":1},"name":"x_1"},{"key":{"y":1},"name":"y_1"}]}`)
	s.must("g", `{"createIndexes":"empty","indexes":[{"key":{"k":1},"name":"k_1","unique":true}]}`)
	s.must("g", `{"collMod":"a","validator":{"_id":{"$exists":true}}}`)
	s.must("g", `{"collMod":"a","index":{"name":"y_1","hidden":true}}`)
	s.must("g", `{"dropIndexes":"a","index":"y_1"}`)
	s.must("g", `{"dropIndexes":"a","index":"*"}`)
	s.must("g", `{"create":"capped","capped":true,"size":4096,"max":2}`)
	s.must("g", `{"insert":"capped","documents":[{"_id":1},{"_id":2},{"_id":3},{"_id":4}]}`)
	s.must("g", `{"create":"german","collation":{"locale":"de"}}`)
	s.must("g", `{"create":"view","viewOn":"a","pipeline":[]}`)
	s.must("g", `{"collMod":"view","viewOn":"a","pipeline":[{"$match":{"x":1}}]}`)
	s.must("g", `{"drop":"view"}`)
	s.must("admin", `{"renameCollection":"g.a","to":"g.b"}`)
	s.must("admin", `{"renameCollection":"g.german","to":"g.b","dropTarget":true}`)
	s.must("g", `{"insert":"b","documents":[{"_id":"x"}]}`)
	s.must("g", `{"aggregate":"b","pipeline":[{"$out":"out"}],"cursor":{}}`)
	s.must("g", `{"aggregate":"b","pipeline":[{"$out":"out"}],"cursor":{}}`)
	s.must("admin", `{"renameCollection":"g.out","to":"h.out"}`)
	s.must("g", `{"convertToCapped":"b","size":8192}`)
	s.must("g", `{"cloneCollectionAsCapped":"b","toCollection":"clone","size":8192}`)
	s.must("h", `{"dropDatabase":1}`)
	s.must("g", `{"createUser":"u","pwd":"secret","roles":["readWrite"]}`)
	s.must("g", `{"insert":"system.js","documents":[{"_id":"f","value":{"$code":"function(){}"}}]}`)
	if version == harness.Mongo44 {
		return
	}
	s.must("g", `{"create":"ts","timeseries":{"timeField":"t","metaField":"m"}}`)
	s.must("g", `{"insert":"ts","documents":[{"t":{"$date":"2026-01-01T00:00:00Z"},"m":1,"v":2.5}]}`)
	s.must("g", `{"collMod":"ts","timeseries":{"granularity":"minutes"}}`)
	if version == harness.Mongo50 {
		return
	}
	s.must("g", `{"create":"clustered","clusteredIndex":{"key":{"_id":1},"unique":true}}`)
	s.must("g", `{"insert":"clustered","documents":[{"_id":1}]}`)
	s.must("g", `{"collMod":"clustered","changeStreamPreAndPostImages":{"enabled":true}}`)
	s.must("g", `{"update":"clustered","updates":[{"q":{"_id":1},"u":{"$set":{"a":1}}}]}`)
	s.must("g", `{"delete":"clustered","deletes":[{"q":{"_id":1},"limit":1}]}`)
}

// end is how a transaction of a script ends.
type end int

const (
	commit end = iota
	abort
	prepareCommit
	prepareAbort
	prepareLeave
)

// transaction runs commands in one.
func (s *script) transaction(how end, cmds ...string) {
	if s.err != nil {
		return
	}
	sess, err := s.client.StartSession()
	if err != nil {
		s.err = err
		return
	}
	if how != prepareLeave {
		defer sess.EndSession(context.Background())
	}
	if s.err = sess.StartTransaction(); s.err != nil {
		return
	}
	in := &script{ctx: mongo.NewSessionContext(s.ctx, sess), client: s.client}
	for _, c := range cmds {
		in.must("g", c)
	}
	if s.err = in.err; s.err != nil {
		return
	}
	switch how {
	case commit:
		s.err = sess.CommitTransaction(in.ctx)
		return
	case abort:
		s.err = sess.AbortTransaction(in.ctx)
		return
	default: // prepared first
	}
	var reply struct{ PrepareTimestamp primitive.Timestamp }
	prepare := bson.D{{Key: "prepareTransaction", Value: 1}, {Key: "writeConcern", Value: bson.D{{Key: "w", Value: "majority"}}}}
	if s.err = s.client.Database("admin").RunCommand(in.ctx, prepare).Decode(&reply); s.err != nil {
		return
	}
	// What others write meanwhile gets a ts between prepare and commit.
	s.must("g", fmt.Sprintf(`{"insert":"between","documents":[{"n":%d}]}`, how))
	switch how {
	case prepareCommit:
		in.run("admin", bson.D{{Key: "commitTransaction", Value: 1}, {Key: "commitTimestamp", Value: reply.PrepareTimestamp}})
	case prepareAbort:
		in.run("admin", bson.D{{Key: "abortTransaction", Value: 1}})
	default: // left open
	}
	if s.err == nil {
		s.err = in.err
	}
}

func transactions(s *script) {
	s.must("g", `{"insert":"t","documents":[{"_id":1},{"_id":2}]}`)
	insert := func(id int) string {
		return fmt.Sprintf(`{"insert":"t","documents":[{"_id":%d},{"_id":%d}]}`, id, id+1)
	}
	update := `{"update":"t","updates":[{"q":{"_id":1},"u":{"$inc":{"n":1}}}]}`
	remove := `{"delete":"t","deletes":[{"q":{"_id":2},"limit":1}]}`
	s.transaction(commit, update, remove)
	s.transaction(commit, insert(10), update, insert(20))
	s.transaction(commit, `{"create":"made"}`, `{"insert":"made","documents":[{"_id":1}]}`)
	s.transaction(abort, insert(30))
	s.transaction(prepareCommit, insert(40))
	s.transaction(prepareCommit, insert(50), update, insert(60))
	s.transaction(prepareAbort, insert(70))
	s.transaction(prepareAbort, insert(80), insert(90))
	s.transaction(prepareLeave, insert(95))
}
