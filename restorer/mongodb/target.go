package mongodb

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/cenkalti/backoff/v5"
	"go.mongodb.org/mongo-driver/bson"
	"go.mongodb.org/mongo-driver/bson/primitive"
	"go.mongodb.org/mongo-driver/mongo"
	"go.mongodb.org/mongo-driver/mongo/options"

	"github.com/afterimagedb/afterimage"
)

// retryMax bounds how long a write is tried again while the target has no primary or can't be reached.
const retryMax = 3 * time.Minute

// target is the server that is written to.
type target struct {
	client *mongo.Client
	name   string // replica set and members, or the host of a standalone
	set    bool   // a replica set
	major  int
}

type hello struct {
	SetName string   `bson:"setName"`
	Hosts   []string `bson:"hosts"`
	Msg     string   `bson:"msg"`
	Primary bool     `bson:"isWritablePrimary"`
	Master  bool     `bson:"ismaster"`
}

func connect(ctx context.Context, uri string) (*target, error) {
	opts := options.Client().ApplyURI(uri).SetAppName("afterimage restore").SetMaxPoolSize(200)
	if err := opts.Validate(); err != nil {
		return nil, afterimage.Usagef("target: %s", hidden(err))
	}
	client, err := mongo.Connect(ctx, opts)
	if err != nil {
		return nil, fmt.Errorf("connect to the target: %s", hidden(err))
	}
	t := &target{client: client}
	if err := t.identify(ctx, opts.Hosts); err != nil {
		t.close(ctx)
		return nil, err
	}
	return t, nil
}

func (t *target) identify(ctx context.Context, hosts []string) error {
	var h hello
	if err := t.client.Database("admin").RunCommand(ctx, bson.D{{Key: "isMaster", Value: 1}}).Decode(&h); err != nil {
		return fmt.Errorf("target %s: %s", strings.Join(hosts, ","), hidden(err))
	}
	if h.Msg == "isdbgrid" {
		return afterimage.Usagef("target %s is a mongos: restore to a replica set or a standalone server", strings.Join(hosts, ","))
	}
	if !h.Primary && !h.Master {
		return afterimage.Usagef("target %s is not a primary: leave out directConnection, or name the primary", strings.Join(hosts, ","))
	}
	t.set, t.name = h.SetName != "", strings.Join(hosts, ",")
	if t.set {
		t.name = h.SetName + "/" + strings.Join(h.Hosts, ",")
	}
	var b struct {
		Version []int32 `bson:"versionArray"`
	}
	if err := t.client.Database("admin").RunCommand(ctx, bson.D{{Key: "buildInfo", Value: 1}}).Decode(&b); err != nil {
		return fmt.Errorf("target %s: version: %w", t.name, err)
	}
	if len(b.Version) > 0 {
		t.major = int(b.Version[0])
	}
	return nil
}

func (t *target) close(ctx context.Context) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
	defer cancel()
	// Nothing is left to lose when closing fails.
	_ = t.client.Disconnect(ctx)
}

var secret = regexp.MustCompile(`//[^/@\s]*@`)

// hidden is the text of an error without user names and passwords of a URI.
func hidden(err error) string { return secret.ReplaceAllString(err.Error(), "//") }

// run sends one command, again and again while the target has no primary.
func (t *target) run(ctx context.Context, db string, cmd bson.Raw) (bson.Raw, error) {
	return backoff.Retry(ctx, func() (bson.Raw, error) {
		raw, err := t.client.Database(db).RunCommand(ctx, cmd).Raw()
		if err != nil && !transient(err) {
			return raw, backoff.Permanent(err)
		}
		return raw, err
	}, patience()...)
}

// patience retries soon at first and every two seconds later, as a fail-over takes seconds.
func patience() []backoff.RetryOption {
	b := backoff.NewExponentialBackOff()
	b.InitialInterval, b.MaxInterval = 100*time.Millisecond, 2*time.Second
	return []backoff.RetryOption{backoff.WithBackOff(b), backoff.WithMaxElapsedTime(retryMax)}
}

// transient says whether a command may succeed when it is sent again.
func transient(err error) bool {
	if errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		return false
	}
	if mongo.IsNetworkError(err) || mongo.IsTimeout(err) {
		return true
	}
	return hasCode(err, transientCodes...)
}

// transientCodes: interrupted, no or another primary, shutting down, network, time limit, conflict.
var transientCodes = []int{11600, 11602, 10107, 13435, 13436, 189, 91, 7, 6, 89, 9001, 262, 112, 24}

