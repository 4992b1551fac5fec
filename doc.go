// Package afterimage holds the words of the product as value types: change, time, table, key, lane, batch and the
// errors an operator can act on. It imports nothing of the project; every other package imports it.
//
// # Words
//
// A source is one protected cluster. A lane is one ordered log of a source (a MongoDB replica set, a Cassandra node).
// A change is one committed mutation of one row, with its commit time. A row is named by its table, an identifier that
// survives renames, and its key: bytes that are equal exactly when the server holds two rows to be the same. A batch is
// a run of changes of one lane, in log order. The horizon of a lane is the time up to which nothing more can appear.
//
// # Invariants
//
//  1. Changes sort by (Table, Key, Time, Order): [Change.Compare]. The four name a change uniquely within a source.
//  2. A row of an image has Order [OrderImage], so it sorts after every logged change of its time.
//  3. Key and Body are borrowed unless a function says that it keeps them: copy what must outlive the call.
package afterimage
