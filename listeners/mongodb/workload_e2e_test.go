//go:build e2e

package mongodb

import (
	"context"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"time"

	"go.mongodb.org/mongo-driver/bson"
	"go.mongodb.org/mongo-driver/bson/primitive"
	"go.mongodb.org/mongo-driver/mongo"
	"go.mongodb.org/mongo-driver/mongo/options"
	"go.mongodb.org/mongo-driver/mongo/writeconcern"
)

// chaos writes at random: rows of odd keys, updates of every kind, transactions, DDL.
type chaos struct {
	client *mongo.Client
	r      *rand.Rand
	old    bool // a server without time series and clustered collections
	writes int
	any    bool // any error is expected: members die
}

func newChaos(client *mongo.Client, seed uint64) *chaos {
	return &chaos{client: client, r: rand.New(rand.NewPCG(seed, 1))}
}

func (c *chaos) db() *mongo.Database {
	return c.client.Database("chaos", options.Database().SetWriteConcern(writeconcern.Majority()))
}

// oddIDs holds an _id of every type, and numbers that are equal to others.
func oddIDs() []any {
	return []any{
		primitive.MinKey{},
		primitive.MaxKey{},
		nil, true, false, math.NaN(), math.Inf(1), math.Inf(-1), 0.0, math.Copysign(0, -1), int32(7), int64(7),
		int64(math.MaxInt64), 1.5, primitive.NewDecimal128(0x3040000000000000, 7), "", "a", "b\x00c",
		primitive.Binary{Subtype: 2},
		primitive.Binary{Subtype: 4, Data: make([]byte, 16)},
		primitive.Binary{Data: []byte{1, 2}},
		primitive.ObjectID{1},
		primitive.DateTime(-5),
		primitive.Timestamp{T: 1, I: 2},
		primitive.Timestamp{},
		bson.D{},
		bson.D{{Key: "a", Value: int32(1)}},
		bson.D{{Key: "a", Value: bson.A{1, "x"}}},
		primitive.JavaScript("f"),
		primitive.CodeWithScope{Code: "g", Scope: bson.D{}},
		primitive.Symbol("s"),
		primitive.DBPointer{DB: "a.b", Pointer: primitive.ObjectID{2}},
	}
}

// prepare makes tables of every kind, with rows enough for several ranges.
func (c *chaos) prepare(ctx context.Context, rows int) error {
	db := c.db()
	cmds := []bson.D{
		{{Key: "create", Value: "german"}, {Key: "collation", Value: bson.D{{Key: "locale", Value: "de"}, {Key: "strength", Value: int32(1)}}}},
		{{Key: "create", Value: "capped"}, {Key: "capped", Value: true}, {Key: "size", Value: int32(100_000)}},
		{{Key: "create", Value: "view"}, {Key: "viewOn", Value: "t0"}, {Key: "pipeline", Value: bson.A{}}},
		{{Key: "createUser", Value: "someone"}, {Key: "pwd", Value: "x"}, {Key: "roles", Value: bson.A{}}},
	}
	if !c.old {
		cmds = append(cmds, bson.D{{Key: "create", Value: "series"}, {Key: "timeseries", Value: bson.D{{Key: "timeField", Value: "t"}}}},
			bson.D{{Key: "create", Value: "clustered"}, {Key: "clusteredIndex", Value: bson.D{{Key: "key", Value: bson.D{{Key: "_id", Value: 1}}}, {Key: "unique", Value: true}}}})
	}
	for _, cmd := range cmds {
		if err := db.RunCommand(ctx, cmd).Err(); err != nil {
			return fmt.Errorf("%v: %w", cmd, err)
		}
	}
	for _, name := range append(c.tables(), "capped") {
		var docs []any
		for i := range rows {
			docs = append(docs, c.doc(i))
		}
		if _, err := db.Collection(name).InsertMany(ctx, docs); err != nil {
			return fmt.Errorf("fill %s: %w", name, err)
		}
	}
	for _, id := range oddIDs() {
		if _, err := db.Collection("odd").InsertOne(ctx, bson.D{{Key: "_id", Value: id}, {Key: "n", Value: 1}}); err != nil && !mongo.IsDuplicateKeyError(err) {
			return fmt.Errorf("insert _id %v: %w", id, err)
		}
	}
	return nil
}

func (c *chaos) tables() []string {
	names := []string{"t0", "t1", "german"}
	if !c.old {
		names = append(names, "clustered")
	}
	return names
}

func (c *chaos) doc(i int) bson.D {
	var id any = int32(i)
	switch i % 4 {
	case 1:
		id = fmt.Sprintf("Ä%06d", i)
	case 2:
		id = fmt.Sprintf("a%06d", i)
	case 3:
		id = primitive.NewObjectIDFromTimestamp(time.Unix(int64(i), 0))
	}
	return bson.D{{Key: "_id", Value: id}, {Key: "n", Value: int32(0)}, {Key: "text", Value: fmt.Sprintf("%0200d", c.r.IntN(1e9))}, {Key: "l", Value: bson.A{1}}}
}

