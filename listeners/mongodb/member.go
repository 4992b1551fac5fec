package mongodb

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"time"

	"go.mongodb.org/mongo-driver/bson"
	"go.mongodb.org/mongo-driver/bson/primitive"
	"go.mongodb.org/mongo-driver/mongo"
	"go.mongodb.org/mongo-driver/mongo/options"
	"go.mongodb.org/mongo-driver/mongo/readconcern"
	"go.mongodb.org/mongo-driver/mongo/readpref"

	"github.com/afterimagedb/afterimage"
)

// helloTimeout bounds how long a member may take to say who it is.
const helloTimeout = 5 * time.Second

// staleSeconds is how far behind the freshest member a secondary may be to be read from.
const staleSeconds = 10

// Identity is who a replica set is.
type Identity struct {
	Lane        string // the set's name
	Incarnation string // its id in hex: a set initiated anew under the same name is another one
}

// Identify asks the replica set at uri who it is.
func Identify(ctx context.Context, uri string) (Identity, error) {
	client, err := dial(ctx, uri, "")
	if err != nil {
		return Identity{}, err
	}
	defer disconnect(ctx, client)
	h, err := hello(ctx, client)
	if err != nil {
		return Identity{}, fmt.Errorf("ask the server who it is: %w", err)
	}
	return identify(ctx, client, h)
}

// identify reads the identity through any member.
func identify(ctx context.Context, client *mongo.Client, h helloReply) (Identity, error) {
	if h.SetName == "" {
		if h.Msg == "isdbgrid" {
			return Identity{}, afterimage.Usagef("the server is a mongos: give the uri of a replica set")
		}
		return Identity{}, afterimage.Usagef("the server is not a member of a replica set, so it keeps no oplog: start mongod with --replSet NAME and run rs.initiate() once")
	}
	var doc struct {
		Settings struct {
			ID primitive.ObjectID `bson:"replicaSetId"`
		} `bson:"settings"`
	}
	err := client.Database("local").Collection("system.replset").FindOne(ctx, bson.D{{Key: "_id", Value: h.SetName}}).Decode(&doc)
	if err != nil {
		return Identity{}, fmt.Errorf("read the configuration of replica set %s: %w", h.SetName, err)
	}
	return Identity{Lane: h.SetName, Incarnation: hex.EncodeToString(doc.Settings.ID[:])}, nil
}

type helloReply struct {
	SetName        string   `bson:"setName"`
	Msg            string   `bson:"msg"`
	Primary        bool     `bson:"isWritablePrimary"`
	Master         bool     `bson:"ismaster"`
	Secondary      bool     `bson:"secondary"`
	MaxWireVersion int      `bson:"maxWireVersion"`
	Hosts          []string `bson:"hosts"`
	Passives       []string `bson:"passives"`
	LastWrite      struct {
		Op struct {
			TS primitive.Timestamp `bson:"ts"`
		} `bson:"opTime"`
		Majority struct {
			TS primitive.Timestamp `bson:"ts"`
		} `bson:"majorityOpTime"`
	} `bson:"lastWrite"`
}

// majority is the newest time that this member knows a majority to have.
func (h *helloReply) majority() afterimage.Time {
	return afterimage.MongoTime(h.LastWrite.Majority.TS.T, h.LastWrite.Majority.TS.I)
}

func hello(ctx context.Context, client *mongo.Client) (helloReply, error) {
	ctx, cancel := context.WithTimeout(ctx, helloTimeout)
	defer cancel()
	var h helloReply
	// isMaster is known to every version; hello to newer ones only.
	err := client.Database("admin").RunCommand(ctx, bson.D{{Key: "isMaster", Value: 1}}, anyMember()).Decode(&h)
	h.Primary = h.Primary || h.Master
	return h, err
}

// anyMember lets a command run on a secondary.
func anyMember() *options.RunCmdOptions {
	return options.RunCmd().SetReadPreference(readpref.Nearest())
}

// dial connects to the set, or to one host of it.
func dial(ctx context.Context, uri, host string) (*mongo.Client, error) {
	o := options.Client().ApplyURI(uri)
	if err := o.Validate(); err != nil {
		return nil, afterimage.Usagef("the mongodb uri is not valid: %w", err)
	}
	o.SetReadPreference(readpref.SecondaryPreferred()).SetReadConcern(readconcern.Majority()).SetAppName("afterimage")
	if o.ServerSelectionTimeout == nil {
		o.SetServerSelectionTimeout(helloTimeout)
	}
	if host != "" {
		o.SetHosts([]string{host}).SetDirect(true)
	}
	client, err := mongo.Connect(ctx, o)
	if err != nil {
		return nil, fmt.Errorf("connect to mongodb: %w", err)
	}
	return client, nil
}

// disconnect closes a client, whether ctx has ended or not.
func disconnect(ctx context.Context, client *mongo.Client) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), helloTimeout)
	defer cancel()
	_ = client.Disconnect(ctx) // the session is over either way
}

// member is the node that a session reads from.
type member struct {
	client *mongo.Client
	host   string // "" when the uri says to connect directly
	hello  helloReply
	id     Identity
	of     int // members that can be connected to, whether they answer or not
}

