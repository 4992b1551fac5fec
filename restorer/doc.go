// Package restorer holds the words of the last stage: where the state at a time comes from, which part of it is wanted,
// under which names it is put back, and what a restore reports. Package restorer/mongodb writes to MongoDB servers.
//
// # Words
//
// A restore takes the tables that existed at a time T from a [Source] and writes them to a target, a running database. A
// target namespace is where a table ends up, after the renaming [Rules]. Holding a TTL means to restore it so that
// nothing expires until the operator says so.
//
// # Invariants
//
//  1. Nothing that exists in the target is changed unless the operator said overwrite; what is in the way is named, all of
//     it, before the first write.
//  2. A restore says success only after everything it wrote was read back and compared with the source.
//  3. An interrupted restore goes on where it stopped. It never starts again over something newer: what it finds under
//     the name of a table must be the very table that it created.
package restorer
