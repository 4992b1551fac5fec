// Package mongodb listens to one MongoDB replica set: it tails local.oplog.rs into batches of changes, and reads the
// first image of every table while it tails.
//
// # Words
//
// A session is one unbroken chain of batches on one connection; after any failure a new one starts where the last
// durable batch ended. The member is the node of the set that a session reads from: a fresh secondary by preference. A
// range is a part of a table, by _id, read at one cluster time. The leader of a lane is the listener whose batches win;
// the others follow, and take over when it falls silent.
//
// # Invariants
//
//  1. Only what a majority has is read, so nothing published is ever rolled back.
//  2. The resume position is the lane's last durable batch, or what the manifest covers if the stream has less.
//  3. When no member's oplog holds the resume position, the next batch starts a new epoch with a note of the gap and of
//     the scan that mends it.
//  4. A row of the image carries the cluster time at which it was read, and the tail starts before every such time.
//  5. Memory is bounded by the chunks in flight, the open transactions' bound and one range of the image.
package mongodb
