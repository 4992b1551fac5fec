// Package snapshotter reads the state of a source as it was at any time, and how it came to be: rows of a table at a time,
// the history of one row, the difference between two times, the events that an operator looks for.
//
// # Words
//
// A time is good when the state at it is known exactly. The windows of a source are its intervals of good times. A table
// lives from its creation to its drop, as the catalog tells; a table that does not live at a time can't make it bad. A
// plan is what a read has to fetch. A view is a time and a selection of tables. A version is what a row was from one
// change to the next.
//
// # Invariants
//
//  1. A read at T is inclusive of T, and is cut by commit time alone.
//  2. Only what a plan names is read: the newest image complete at T, and the changes later than it.
//  3. What is not known is an error or marked as such, never guessed. Reads themselves do not ask whether a time is good:
//     call [Snapshotter.Recoverable] or [Snapshotter.RecoverableTables] first.
//  4. Memory is bounded by the segments read at once, not by the size of a table.
package snapshotter
