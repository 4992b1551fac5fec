package stream

import (
	"context"
	"errors"
	"fmt"

	"github.com/nats-io/nats.go/jetstream"
)

// resetDistance is more than any publisher has in flight.
const resetDistance = 1000

// Reset empties the lane by making its stream anew. Whoever publishes to it is fenced, finds nothing, and begins again
// from what the manifest covers: that is how a lane goes on when batches in its stream were lost. Readers must be opened
// again. Sequences go on behind those of the old stream, with a distance: a publisher that slept must not find the
// sequence it expects.
func (l *Lane) Reset(ctx context.Context) error {
	name, subject, err := streamNames(l.bus.opts.Source, l.name)
	if err != nil {
		return err
	}
	ctx, cancel := bounded(ctx)
	defer cancel()
	first := uint64(0)
	switch info, err := l.stream.Info(ctx); {
	case err == nil:
		first = info.State.LastSeq + resetDistance
	case !errors.Is(err, jetstream.ErrStreamNotFound):
		return fmt.Errorf("state of the stream of lane %q: %w", l.name, err)
	}
	if err := l.bus.js.DeleteStream(ctx, name); err != nil && !errors.Is(err, jetstream.ErrStreamNotFound) {
		return fmt.Errorf("empty the stream of lane %q: %w", l.name, err)
	}
	if _, err := l.bus.makeStream(ctx, name, subject, l.name, first); err != nil {
		return fmt.Errorf("make the stream of lane %q anew: %w", l.name, err)
	}
	return nil
}
