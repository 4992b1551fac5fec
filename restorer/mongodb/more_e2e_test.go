//go:build e2e

package mongodb

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"runtime"
	"strings"
	"testing"
	"time"

	"go.mongodb.org/mongo-driver/bson"
	"go.mongodb.org/mongo-driver/mongo"

	"github.com/afterimagedb/afterimage"
	"github.com/afterimagedb/afterimage/dialect/mongodb"
	"github.com/afterimagedb/afterimage/e2e/harness"
	"github.com/afterimagedb/afterimage/restorer"
)

// bulk makes documents of about 400 bytes; some need an exact fix.
func bulk(n int) [][]byte {
	docs := make([][]byte, 0, n)
	for i := range n {
		d := withID(int32(i)).str("text", strings.Repeat("abcdefgh", 40)).i64("n", int64(i)*7919)
		if i%97 == 0 {
			d = d.value("when", typeTimestamp, make([]byte, 8))
		}
		docs = append(docs, d.end())
	}
	return docs
}

// cappedTable puts a capped collection into m.
func cappedTable(t *testing.T, m *memory, ns string, docs [][]byte) {
	row := mongodb.CatalogRow{
		Namespace: ns, Type: "collection", Options: newDocument().flag("capped", true).i32("size", 64<<20).end(),
		Indexes: [][]byte{idIndex()},
	}
	m.add(t, afterimage.TableID{0: 8, 15: byte(len(m.list) + 1)}, row.Append(nil), docs...)
}

func TestRestoreInterruptedGoesOn(t *testing.T) {
	uri, client := server(t, harness.Options{})
	m := newMemory()
	m.table(t, "big.docs", bulk(60_000)...)
	capped := bulk(30_000)
	rand.New(rand.NewPCG(1, 2)).Shuffle(len(capped), func(i, j int) { capped[i], capped[j] = capped[j], capped[i] })
	cappedTable(t, m, "big.cap", capped)
	o := Options{URI: uri, Source: m, At: at(), StateDir: t.TempDir(), Workers: 3}
	resumed := 0
	var rep restorer.Report
	for try := 0; ; try++ {
		if try > 60 {
			t.Fatal("the restore does not come to an end")
		}
		ctx, cancel := context.WithCancel(context.Background())
		stop := try * 9_000 // rows that may be read of each table before the end
		m.at = func(_ string, n int) {
			if n >= stop {
				cancel()
			}
		}
		var err error
		rep, err = Restore(ctx, o)
		cancel()
		if rep.Resumed {
			resumed++
		}
		if err == nil {
			break
		}
		if !errors.Is(err, context.Canceled) {
			t.Fatalf("run %d: %v", try, err)
		}
		settle(t, client)
	}
	if resumed < 3 {
		t.Errorf("%d runs went on with an earlier one", resumed)
	}
	m.at = nil
	equal(t, m, read(t, client, "big"), itself)
	if rep.Documents != 90_000 {
		t.Errorf("report says %d documents", rep.Documents)
	}
	if left, _ := os.ReadDir(o.StateDir); len(left) != 0 {
		t.Errorf("the journal is still there: %v", left)
	}
}

func TestResumeDoesNotTouchAnotherCollection(t *testing.T) {
	uri, client := server(t, harness.Options{})
	m := newMemory()
	m.table(t, "big.docs", bulk(20_000)...)
	o := Options{URI: uri, Source: m, At: at(), StateDir: t.TempDir(), Overwrite: true}
	ctx, cancel := context.WithCancel(context.Background())
	m.at = func(_ string, n int) {
		if n > 15_000 {
			cancel()
		}
	}
	if _, err := Restore(ctx, o); err == nil {
		t.Fatal("the first run was not interrupted")
	}
	m.at = nil
	settle(t, client)
	command1(t, client, "big", ext(t, `{"drop":"docs"}`))
	command1(t, client, "big", ext(t, `{"insert":"docs","documents":[{"_id":"new"}]}`))
	_, err := Restore(context.Background(), o)
	if _, ok := errors.AsType[*afterimage.UsageError](err); !ok {
		t.Fatalf("a collection made by someone else was not refused: %v", err)
	}
	if got := documents(t, client, "big", "docs"); len(got) != 1 {
		t.Errorf("the other collection was touched: %d documents", len(got))
	}
}