// transientError reports an error that a fail-over or a conflict explains.
func transientError(err error) bool {
	var se mongo.ServerError
	var le interface{ HasErrorLabel(string) bool }
	return mongo.IsNetworkError(err) || mongo.IsTimeout(err) || mongo.IsDuplicateKeyError(err) ||
		errors.As(err, &le) && (le.HasErrorLabel("TransientTransactionError") || le.HasErrorLabel("RetryableWriteError") || le.HasErrorLabel("UnknownTransactionCommitResult")) ||
		errors.As(err, &se) && (se.HasErrorCode(91) || se.HasErrorCode(189) || se.HasErrorCode(10107) || se.HasErrorCode(11602) || se.HasErrorCode(13435) || se.HasErrorCode(112) || se.HasErrorCode(64) || se.HasErrorCode(48) || se.HasErrorCode(26) || se.HasErrorCode(20))
}

// stepMax is how long one operation may take: a server whose primary was killed under it may never answer.
const stepMax = 20 * time.Second

// run writes until ctx ends; what is under way then is finished, so that the server is quiet afterwards.
func (c *chaos) run(ctx context.Context) error {
	for ctx.Err() == nil {
		step, cancel := context.WithTimeout(context.WithoutCancel(ctx), stepMax)
		err := c.step(step)
		cancel()
		if err != nil && !c.any && !transientError(err) {
			return err
		}
		c.writes++
	}
	return nil
}

func (c *chaos) step(ctx context.Context) error {
	tables := c.tables()
	coll := c.db().Collection(tables[c.r.IntN(len(tables))])
	row := c.doc(c.r.IntN(4000))
	by := row[:1]
	var err error
	switch k := c.r.IntN(100); {
	case k < 20:
		_, err = coll.InsertOne(ctx, row)
	case k < 45:
		_, err = coll.UpdateOne(ctx, by, bson.D{{Key: "$inc", Value: bson.D{{Key: "n", Value: 1}}}, {Key: "$push", Value: bson.D{{Key: "l", Value: c.r.IntN(9)}}}})
	case k < 55:
		_, err = coll.ReplaceOne(ctx, by, bson.D{{Key: "z", Value: c.r.IntN(9)}, {Key: "a", Value: 1}}, options.Replace().SetUpsert(k < 50))
	case k < 65:
		_, err = coll.DeleteOne(ctx, by)
	case k < 72:
		_, err = c.db().Collection("capped").InsertOne(ctx, bson.D{{Key: "n", Value: c.r.IntN(1000)}, {Key: "pad", Value: fmt.Sprintf("%0500d", k)}})
	case k < 75:
		_, err = c.db().Collection("capped").UpdateOne(ctx, bson.D{}, bson.D{{Key: "$inc", Value: bson.D{{Key: "n", Value: 1}}}})
	case k < 85:
		err = c.transaction(ctx, 1+c.r.IntN(6), c.r.IntN(5) == 0)
	case k < 88 && !c.old:
		_, err = c.db().Collection("series").InsertOne(ctx, bson.D{{Key: "t", Value: time.Unix(int64(c.r.IntN(1e6)), 0)}, {Key: "v", Value: c.r.IntN(9)}})
	case k < 92:
		ids := oddIDs()
		_, err = c.db().Collection("odd").UpdateOne(ctx, bson.D{{Key: "_id", Value: ids[c.r.IntN(len(ids))]}}, bson.D{{Key: "$inc", Value: bson.D{{Key: "n", Value: 1}}}})
	default:
		err = c.ddl(ctx)
	}
	return err
}

func (c *chaos) transaction(ctx context.Context, n int, abort bool) error {
	sess, err := c.client.StartSession()
	if err != nil {
		return err
	}
	defer sess.EndSession(ctx)
	if err := sess.StartTransaction(options.Transaction().SetWriteConcern(writeconcern.Majority())); err != nil {
		return err
	}
	in := mongo.NewSessionContext(ctx, sess)
	for i := range n {
		row := c.doc(c.r.IntN(4000))
		if _, err := c.db().Collection("t0").UpdateOne(in, row[:1], bson.D{{Key: "$set", Value: bson.D{{Key: "tx", Value: i}}}}, options.Update().SetUpsert(true)); err != nil {
			return err
		}
	}
	if abort {
		return sess.AbortTransaction(ctx)
	}
	return sess.CommitTransaction(ctx)
}

func (c *chaos) ddl(ctx context.Context) error {
	db, admin := c.db(), c.client.Database("admin")
	name := fmt.Sprintf("x%d", c.r.IntN(4))
	switch c.r.IntN(6) {
	case 0:
		_, err := db.Collection(name).InsertMany(ctx, []any{bson.D{{Key: "a", Value: 1}}, bson.D{{Key: "a", Value: 2}}})
		return err
	case 1:
		return db.Collection(name).Drop(ctx)
	case 2:
		return admin.RunCommand(ctx, bson.D{{Key: "renameCollection", Value: "chaos." + name}, {Key: "to", Value: fmt.Sprintf("chaos.x%d", c.r.IntN(4))}, {Key: "dropTarget", Value: true}}).Err()
	case 3:
		_, err := db.Collection(name).Indexes().CreateOne(ctx, mongo.IndexModel{Keys: bson.D{{Key: "a", Value: 1}}})
		return err
	case 4:
		cur, err := db.Collection(name).Aggregate(ctx, bson.A{bson.D{{Key: "$out", Value: fmt.Sprintf("x%d", c.r.IntN(4))}}})
		if err == nil {
			err = cur.Close(ctx)
		}
		return err
	}
	return db.RunCommand(ctx, bson.D{{Key: "collMod", Value: name}, {Key: "validationLevel", Value: "moderate"}}).Err()
}
