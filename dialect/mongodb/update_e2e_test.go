//go:build e2e

package mongodb_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"go.mongodb.org/mongo-driver/bson"
	"go.mongodb.org/mongo-driver/bson/primitive"
	"go.mongodb.org/mongo-driver/mongo"
	"go.mongodb.org/mongo-driver/mongo/options"

	"github.com/afterimagedb/afterimage"
	"github.com/afterimagedb/afterimage/dialect/mongodb"
	"github.com/afterimagedb/afterimage/e2e/harness"
	"github.com/afterimagedb/afterimage/e2e/harness/harnesstest"
)

// Thousands of random updates on a real server; every version of every document that it had must come out of its oplog.
func TestUpdatesAgainstServer(t *testing.T) {
	for _, version := range []string{harness.Mongo60, harness.Mongo50, harness.Mongo44} {
		t.Run(version, func(t *testing.T) {
			rs := harnesstest.ReplicaSet(t, harness.Options{Version: version})
			client, err := rs.Client()
			if err != nil {
				t.Fatal(err)
			}
			seed := uint64(time.Now().UnixNano())
			if s := os.Getenv("AFTERIMAGE_SEED"); s != "" && s != "0" {
				if seed, err = strconv.ParseUint(s, 10, 64); err != nil {
					t.Fatal(err)
				}
			}
			t.Logf("seed %d", seed)
			w := &writer{t: t, coll: client.Database("d").Collection("c"), r: rand.New(rand.NewPCG(seed, 1)), seen: map[string][]bson.Raw{}, version: version}
			for range 6000 {
				w.step()
			}
			w.checkOplog(client)
		})
	}
}

type writer struct {
	t       *testing.T
	coll    *mongo.Collection
	r       *rand.Rand
	version string
	seen    map[string][]bson.Raw // every version of a document, by the JSON of its _id
	log     []string
	failed  int
	capture strings.Builder // before, logged, after: for testdata
}

func (w *writer) pick(s ...string) string { return s[w.r.IntN(len(s))] }

// name is a field name: few ones, so that updates meet, and names that look like the marks of a diff.
func (w *writer) name() string {
	return w.pick("a", "b", "c", "u", "d", "i", "l", "s", "sa", "u0", "s1", "0", "1", "9", "10", "diff", "$v"[1:], "xyz", "Z")
}

func (w *writer) path() string {
	p := w.name()
	for w.r.IntN(5) < 3 {
		p += "." + w.pick(w.name(), "0", "1", "2", "3", "7")
	}
	return p
}

func (w *writer) value(depth int) any {
	n := w.r.IntN(16)
	if depth > 3 && n < 6 {
		n += 6
	}
	switch n {
	case 0, 1, 2:
		d := bson.D{}
		used := map[string]bool{}
		for range w.r.IntN(5) {
			k := w.name()
			if !used[k] {
				used[k] = true
				d = append(d, bson.E{Key: k, Value: w.value(depth + 1)})
			}
		}
		return d
	case 3, 4, 5:
		a := bson.A{}
		for range w.r.IntN(6) {
			a = append(a, w.value(depth+1))
		}
		return a
	case 6:
		return w.r.Int32N(10)
	case 7:
		return w.r.Int64()
	case 8:
		return w.r.Float64()
	case 9:
		return w.pick("", "x", "long enough to matter", "\x00")
	case 10:
		return nil
	case 11:
		return primitive.NewDecimal128(0x3040000000000000, w.r.Uint64N(100))
	case 12:
		return primitive.Binary{Subtype: byte(w.r.IntN(3)), Data: make([]byte, w.r.IntN(4))}
	case 13:
		return primitive.Regex{Pattern: "a", Options: "i"}
	case 14:
		return primitive.Timestamp{T: 5, I: w.r.Uint32N(4) + 1}
	}
	return w.r.IntN(2) == 0
}

// raw is a document that no driver makes: an array with odd names. Two things are left out because a server's own
// members differ there: a name twice (the primary changes the first, secondaries apply the logged diff to both), and a
// value of the same size put into such an array (the primary overwrites it in place, secondaries number the array anew).
func (w *writer) raw() bson.Raw {
	odd := bson.D{{Key: "7", Value: 1}, {Key: "x", Value: bson.D{{Key: "a", Value: 1}}}, {Key: "0", Value: "z"}}
	b, _ := bson.Marshal(bson.D{{Key: "arr", Value: odd}, {Key: "b", Value: 2}})
	b[4] = 0x04
	return b
}

func (w *writer) array() any {
	a := bson.A{}
	for range 1 + w.r.IntN(5) {
		a = append(a, w.value(2))
	}
	return a
}