func TestVerifySeesDamage(t *testing.T) {
	uri, client := server(t, harness.Options{})
	damage := map[string]struct{ cmd, want string }{
		"changed": {`{"update":"docs","updates":[{"q":{"_id":5},"u":{"$set":{"n":{"$numberInt":"1"}}}}]}`, "differs"},
		"extra":   {`{"insert":"docs","documents":[{"_id":"extra"}]}`, "not in the source"},
	}
	for name, d := range damage {
		t.Run(name, func(t *testing.T) {
			m := newMemory()
			m.table(t, "d"+name+".docs", bulk(3000)...)
			o := Options{URI: uri, Source: m, At: at(), Progress: func(p restorer.Progress) {
				if p.Phase == "verify" {
					command1(t, client, "d"+name, ext(t, d.cmd))
				}
			}}
			rep, err := Restore(context.Background(), o)
			var ve *restorer.VerifyError
			if !errors.As(err, &ve) || !strings.Contains(err.Error(), d.want) || rep.Namespaces[0].Verified {
				t.Errorf("err %v, report %+v", err, rep.Namespaces)
			}
		})
	}
	t.Run("lost", func(t *testing.T) { // as after a fail-over that rolled writes back
		m := newMemory()
		m.table(t, "dlost.docs", bulk(3000)...)
		o := Options{URI: uri, Source: m, At: at(), Progress: func(p restorer.Progress) {
			if p.Phase == "verify" {
				command1(t, client, "dlost", ext(t, `{"delete":"docs","deletes":[{"q":{"_id":{"$lt":200}},"limit":0}]}`))
				command1(t, client, "dlost", ext(t, `{"update":"docs","updates":[{"q":{"_id":970},"u":{"$set":{"when":{"$timestamp":{"t":0,"i":1}}}}}]}`))
			}
		}}
		if rep, err := Restore(context.Background(), o); err != nil || !rep.Namespaces[0].Verified {
			t.Errorf("what was lost was not written again: %v %+v", err, rep.Namespaces)
		}
		equal(t, m, read(t, client, "dlost"), itself)
	})
}

func TestRestoreChosenDocuments(t *testing.T) {
	for _, o := range []harness.Options{{}, {Standalone: true}, {Version: harness.Mongo44}} {
		t.Run(fmt.Sprintf("%s%v", o.Version, o.Standalone), func(t *testing.T) { chosenDocuments(t, o) })
	}
}

func chosenDocuments(t *testing.T, o harness.Options) {
	uri, client := server(t, o)
	ctx := context.Background()
	zero := make([]byte, 8)
	m := newMemory()
	m.table(t, "shop.docs",
		withID(1).i32("a", 1).end(),
		withID(2).value("t", typeTimestamp, zero).i32("b", 1).end(),
		withID(3).value("", typeTimestamp, zero).i32("x", 1).end(),
		newDocument().value("_id", typeDouble, []byte{0, 0, 0, 0, 0, 0, 0x10, 0x40}).i32("four", 4).end(), // 4.0
		withID(5).i32("gone", 1).end(),
		newDocument().str("_id", "6").i32("text", 1).end(),
		withID(7).i32("same", 1).end(),
	)
	command1(t, client, "shop", ext(t, `{"create":"docs","validator":{"never":1}}`))
	command1(t, client, "shop", ext(t, `{"insert":"docs","bypassDocumentValidation":true,"documents":[{"_id":1,"a":{"$numberLong":"1"}},{"_id":2,"b":1},
		{"_id":3,"z":1},{"_id":4,"four":4},{"_id":7,"same":1},{"_id":8,"later":1},{"_id":9,"other":1}]}`))
	only := &Documents{Namespace: "shop.docs"}
	for _, text := range []string{"1", "2", "3", "4", "5", "6", "7", "8", "99"} {
		id, err := ParseID(text)
		if err != nil {
			t.Fatal(err)
		}
		only.IDs = append(only.IDs, id)
	}
	opts := Options{URI: uri, Source: m, At: at(), Only: only}
	rep, err := Restore(ctx, opts)
	var exists *restorer.ExistsError
	if !errors.As(err, &exists) || len(exists.Documents) != 5 || len(rep.Changes) != 9 {
		t.Fatalf("err %v, changes %+v", err, rep.Changes)
	}
	if n := len(documents(t, client, "shop", "docs")); n != 7 {
		t.Fatalf("a refused restore wrote: %d documents", n)
	}
	opts.Overwrite = true
	if rep, err = Restore(ctx, opts); err != nil {
		t.Fatalf("%v %+v", err, rep)
	}
	var actions []string
	for _, c := range rep.Changes {
		actions = append(actions, c.Action)
	}
	if got := strings.Join(actions, " "); got != "replace replace replace replace insert insert none delete none" {
		t.Errorf("actions %s", got)
	}
	if rep.Documents != 7 || !rep.Namespaces[0].Verified {
		t.Errorf("report %+v", rep.Namespaces)
	}
	want := newMemory()
	bodies := [][]byte{ext(t, `{"_id":9,"other":1}`)}
	for _, r := range m.rows["shop.docs"] {
		bodies = append(bodies, r.body)
	}
	want.table(t, "shop.docs", bodies...)
	same(t, "shop.docs", want.rows["shop.docs"], read(t, client, "shop").rows["shop.docs"], false)
	if rep, err = Restore(ctx, opts); err != nil || rep.Documents != 0 {
		t.Errorf("the second time: %v, %d documents", err, rep.Documents)
	}
	opts.Rename = restorer.Rules{{From: "shop.*", To: "side.*"}}
	if rep, err = Restore(ctx, opts); err != nil || rep.Documents != 7 || len(documents(t, client, "side", "docs")) != 7 {
		t.Errorf("beside: %v, %d documents", err, rep.Documents)
	}
}

