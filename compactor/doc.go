// Package compactor turns the batches of a source's lanes into segments and manifest commits, merges segments in the
// background, builds images and sweeps what nothing needs.
//
// # Words
//
// Ingest is the path from batches to level-0 segments. A merge makes one run of segments out of several, losing only
// duplicates. An image holds every row of a part of row space at one time; a part is cut where images grow large.
//
// # Invariants
//
//  1. Coverage decides what is new: a batch, or the part of one, that the manifest covers already adds nothing. So a
//     crash anywhere between reading a batch and trimming the stream neither loses nor doubles a change.
//  2. The stream is trimmed only behind a committed manifest.
//  3. An object is durable before the commit that names it, and is deleted only after a commit doomed it and the grace
//     time passed.
//  4. Memory is bounded by Options.LevelZeroBytes and the row groups of one merge, whatever the input.
package compactor