// members connects to every member that answers, in the order in which they should be read from: secondaries that keep
// up, the primary, the rest. The caller disconnects them.
func members(ctx context.Context, uri string) ([]*member, error) {
	seed, err := dial(ctx, uri, "")
	if err != nil {
		return nil, err
	}
	h, err := hello(ctx, seed)
	if err != nil {
		disconnect(ctx, seed)
		return nil, fmt.Errorf("reach the replica set: %w", err)
	}
	id, err := identify(ctx, seed, h)
	if err != nil {
		disconnect(ctx, seed)
		return nil, err
	}
	o := options.Client().ApplyURI(uri)
	hosts := append(slices.Clone(h.Hosts), h.Passives...)
	if o.Direct != nil && *o.Direct || len(hosts) == 1 {
		return []*member{{client: seed, hello: h, id: id, of: 1}}, nil
	}
	defer disconnect(ctx, seed)
	var all []*member
	var errs []error
	for _, host := range hosts {
		m, err := reach(ctx, uri, host)
		if err != nil {
			errs = append(errs, fmt.Errorf("member %s: %w", host, err))
			continue
		}
		m.id, m.of = id, len(hosts)
		all = append(all, m)
	}
	if len(all) == 0 {
		return nil, fmt.Errorf("no member of replica set %s answers: %w", id.Lane, errors.Join(errs...))
	}
	rank(all)
	return all, nil
}

func reach(ctx context.Context, uri, host string) (*member, error) {
	client, err := dial(ctx, uri, host)
	if err != nil {
		return nil, err
	}
	h, err := hello(ctx, client)
	if err == nil && !h.Primary && !h.Secondary {
		err = errors.New("is neither primary nor secondary at present")
	}
	if err != nil {
		disconnect(ctx, client)
		return nil, err
	}
	return &member{client: client, host: host, hello: h}, nil
}

func rank(all []*member) {
	var newest afterimage.Time
	for _, m := range all {
		newest = max(newest, m.hello.majority())
	}
	class := func(m *member) int {
		switch {
		case m.hello.Secondary && m.hello.majority().Seconds()+staleSeconds >= newest.Seconds():
			return 0
		case m.hello.Primary:
			return 1
		}
		return 2
	}
	slices.SortStableFunc(all, func(a, b *member) int { return class(a) - class(b) })
}

// oplog returns the member's oplog.
func (m *member) oplog() *mongo.Collection { return m.client.Database("local").Collection("oplog.rs") }

// oldest returns the ts of the oldest entry that the member holds.
func (m *member) oldest(ctx context.Context) (afterimage.Time, error) {
	return m.firstEntry(ctx, bson.D{})
}

// firstEntry returns the ts of the first entry that matches.
func (m *member) firstEntry(ctx context.Context, filter bson.D) (afterimage.Time, error) {
	raw, err := m.oplog().FindOne(ctx, filter, options.FindOne().SetSort(bson.D{{Key: "$natural", Value: 1}}).
		SetProjection(bson.D{{Key: "ts", Value: 1}})).Raw()
	if err != nil {
		return 0, fmt.Errorf("read the oplog's first entry: %w", err)
	}
	t, i, ok := raw.Lookup("ts").TimestampOK()
	if !ok {
		return 0, errors.New("the oplog's first entry has no ts")
	}
	return afterimage.MongoTime(t, i), nil
}

// needed is the ts that an oplog must reach back to, to hold everything after h.To and what is open there.
func needed(h afterimage.BatchHeader) afterimage.Time {
	if h.RestartFrom.Less(h.To) {
		return afterimage.Time(h.RestartFrom.Hi)
	}
	return afterimage.Time(h.To.Hi + 1)
}

// holds reports whether the member's oplog reaches back to the time.
func (m *member) holds(ctx context.Context, need afterimage.Time) (bool, error) {
	oldest, err := m.oldest(ctx)
	return oldest <= need, err
}

// startPosition is where a new lane begins: before everything that is open, and before every later image. With a look
// back it is the oldest entry within that.
func (m *member) startPosition(ctx context.Context, lookBack time.Duration, now time.Time) (afterimage.Position, error) {
	h, err := hello(ctx, m.client)
	if err != nil {
		return afterimage.Position{}, fmt.Errorf("ask for the majority's time: %w", err)
	}
	at := h.majority()
	if at == 0 {
		return afterimage.Position{}, errors.New("the member knows no majority time yet")
	}
	open, err := m.oldestOpen(ctx, at)
	if err != nil {
		return afterimage.Position{}, err
	}
	if open != 0 {
		at = min(at, open-1)
	}
	if lookBack > 0 {
		since := primitive.Timestamp{T: uint32(max(0, now.Add(-lookBack).Unix()))}
		first, err := m.firstEntry(ctx, bson.D{{Key: "ts", Value: bson.D{{Key: "$gte", Value: since}}}})
		if err != nil && !errors.Is(err, mongo.ErrNoDocuments) {
			return afterimage.Position{}, err
		}
		if err == nil {
			at = min(at, first-1)
		}
	}
	return afterimage.Position{Hi: uint64(at)}, nil
}

// oldestOpen returns the ts of the first entry of the oldest transaction open at the time, 0 if none is.
func (m *member) oldestOpen(ctx context.Context, at afterimage.Time) (afterimage.Time, error) {
	cur, err := m.client.Database("config").RunCommandCursor(ctx, bson.D{
		{Key: "find", Value: "transactions"},
		{Key: "filter", Value: bson.D{{Key: "state", Value: bson.D{{Key: "$in", Value: bson.A{"prepared", "inProgress"}}}}}},
		{Key: "readConcern", Value: localAfter(at)}, // other kinds are refused here
	}, anyMember())
	if err != nil {
		return 0, fmt.Errorf("read the open transactions: %w", err)
	}
	defer cur.Close(ctx) //nolint:errcheck // nothing depends on it
	var oldest afterimage.Time
	for cur.Next(ctx) {
		t, i, ok := cur.Current.Lookup("startOpTime", "ts").TimestampOK()
		if ts := afterimage.MongoTime(t, i); ok && ts != 0 && (oldest == 0 || ts < oldest) {
			oldest = ts
		}
	}
	if err := cur.Err(); err != nil {
		return 0, fmt.Errorf("read the open transactions: %w", err)
	}
	return oldest, nil
}