func TestRestoreUsers(t *testing.T) {
	_, src := server(t, harness.Options{})
	command1(t, src, "admin", ext(t, `{"createUser":"root","pwd":"x","roles":["root"]}`))
	command1(t, src, "shop", ext(t, `{"createRole":"clerk","privileges":[{"resource":{"db":"shop","collection":""},"actions":["find"]}],"roles":[]}`))
	command1(t, src, "shop", ext(t, `{"createUser":"ann","pwd":"secret","roles":["clerk"]}`))
	want := newMemory()
	for _, x := range read(t, src, "admin").list {
		if isAuth(x.Namespace) {
			want.add(t, x.ID, x.Row, documents(t, src, "admin", strings.TrimPrefix(x.Namespace, "admin."))...)
		}
	}
	uri, dst := server(t, harness.Options{})
	ctx := context.Background()
	if rep, err := Restore(ctx, Options{URI: uri, Source: want, At: at()}); err != nil || len(rep.Namespaces) != 0 {
		t.Errorf("users came without being asked for: %v %+v", err, rep.Namespaces)
	}
	if _, err := Restore(ctx, Options{URI: uri, Source: want, At: at(), Users: true}); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"system.users", "system.roles"} {
		got := newMemory()
		got.table(t, "admin."+name, documents(t, dst, "admin", name)...)
		same(t, name, want.rows["admin."+name], got.rows["admin."+name], false)
	}
	client, err := mongo.Connect(ctx, clientOptions(uri).SetAuth(credential("ann", "secret", "shop")))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = client.Disconnect(ctx) }()
	if err := client.Database("shop").RunCommand(ctx, bson.D{{Key: "ping", Value: 1}}).Err(); err != nil {
		t.Errorf("the restored user can't log in: %v", err)
	}
	command1(t, dst, "shop", ext(t, `{"updateUser":"ann","pwd":"other"}`))
	_, err = Restore(ctx, Options{URI: uri, Source: want, At: at(), Users: true})
	var exists *restorer.ExistsError
	if !errors.As(err, &exists) || len(exists.Namespaces) != 1 {
		t.Errorf("a changed user was not named: %v", err)
	}
	if _, err = Restore(ctx, Options{URI: uri, Source: want, At: at(), Users: true, Overwrite: true}); err != nil {
		t.Error(err)
	}
}

