//go:build e2e

package mongodb_test

import (
	"testing"

	"go.mongodb.org/mongo-driver/bson"
	"go.mongodb.org/mongo-driver/mongo"
	"pgregory.net/rapid"

	"github.com/afterimagedb/afterimage/dialect/mongodb"
	"github.com/afterimagedb/afterimage/e2e/harness"
	"github.com/afterimagedb/afterimage/e2e/harness/harnesstest"
)

// TestKeysAgainstServer inserts random _ids: the server refuses one exactly when we have its key already.
func TestKeysAgainstServer(t *testing.T) {
	rs := harnesstest.ReplicaSet(t, harness.Options{})
	client, err := rs.Client()
	if err != nil {
		t.Fatal(err)
	}
	coll := client.Database("d").Collection("c")
	have := map[string]bson.RawValue{}
	refused := 0
	rapid.Check(t, func(rt *rapid.T) {
		for range 40 {
			id := drawValue(rt, 1)
			if id.Type == bson.TypeArray || id.Type == bson.TypeRegex || id.Type == bson.TypeUndefined || rapid.Bool().Draw(rt, "nest") {
				id = marshal(bson.D{{Key: "v", Value: id}})
			}
			doc := bson.D{{Key: "_id", Value: id}}
			raw, err := bson.Marshal(doc)
			if err != nil {
				rt.Fatal(err)
			}
			key, err := mongodb.AppendDocKey(nil, raw)
			if err != nil {
				rt.Fatal(err)
			}
			_, err = coll.InsertOne(t.Context(), bson.Raw(raw))
			if err != nil && !mongo.IsDuplicateKeyError(err) {
				continue // not an _id to this server
			}
			known, ok := have[string(key)]
			if (err != nil) != ok {
				t.Fatalf("_id %v: the server says %v; our key is that of %v (%v)", id, err, known, ok)
			}
			if ok {
				refused++
			}
			have[string(key)] = id
		}
	})
	t.Logf("%d _ids taken, %d refused", len(have), refused)
	if refused < 200 || len(have) < 200 {
		t.Error("too few of one kind")
	}
}