func (w *writer) update() any {
	p := w.path()
	switch w.r.IntN(22) {
	case 0, 1, 2, 3:
		d := bson.D{}
		for range 1 + w.r.IntN(4) {
			d = append(d, bson.E{Key: w.path(), Value: w.value(0)})
		}
		u := bson.D{{Key: "$set", Value: d}}
		if w.r.IntN(3) == 0 {
			u = append(u, bson.E{Key: "$unset", Value: bson.D{{Key: w.path(), Value: 1}, {Key: w.path(), Value: 1}}})
		}
		return u
	case 4:
		return bson.D{{Key: "$unset", Value: bson.D{{Key: p, Value: 1}, {Key: w.path(), Value: 1}}}}
	case 5:
		return bson.D{{Key: "$inc", Value: bson.D{{Key: p, Value: 1}}}}
	case 6:
		return bson.D{{Key: "$mul", Value: bson.D{{Key: p, Value: 2.5}}}}
	case 7:
		return bson.D{{Key: w.pick("$min", "$max"), Value: bson.D{{Key: p, Value: w.value(0)}}}}
	case 8:
		return bson.D{{Key: "$rename", Value: bson.D{{Key: w.name(), Value: w.name() + ".r"}}}}
	case 9:
		return bson.D{{Key: "$push", Value: bson.D{{Key: p, Value: bson.D{
			{Key: "$each", Value: w.array()},
			{Key: "$position", Value: w.r.IntN(5) - 2},
			{Key: "$slice", Value: w.r.IntN(12) - 6},
		}}}}}
	case 10:
		return bson.D{{Key: "$push", Value: bson.D{{Key: p, Value: bson.D{{Key: "$each", Value: w.array()}, {Key: "$sort", Value: 1}}}}}}
	case 11:
		return bson.D{{Key: "$pull", Value: bson.D{{Key: p, Value: w.value(3)}}}}
	case 12:
		return bson.D{{Key: "$pop", Value: bson.D{{Key: p, Value: 1 - 2*w.r.IntN(2)}}}}
	case 13:
		return bson.D{{Key: "$addToSet", Value: bson.D{{Key: p, Value: bson.D{{Key: "$each", Value: w.array()}}}}}}
	case 14:
		return bson.D{{Key: "$bit", Value: bson.D{{Key: p, Value: bson.D{{Key: "xor", Value: 5}}}}}}
	case 15:
		return bson.D{{Key: "$currentDate", Value: bson.D{{Key: p, Value: true}}}}
	case 16:
		return bson.D{{Key: "$set", Value: bson.D{{Key: w.name() + ".$[]", Value: w.value(0)}}}}
	case 17:
		return mongo.Pipeline{{{Key: "$set", Value: bson.D{{Key: w.name(), Value: bson.D{{Key: "$literal", Value: w.value(0)}}}, {Key: w.path(), Value: bson.D{{Key: "$literal", Value: w.value(1)}}}}}}}
	case 18:
		return mongo.Pipeline{{{Key: "$unset", Value: bson.A{w.name(), "new"}}}, {{Key: "$set", Value: bson.D{{Key: "x.y", Value: "$$ROOT.a"}}}}}
	case 19:
		return mongo.Pipeline{{{Key: "$replaceWith", Value: bson.D{{Key: "$mergeObjects", Value: bson.A{
			bson.D{{Key: "$literal", Value: w.document()}}, "$$ROOT",
		}}}}}}
	case 20:
		return mongo.Pipeline{{{Key: "$replaceWith", Value: bson.D{{Key: "$mergeObjects", Value: bson.A{
			"$$ROOT", bson.D{{Key: "$literal", Value: w.document()}},
		}}}}}}
	}
	if w.version == harness.Mongo44 {
		return w.document()
	}
	return mongo.Pipeline{{{Key: "$replaceWith", Value: bson.D{{Key: "$setField", Value: bson.D{
		{Key: "field", Value: bson.D{{Key: "$literal", Value: w.pick("", "a.b", "$x", "s", "$v", "u.0")}}},
		{Key: "input", Value: "$$ROOT"},
		{Key: "value", Value: w.value(0)},
	}}}}}}
}

func (w *writer) document() bson.D {
	d := bson.D{}
	used := map[string]bool{}
	for range w.r.IntN(14) {
		if k := w.name(); !used[k] {
			used[k] = true
			d = append(d, bson.E{Key: k, Value: w.value(0)})
		}
	}
	return d
}

func (w *writer) step() {
	ctx := context.Background()
	id := int32(w.r.IntN(40))
	filter := bson.D{{Key: "_id", Value: id}}
	var err error
	what := ""
	switch n := w.r.IntN(100); {
	case n < 3:
		what = "delete"
		_, err = w.coll.DeleteOne(ctx, filter)
	case n < 6:
		var doc any = w.raw()
		what = "insert"
		raw, _ := bson.Marshal(bson.D{{Key: "_id", Value: id}})
		body := append(append([]byte{}, raw[:len(raw)-1]...), doc.(bson.Raw)[4:]...)
		body[0], body[1], body[2], body[3] = byte(len(body)), byte(len(body)>>8), 0, 0
		_, err = w.coll.InsertOne(ctx, bson.Raw(body))
	case n < 9:
		what = "update odd"
		_, err = w.coll.UpdateOne(ctx, filter, bson.D{{Key: "$set", Value: bson.D{{Key: w.pick("arr.0", "arr.2", "arr.5", "arr.1.a", "b"), Value: strings.Repeat("y", 20+len(w.log))}}}})
	case n < 18:
		doc := append(w.document(), bson.E{Key: "_id", Value: id})
		w.r.Shuffle(len(doc), func(i, j int) { doc[i], doc[j] = doc[j], doc[i] })
		what = fmt.Sprintf("replace %v", doc)
		_, err = w.coll.ReplaceOne(ctx, filter, doc, options.Replace().SetUpsert(true))
	default:
		u := w.update()
		what = fmt.Sprintf("update %v", u)
		if d, ok := u.(bson.D); ok && (len(d) == 0 || d[0].Key == "" || d[0].Key[0] != '$') {
			_, err = w.coll.ReplaceOne(ctx, filter, u)
		} else {
			_, err = w.coll.UpdateOne(ctx, filter, u)
		}
	}
	if err != nil {
		w.failed++
	}
	w.note(id, what)
}

