package workload

import (
	"context"
	"fmt"
	"slices"

	"go.mongodb.org/mongo-driver/bson"
	"go.mongodb.org/mongo-driver/bson/primitive"
	"go.mongodb.org/mongo-driver/mongo"
	"go.mongodb.org/mongo-driver/mongo/options"
	"go.mongodb.org/mongo-driver/mongo/writeconcern"
	"go.mongodb.org/mongo-driver/x/bsonx/bsoncore"
	"golang.org/x/sync/errgroup"
)

const (
	loadBatch   = 2000
	loadWorkers = 4
	opsBatch    = 500
	churnBatch  = 1000
)

// Database is where everything lies.
const Database = "shop"

// Load inserts the documents, several batches at a time.
func Load(ctx context.Context, client *mongo.Client, seed uint32, docs int) error {
	g := NewGenerator(seed)
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(loadWorkers)
	orders, customers := Sizes(docs)
	for _, c := range []struct {
		name string
		n    int
		make func(int) bson.Raw
	}{{"orders", orders, g.Order}, {"customers", customers, g.Customer}} {
		coll := client.Database(Database).Collection(c.name)
		for i := 0; i < c.n && ctx.Err() == nil; i += loadBatch {
			var batch []any
			for j := i; j < min(c.n, i+loadBatch); j++ {
				batch = append(batch, c.make(j))
			}
			group.Go(func() error {
				_, err := coll.InsertMany(ctx, batch, options.InsertMany().SetOrdered(false))
				return err
			})
		}
	}
	if err := group.Wait(); err != nil {
		return fmt.Errorf("workload: load: %w", err)
	}
	return nil
}

// Apply sends the operations of a plan and calls after each batch. The driver's defaults are kept: retryable writes, so that entries
// carry what they carry in production. The two collections of a batch are written side by side: they have nothing in common.
func Apply(ctx context.Context, client *mongo.Client, p *Plan, after func(done int) error) error {
	db := client.Database(Database)
	orders, customers := db.Collection("orders"), db.Collection("customers")
	session, err := client.StartSession()
	if err != nil {
		return fmt.Errorf("workload: %w", err)
	}
	defer session.EndSession(ctx)
	for done := 0; ; {
		before := p.left
		b, ok := p.Next(opsBatch)
		if !ok {
			return nil
		}
		group, gctx := errgroup.WithContext(ctx)
		group.Go(func() error { return b.Orders.send(gctx, orders) })
		group.Go(func() error { return b.Customers.send(gctx, customers) })
		if err := group.Wait(); err != nil {
			return fmt.Errorf("workload: %w", err)
		}
		for i := range b.Transactions {
			if err := b.Transactions[i].send(ctx, session, orders, customers); err != nil {
				return fmt.Errorf("workload: transaction: %w", err)
			}
		}
		done += before - p.left
		if err := after(done); err != nil {
			return err
		}
	}
}

func (w *Writes) send(ctx context.Context, coll *mongo.Collection) error {
	if len(w.Inserts) > 0 {
		docs := make([]any, len(w.Inserts))
		for i, d := range w.Inserts {
			docs[i] = d
		}
		if _, err := coll.InsertMany(ctx, docs, options.InsertMany().SetOrdered(false)); err != nil {
			return fmt.Errorf("insert: %w", err)
		}
	}
	models := updates(w.Updates...)
	if err := bulk(ctx, coll, models); err != nil {
		return fmt.Errorf("update: %w", err)
	}
	models = nil
	for _, d := range w.Deletes {
		models = append(models, mongo.NewDeleteOneModel().SetFilter(d))
	}
	if err := bulk(ctx, coll, models); err != nil {
		return fmt.Errorf("delete: %w", err)
	}
	return nil
}

func updates(us ...Update) []mongo.WriteModel {
	var models []mongo.WriteModel
	for _, u := range us {
		models = append(models, mongo.NewUpdateOneModel().SetFilter(u.Filter).SetUpdate(u.Change))
	}
	return models
}

