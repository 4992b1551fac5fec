// Package oplog turns raw entries of a MongoDB oplog into changes. It is pure: entries go in, in log order, changes come
// out; there is no clock, no context and no I/O but for the scratch files that its caller hands in.
//
// # Words
//
// An entry is one document of local.oplog.rs. An operation is one write: an entry of its own, or an element of an
// applyOps array. A transaction is open from its first entry to the one that commits or aborts it. A chain is a
// transaction of several entries, its pieces.
//
// # Invariants
//
//  1. A change's Time is when it became visible: the entry's ts, the last entry's ts of a chain, the commitTimestamp of
//     a prepared transaction. (Time, Order) is unique among the changes of a row.
//  2. The output depends on the entries only, not on how they are cut into batches; a decoder that starts at
//     [Decoder.RestartFrom] and skips to [Decoder.To] continues exactly.
//  3. Nothing is skipped in silence: an entry that is not understood becomes a change of kind unknown, with a note.
//  4. Nothing at or below [Decoder.Horizon] can appear any more.
//  5. The pieces of a chain committed at ts have positions (ts-1, 1), (ts-1, 2), ... and the last one (ts, 0): a huge
//     transaction can be published in parts that lie in order between the entries around it.
package oplog