func key(id any) string { return fmt.Sprint(id) }

// note remembers the version that the document has now, if it is another one.
func (w *writer) note(id int32, what string) {
	doc, err := w.coll.FindOne(context.Background(), bson.D{{Key: "_id", Value: id}}).Raw()
	if err != nil && !errors.Is(err, mongo.ErrNoDocuments) {
		w.t.Fatal(err)
	}
	k := key(id)
	if v := w.seen[k]; len(v) == 0 && doc == nil || len(v) > 0 && bytes.Equal(v[len(v)-1], doc) {
		return
	}
	w.seen[k] = append(w.seen[k], bytes.Clone(doc))
	w.log = append(w.log, k+": "+what)
}

// checkOplog folds what the server logged and compares each version with what was seen.
func (w *writer) checkOplog(client *mongo.Client) {
	ctx := context.Background()
	cur, err := client.Database("local").Collection("oplog.rs").Find(ctx, bson.D{{Key: "ns", Value: "d.c"}}, options.Find().SetSort(bson.D{{Key: "$natural", Value: 1}}))
	if err != nil {
		w.t.Fatal(err)
	}
	folders := map[string]func(c *afterimage.Change) (body []byte, err error){}
	kinds, versions, bad := map[string]int{}, 0, 0
	last := map[string][]byte{}
	for cur.Next(ctx) {
		e := cur.Current
		o, op := e.Lookup("o").Document(), e.Lookup("op").StringValue()
		idOf := o
		c := &afterimage.Change{Time: 1, Body: o}
		switch op {
		case "i":
			c.Op = afterimage.OpInsert
		case "d":
			c.Op = afterimage.OpDelete
		case "u":
			idOf = e.Lookup("o2").Document()
			if c.Op = mongodb.UpdateOp(o); c.Op == afterimage.OpPut {
				c.Body = mongodb.ReplacementDocument(nil, o)
			}
		}
		v := "-"
		if x, err := o.LookupErr("$v"); err == nil {
			v = x.String()
		}
		kinds[op+" "+c.Op.String()+" $v "+v]++
		k := key(idOf.Lookup("_id").Int32())
		if folders[k] == nil {
			f := mongodb.New().NewFolder()
			f.Reset(afterimage.TableID{1}, nil)
			folders[k] = func(c *afterimage.Change) ([]byte, error) {
				if err := f.Apply(c); err != nil {
					return nil, err
				}
				s, err := f.State()
				return s.Body, err
			}
		}
		before := bytes.Clone(last[k])
		body, err := folders[k](c)
		if err != nil {
			w.t.Fatalf("document %s: %v: %s", k, err, o)
		}
		if op == "u" && len(before)+len(o) < 700 {
			fmt.Fprintf(&w.capture, "%x %x %x\n", before, []byte(o), body)
		}
		if bytes.Equal(body, last[k]) {
			continue
		}
		last[k] = bytes.Clone(body)
		if len(w.seen[k]) == 0 {
			w.t.Fatalf("document %s: the log has more versions than were seen", k)
		}
		want := w.seen[k][0]
		w.seen[k] = w.seen[k][1:]
		versions++
		if !bytes.Equal(body, want) {
			if bad++; bad <= 5 {
				w.t.Errorf("document %s\nbefore %s\nlogged %s\nget    %s\nwant   %s", k, bson.Raw(before), o, bson.Raw(body), want)
			}
			// Go on from the truth.
			if _, err := folders[k](&afterimage.Change{Op: afterimage.OpPut, Body: want}); err != nil {
				w.t.Fatal(err)
			}
			last[k] = want
		}
	}
	if err := cur.Err(); err != nil {
		w.t.Fatal(err)
	}
	if *update && !w.t.Failed() {
		lines := strings.SplitAfterN(w.capture.String(), "\n", 161)
		if err := os.WriteFile("testdata/updates-"+w.version+".txt", []byte(strings.Join(lines[:len(lines)-1], "")), 0o644); err != nil {
			w.t.Fatal(err)
		}
	}
	for k, v := range w.seen {
		if len(v) > 0 {
			w.t.Errorf("document %s: %d versions are not in the log", k, len(v))
		}
	}
	w.t.Logf("%d versions compared, %d wrong; %d updates refused by the server; %v", versions, bad, w.failed, kinds)
}
