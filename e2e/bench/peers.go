//go:build bench

package bench

import (
	"context"
	"errors"
	"fmt"
	"time"

	"go.mongodb.org/mongo-driver/bson"
	"go.mongodb.org/mongo-driver/bson/primitive"
	"go.mongodb.org/mongo-driver/mongo"
	"go.mongodb.org/mongo-driver/mongo/options"
)

// reading is how long it took to read a log.
type reading struct {
	entries int
	bytes   int64
	wall    time.Duration
}

func (r reading) perSecond() float64 { return float64(r.entries) / r.wall.Seconds() }

// readOplog reads the entries after one time up to another as the driver hands them over, and does nothing with them.
func readOplog(ctx context.Context, member *mongo.Client, after, upTo primitive.Timestamp) (reading, error) {
	var r reading
	began := time.Now()
	cur, err := member.Database("local").Collection("oplog.rs").Find(ctx, bson.D{{Key: "ts", Value: bson.D{{Key: "$gt", Value: after}}}},
		options.Find().SetCursorType(options.TailableAwait).SetBatchSize(1000).SetMaxAwaitTime(time.Second))
	if err != nil {
		return r, err
	}
	defer cur.Close(ctx) //nolint:errcheck // nothing depends on it
	for cur.Next(ctx) {
		r.entries++
		r.bytes += int64(len(cur.Current))
		if t, i, ok := cur.Current.Lookup("ts").TimestampOK(); ok && !upTo.After(primitive.Timestamp{T: t, I: i}) {
			r.wall = time.Since(began)
			return r, nil
		}
	}
	return r, fmt.Errorf("the oplog ended before %v: %w", upTo, cur.Err())
}

// endOfChanges is the collection whose insert ends a read of a change stream.
const endOfChanges = "marks"

// readChanges reads a change stream from a time on until the mark, raw.
func readChanges(ctx context.Context, member *mongo.Client, after primitive.Timestamp) (reading, error) {
	var r reading
	began := time.Now()
	cs, err := member.Watch(ctx, mongo.Pipeline{}, options.ChangeStream().SetStartAtOperationTime(&after))
	if err != nil {
		return r, err
	}
	defer cs.Close(ctx) //nolint:errcheck // nothing depends on it
	for cs.Next(ctx) {
		r.entries++
		r.bytes += int64(len(cs.Current))
		if c, ok := cs.Current.Lookup("ns", "coll").StringValueOK(); ok && c == endOfChanges {
			r.wall = time.Since(began)
			return r, nil
		}
	}
	return r, errors.Join(errors.New("the change stream ended before its mark"), cs.Err())
}
