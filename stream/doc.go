// Package stream is the bus between listeners and the compactor: one JetStream stream per lane, in a server embedded in
// the process or in an external NATS cluster, and the codec of the batches in it.
//
// # Words
//
// A message is what JetStream stores: an encoded batch, or part k of n of a batch that is larger than a message. A
// session is what one publisher sends between two calls of [Lane.Last]. A flight is a message that was sent and is not
// acknowledged yet. A publisher is fenced when somebody else's message took the place its next one was meant for.
//
// # Invariants
//
//  1. A message is stored only directly behind the message its publisher put or read before it. The expected last
//     sequence alone does not hold this for pipelined messages (a rival's message that takes the place of flight 1 makes
//     the sequence that flight 2 expects), so each flight also names the id of the one before it, or flies alone.
//  2. Acknowledged means on disk where the server syncs always, which the embedded server does unless told otherwise.
//  3. A full stream refuses, and the publisher waits: nothing is ever dropped to make room.
//  4. The last batch of a lane, with all its parts, is never trimmed: an emptied stream would accept a zombie.
//  5. Bytes from the stream are checked before they are used; hostile bytes cost an error and bounded memory.
package stream