func TestRestoreOverwriteMaskRateDryRun(t *testing.T) {
	uri, client := server(t, harness.Options{})
	ctx := context.Background()
	m := newMemory()
	m.table(t, "shop.a", bulk(2000)...)
	m.table(t, "shop.b", withID(1).str("mail", "ann@example.test").end(), withID(2).end())
	command1(t, client, "shop", ext(t, `{"insert":"a","documents":[{"_id":"old"}]}`))
	command1(t, client, "shop", ext(t, `{"insert":"c","documents":[{"_id":"keep"}]}`))
	o := Options{
		URI: uri, Source: m, At: at(), Overwrite: true, DryRun: true, BytesPerSecond: 8 << 20,
		Masks: []Mask{{Namespace: "shop.b", Path: "mail", How: MaskNull}},
	}
	rep, err := Restore(ctx, o)
	if err != nil || len(rep.Namespaces) != 2 || !rep.Namespaces[0].Replaces || rep.Namespaces[1].Replaces {
		t.Fatalf("plan: %v %+v", err, rep)
	}
	if got := documents(t, client, "shop", "a"); len(got) != 1 {
		t.Fatalf("a dry run wrote")
	}
	o.DryRun = false
	if rep, err = Restore(ctx, o); err != nil {
		t.Fatalf("%v %+v", err, rep)
	}
	got := read(t, client, "shop")
	same(t, "shop.a", m.rows["shop.a"], got.rows["shop.a"], false)
	if !bytes.Equal(got.rows["shop.b"][0].body, withID(1).value("mail", 0x0A, nil).end()) {
		t.Errorf("masked: %s", jsonOf(got.rows["shop.b"][0].body))
	}
	if len(got.rows["shop.c"]) != 1 {
		t.Error("a collection that is not restored was touched")
	}
}

func TestRestoreReportsWhatCannotBe(t *testing.T) {
	uri, client := server(t, harness.Options{})
	m := newMemory()
	row := mongodb.CatalogRow{Namespace: "bad.docs", Type: "collection", Options: newDocument().end()}
	row.Indexes = [][]byte{
		ext(t, `{"v":2,"key":{"_id":1},"name":"_id_"}`), ext(t, `{"v":2,"key":{"x":1},"name":"x","unique":true}`),
		ext(t, `{"v":2,"key":{"y":1},"name":"y","legacy":1}`), ext(t, `{"v":2,"key":{"z":1},"name":"z"}`),
	}
	m.add(t, afterimage.TableID{1}, row.Append(nil), withID(1).i32("x", 1).end(), withID(2).i32("x", 1).end())
	rep, err := Restore(context.Background(), Options{URI: uri, Source: m, At: at()})
	var ve *restorer.VerifyError
	if !errors.As(err, &ve) || len(ve.Problems) != 1 || !strings.Contains(ve.Problems[0], `"x"`) {
		t.Errorf("err %v", err)
	}
	if n := rep.Namespaces[0]; n.Indexes != 2 || len(rep.Warnings) != 1 || len(listIndexes(t, client, "bad", "docs")) != 3 {
		t.Errorf("report %+v", rep)
	}
}

// settle waits until the server has ended what an interrupted restore sent: an insert would make a collection anew.
func settle(t *testing.T, c *mongo.Client) {
	t.Helper()
	end := time.Now().Add(30 * time.Second)
	for {
		reply := command1(t, c, "admin", ext(t, `{"currentOp":1,"appName":"afterimage restore",
			"command.hello":{"$exists":false},"command.isMaster":{"$exists":false},"command.ismaster":{"$exists":false}}`))
		if list := reply.Lookup("inprog").Array(); len(list) <= 5 {
			return
		}
		if time.Now().After(end) {
			t.Fatal("inserts do not end")
		}
		runtime.Gosched()
	}
}

// TestRestoreThroughFailOver kills the primary of the target in the middle, twice.
func TestRestoreThroughFailOver(t *testing.T) {
	ctx, cancel := context.WithTimeout(context.Background(), 4*time.Minute)
	defer cancel()
	rs, err := harness.StartReplicaSet(ctx, harness.Options{Members: 3, TTLMonitorOff: true})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := rs.Stop(); err != nil {
			t.Error(err)
		}
	}()
	m := newMemory()
	m.table(t, "big.docs", bulk(60_000)...)
	cappedTable(t, m, "big.cap", bulk(20_000))
	m.at = func(ns string, n int) {
		if ns != "big.docs" || n != 20_000 && n != 45_000 {
			return
		}
		p, err := rs.WaitPrimary(ctx)
		if err == nil {
			err = p.Kill()
		}
		if err == nil {
			_, err = rs.WaitPrimary(ctx)
		}
		if err == nil {
			err = p.Restart(ctx)
		}
		if err != nil {
			t.Error(err)
		}
	}
	rep, err := Restore(ctx, Options{URI: rs.URI(), Source: m, At: at()})
	if err != nil {
		t.Fatalf("%v %+v", err, rep)
	}
	m.at = nil
	client, err := mongo.Connect(ctx, clientOptions(rs.URI()))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = client.Disconnect(context.Background()) }()
	equal(t, m, read(t, client, "big"), itself)
}
