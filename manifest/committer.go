package manifest

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
)

// Committer serialises the commits of one process on a source: ingest, merges and sweeps each propose an edit on the
// newest state.
type Committer struct {
	store *Store
	turn  sync.Mutex            // held over a commit, bucket requests and all
	state atomic.Pointer[State] // read at any time: a bucket that hangs must not hang whoever asks
}

// NewCommitter loads the newest state and returns a committer on it.
func NewCommitter(ctx context.Context, store *Store) (*Committer, error) {
	s, err := store.Load(ctx)
	if err != nil {
		return nil, err
	}
	c := &Committer{store: store}
	c.state.Store(s)
	return c, nil
}

// State returns the newest state that this process knows.
func (c *Committer) State() *State { return c.state.Load() }

// Commit asks propose for an edit on the newest state and commits it. When another process committed first, or it is not
// known whether our commit happened, it reloads and asks again: propose must look at the state it is given each time, and
// returns an empty edit when nothing is left to do.
func (c *Committer) Commit(ctx context.Context, propose func(*State) (Edit, error)) (*State, error) {
	c.turn.Lock()
	defer c.turn.Unlock()
	for {
		state := c.state.Load()
		e, err := propose(state)
		if err != nil {
			return nil, err
		}
		if e.IsZero() {
			return state, nil
		}
		next, err := c.store.Commit(ctx, state, e)
		if err == nil {
			c.state.Store(next)
			return next, nil
		}
		reloaded, loadErr := c.store.Load(ctx)
		if loadErr != nil {
			return nil, errors.Join(err, loadErr)
		}
		moved := reloaded.Number != state.Number
		c.state.Store(reloaded)
		if !errors.Is(err, ErrConflict) && !moved {
			return nil, err
		}
	}
}