// applyOps sends operations as the oplog writes them; the server applies them more literally than commands.
func (t *target) applyOps(ctx context.Context, ops ...[]byte) error {
	cmd := newDocument().array("applyOps", ops...).flag("bypassDocumentValidation", true).written("majority").end()
	if _, err := t.run(ctx, "admin", cmd); err != nil {
		return fmt.Errorf("applyOps: %w", err)
	}
	return nil
}

func opInsert(ns string, doc []byte) []byte {
	return newDocument().str("op", "i").str("ns", ns).doc("o", doc).end()
}

func opCommand(db string, o []byte) []byte {
	return newDocument().str("op", "c").str("ns", db+".$cmd").doc("o", o).end()
}

// found is a collection or view of the target.
type found struct {
	name, typ string
	uuid      string
	options   bson.Raw
}

// collections lists a database of the target; only one name when name is not empty.
func (t *target) collections(ctx context.Context, db, name string) (map[string]found, error) {
	filter := bson.D{}
	if name != "" {
		filter = bson.D{{Key: "name", Value: name}}
	}
	cur, err := t.client.Database(db).ListCollections(ctx, filter)
	if err != nil {
		return nil, fmt.Errorf("list the collections of %s: %w", db, err)
	}
	defer func() { _ = cur.Close(context.WithoutCancel(ctx)) }()
	out := map[string]found{}
	for cur.Next(ctx) {
		var row struct {
			Name    string   `bson:"name"`
			Type    string   `bson:"type"`
			Options bson.Raw `bson:"options"`
			Info    struct {
				UUID primitive.Binary `bson:"uuid"`
			} `bson:"info"`
		}
		if err := cur.Decode(&row); err != nil {
			return nil, fmt.Errorf("list the collections of %s: %w", db, err)
		}
		out[row.Name] = found{name: row.Name, typ: row.Type, uuid: fmt.Sprintf("%x", row.Info.UUID.Data), options: row.Options}
	}
	return out, cur.Err()
}

// get returns the document with that _id, nil when there is none.
func (t *target) get(ctx context.Context, db, coll string, typ byte, id []byte) (bson.Raw, error) {
	return t.find(ctx, db, coll, newCommand("find", coll).doc("filter", byID(typ, id)))
}

// getMajority is get, of what a majority of the members has after everything written so far.
func (t *target) getMajority(ctx context.Context, db, coll string, id bson.RawValue) (bson.Raw, error) {
	cmd, err := t.majority(ctx, newCommand("find", coll).doc("filter", byID(byte(id.Type), id.Value)))
	if err != nil {
		return nil, err
	}
	return t.find(ctx, db, coll, cmd)
}

// majority makes a read wait until a majority of the members has all that was written so far.
func (t *target) majority(ctx context.Context, cmd command) (command, error) {
	if !t.set {
		return cmd, nil
	}
	ping, err := t.run(ctx, "admin", newDocument().i32("ping", 1).end())
	if err != nil {
		return nil, fmt.Errorf("read back: %w", err)
	}
	concern := newDocument().str("level", "majority")
	if at := ping.Lookup("operationTime"); at.Type == bson.TypeTimestamp {
		concern = concern.value("afterClusterTime", typeTimestamp, at.Value)
	}
	return cmd.doc("readConcern", concern.end()), nil
}

func (t *target) find(ctx context.Context, db, coll string, cmd command) (bson.Raw, error) {
	reply, err := t.run(ctx, db, cmd.i32("limit", 1).flag("singleBatch", true).end())
	if err != nil {
		return nil, fmt.Errorf("read %s.%s: %w", db, coll, err)
	}
	batch, ok := reply.Lookup("cursor", "firstBatch").ArrayOK()
	if !ok {
		return nil, fmt.Errorf("read %s.%s: the server's reply has no batch", db, coll)
	}
	e, ok := lookup(batch, "0")
	if !ok {
		return nil, nil
	}
	return bson.Raw(batch[e.value:e.end]), nil
}

func splitNamespace(ns string) (db, coll string) {
	db, coll, _ = strings.Cut(ns, ".")
	return db, coll
}

// Error codes of the server.
const (
	codeBadValue          = 2
	codeNamespaceNotFound = 26
	codeInvalidOptions    = 72
	codeCappedClustered   = 6049200 // create refuses what convertToCapped makes of a clustered collection
	codeDuplicateKey      = 11000
	codeUnknownField      = 40415
)

func hasCode(err error, codes ...int) bool {
	var se mongo.ServerError
	if !errors.As(err, &se) {
		return false
	}
	return slices.ContainsFunc(codes, se.HasErrorCode)
}
