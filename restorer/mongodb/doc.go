// Package mongodb restores tables into a running MongoDB replica set or standalone server, byte for byte.
//
// # Words
//
// A plan is what will be written, as a value. A batch is one insert command, built as raw bytes: the driver never decodes
// a document. An exact fix is what is done to a document that a plain insert would change or refuse (a top-level
// Timestamp(0,0), an _id that is an array, more than 180 levels of nesting). The journal is a file in the state directory
// that lets an interrupted restore go on. The tally of a table sums hashes of its documents, on the way out of the source
// and again when they are read back, so that the order in which they arrive does not matter.
//
// # Invariants
//
//  1. The plan is made, and everything in the way is found, before the first write.
//  2. A document that is found where one is to be inserted is never replaced; equal bytes are a success, others a failure.
//  3. A table is done when its majority-committed documents, read back, have the tally of the source.
//  4. Rows of a capped collection are written one batch after the other, in order.
package mongodb
