//go:build e2e

package mongodb

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"sort"
	"strings"
	"testing"
	"time"

	"go.mongodb.org/mongo-driver/bson"
	"go.mongodb.org/mongo-driver/mongo"
	"go.mongodb.org/mongo-driver/mongo/options"

	"github.com/afterimagedb/afterimage"
	"github.com/afterimagedb/afterimage/dialect/mongodb"
	"github.com/afterimagedb/afterimage/e2e/harness"
)

// server starts a fresh one-member target; "" for the pinned version.
func server(t *testing.T, o harness.Options) (uri string, client *mongo.Client) {
	t.Helper()
	o.TTLMonitorOff = true
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	rs, err := harness.StartReplicaSet(ctx, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := rs.Stop(); err != nil {
			t.Error(err)
		}
	})
	uri = rs.URI()
	client, err = mongo.Connect(ctx, options.Client().ApplyURI(uri))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = client.Disconnect(context.Background()) })
	return uri, client
}

func command1(t *testing.T, c *mongo.Client, db string, cmd any) bson.Raw {
	t.Helper()
	raw, err := c.Database(db).RunCommand(context.Background(), cmd).Raw()
	if err != nil {
		t.Fatalf("%s: %v", db, err)
	}
	return raw
}

func ext(t testing.TB, s string) bson.Raw {
	t.Helper()
	var d bson.Raw
	if err := bson.UnmarshalExtJSON([]byte(s), false, &d); err != nil {
		t.Fatalf("%s: %v", s, err)
	}
	return d
}

// read takes the state of databases as a source, through the same catalog rows that the listener makes.
func read(t *testing.T, c *mongo.Client, dbs ...string) *memory {
	t.Helper()
	m := newMemory()
	ctx := context.Background()
	for _, db := range dbs {
		cur, err := c.Database(db).ListCollections(ctx, bson.D{})
		if err != nil {
			t.Fatal(err)
		}
		for cur.Next(ctx) {
			info := bytes.Clone(cur.Current)
			name := cur.Current.Lookup("name").StringValue()
			if cur.Current.Lookup("type").StringValue() != "collection" {
				continue
			}
			id, row, err := mongodb.CatalogListCollections(db, info, listIndexes(t, c, db, name))
			if err != nil {
				t.Fatal(err)
			}
			m.add(t, id, row, documents(t, c, db, name)...)
		}
	}
	return m
}

func listIndexes(t *testing.T, c *mongo.Client, db, name string) (specs [][]byte) {
	t.Helper()
	batch := command1(t, c, db, bson.D{{Key: "listIndexes", Value: name}}).Lookup("cursor", "firstBatch").Array()
	values, err := batch.Values()
	if err != nil {
		t.Fatal(err)
	}
	for _, v := range values {
		specs = append(specs, v.Document())
	}
	return specs
}

func documents(t *testing.T, c *mongo.Client, db, name string) (docs [][]byte) {
	t.Helper()
	cur, err := c.Database(db).RunCommandCursor(context.Background(), bson.D{
		{Key: "find", Value: name}, {Key: "hint", Value: bson.D{{Key: "$natural", Value: 1}}},
	})
	if err != nil {
		t.Fatal(err)
	}
	for cur.Next(context.Background()) {
		docs = append(docs, bytes.Clone(cur.Current))
	}
	if err := cur.Err(); err != nil {
		t.Fatal(err)
	}
	return docs
}

// equal fails the test for each difference between two states. name maps namespaces of want to those of got.
func equal(t *testing.T, want, got *memory, name func(string) string) {
	t.Helper()
	have := map[string]int{}
	for i, x := range got.list {
		have[x.Namespace] = i
	}
	for _, w := range want.list {
		ns := name(w.Namespace)
		i, ok := have[ns]
		if !ok {
			t.Errorf("%s is missing", ns)
			continue
		}
		delete(have, ns)
		a, _ := mongodb.ParseCatalog(w.Row)
		b, _ := mongodb.ParseCatalog(got.list[i].Row)
		if !bytes.Equal(a.Options, b.Options) {
			t.Errorf("%s: options\n%s, restored\n%s", ns, jsonOf(a.Options), jsonOf(b.Options))
		}
		if x, y := specs(a.Indexes), specs(b.Indexes); x != y {
			t.Errorf("%s: indexes\n%s, restored\n%s", ns, x, y)
		}
		same(t, ns, want.rows[w.Namespace], got.rows[ns], w.Ordered)
	}
	for ns := range have {
		if !strings.HasSuffix(ns, ".system.views") {
			t.Errorf("%s should not be there", ns)
		}
	}
}

// specs prints index specifications; their order counts.
func specs(list [][]byte) string {
	var out []string
	for _, s := range list {
		out = append(out, jsonOf(s))
	}
	return strings.Join(out, "\n")
}

func same(t *testing.T, ns string, want, got []memoryRow, ordered bool) {
	t.Helper()
	if ns == "" || strings.HasSuffix(ns, ".system.views") {
		return
	}
	if len(want) != len(got) {
		t.Errorf("%s: %d documents, restored %d", ns, len(want), len(got))
		return
	}
	if !ordered {
		sort.SliceStable(want, func(i, j int) bool { return bytes.Compare(want[i].key, want[j].key) < 0 })
		sort.SliceStable(got, func(i, j int) bool { return bytes.Compare(got[i].key, got[j].key) < 0 })
	}
	for i := range want {
		if !bytes.Equal(want[i].body, got[i].body) {
			t.Errorf("%s: document %s\n%x, restored\n%x", ns, idText(want[i].body), clip(want[i].body), clip(got[i].body))
			return
		}
	}
}

func clip(b []byte) []byte { return b[:min(len(b), 300)] }

func itself(ns string) string { return ns }

func at() afterimage.Time { return afterimage.MongoTime(1_795_000_000, 7) }

// versions of servers to run a test on; the older ones only where `make deps` could fetch them.
func versions(t *testing.T) []string {
	t.Helper()
	list := []string{harness.Mongo60}
	for _, v := range []string{harness.Mongo50, harness.Mongo44} {
		p, err := harness.Mongod(v)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := p.Path(); err == nil || os.Getenv("CI") != "" {
			list = append(list, v)
		}
	}
	return list
}

func major(v string) int {
	var n int
	if _, err := fmt.Sscanf(v, "%d", &n); err != nil {
		return 0
	}
	return n
}

func clientOptions(uri string) *options.ClientOptions { return options.Client().ApplyURI(uri) }

func credential(user, password, source string) options.Credential {
	return options.Credential{Username: user, Password: password, AuthSource: source}
}