func bulk(ctx context.Context, coll *mongo.Collection, models []mongo.WriteModel) error {
	if len(models) == 0 {
		return nil
	}
	_, err := coll.BulkWrite(ctx, models, options.BulkWrite().SetOrdered(false))
	return err
}

func (t *Transaction) send(ctx context.Context, session mongo.Session, orders, customers *mongo.Collection) error {
	ctx = mongo.NewSessionContext(ctx, session)
	if err := session.StartTransaction(options.Transaction().SetWriteConcern(writeconcern.W1())); err != nil {
		return err
	}
	if err := bulk(ctx, orders, updates(t.SetOrder)); err != nil {
		return err
	}
	if _, err := orders.InsertOne(ctx, t.Insert); err != nil {
		return err
	}
	if err := bulk(ctx, customers, updates(t.SetCustomer, t.PushCustomer)); err != nil {
		return err
	}
	return session.CommitTransaction(ctx)
}

// Churn is one day: percent of the live documents, uniformly, get three new fields. It returns how many.
func Churn(ctx context.Context, client *mongo.Client, seed, day uint32, percent float64) (int, error) {
	g := NewGenerator(seed*1000 + day)
	total := 0
	for _, name := range []string{"orders", "customers"} {
		coll := client.Database(Database).Collection(name)
		ids, err := identities(ctx, coll)
		if err != nil {
			return total, fmt.Errorf("workload: churn: %w", err)
		}
		pick := g.Sample(len(ids), int(float64(len(ids))*percent/100))
		for chunk := range slices.Chunk(pick, churnBatch) {
			var us []Update
			for _, i := range chunk {
				us = append(us, Update{ids[i], operator("$set", g.day(name, day))})
			}
			if err := bulk(ctx, coll, updates(us...)); err != nil {
				return total, fmt.Errorf("workload: churn: %w", err)
			}
			total += len(chunk)
		}
	}
	return total, nil
}

// identities are filters of all documents, by _id.
func identities(ctx context.Context, coll *mongo.Collection) ([]bson.Raw, error) {
	only := options.Find().SetProjection(bson.D{{Key: "_id", Value: 1}}).SetSort(bson.D{{Key: "_id", Value: 1}})
	cur, err := coll.Find(ctx, bson.D{}, only)
	if err != nil {
		return nil, err
	}
	defer cur.Close(ctx) //nolint:errcheck // it was read to its end, or that error counts
	var ids []bson.Raw
	for cur.Next(ctx) {
		ids = append(ids, slices.Clone(cur.Current))
	}
	return ids, cur.Err()
}

func (g *Generator) day(collection string, day uint32) []byte {
	i, d := open()
	d = bsoncore.AppendInt32Element(d, "day", int32(day))
	if collection == "orders" {
		d = bsoncore.AppendDateTimeElement(d, "updated", g.when())
		d = bsoncore.AppendStringElement(d, "notes", g.Text(210))
	} else {
		d = bsoncore.AppendDecimal128Element(d, "balance", g.money(50000))
		d = bsoncore.AppendStringElement(d, "bio", g.Text(340))
	}
	return shut(d, i)
}

// Mark writes a note into the oplog that a majority has, and returns its time.
func Mark(ctx context.Context, client *mongo.Client) (primitive.Timestamp, error) {
	raw, err := client.Database("admin").RunCommand(ctx, bson.D{
		{Key: "appendOplogNote", Value: 1},
		{Key: "data", Value: bson.D{{Key: "msg", Value: "mark"}}},
		{Key: "writeConcern", Value: bson.D{{Key: "w", Value: "majority"}}},
	}).Raw()
	if err != nil {
		return primitive.Timestamp{}, fmt.Errorf("workload: mark: %w", err)
	}
	t, i, ok := raw.Lookup("operationTime").TimestampOK()
	if !ok {
		return primitive.Timestamp{}, fmt.Errorf("workload: mark: no operationTime in %s", raw)
	}
	return primitive.Timestamp{T: t, I: i}, nil
}
