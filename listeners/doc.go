// Package listeners holds what listeners of every kind of database share: the contract with whoever makes their batches
// durable. A listener tails one lane; several may tail the same lane, and of each batch exactly one wins.
//
// # Invariants
//
//  1. Batches of a lane form a chain: From of each is To of the one before, so nothing is published twice or left out.
//  2. A listener that lost a batch to another one reads [Publisher.Last] and goes on from there.
package listeners

import (
	"context"

	"github.com/afterimagedb/afterimage"
)

// Publisher makes batches of one lane durable, in order.
type Publisher interface {
	// Last returns the newest durable batch of the lane; its Seq is 0 when there is none. Calls of Publish that follow
	// continue it.
	Last(ctx context.Context) (afterimage.Last, error)
	// Publish encodes the batch before it returns, so the caller may use its memory again, and makes it durable some time
	// later. It blocks while too much is in flight: that is the back-pressure, which ends at the source's own log. An
	// error may belong to an earlier batch. [afterimage.ErrFenced] means that another listener published first.
	Publish(ctx context.Context, b *afterimage.Batch) error
	// Flush waits until everything published is durable. Its errors are those of Publish.
	Flush(ctx context.Context) error
}
