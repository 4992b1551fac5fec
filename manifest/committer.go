package manifest

import (
	"context"
	"errors"
	"sync"
)

// Committer serialises the commits of one process on a source: ingest, merges and sweeps each propose an edit on the
// newest state.
type Committer struct {
	store *Store
	mu    sync.Mutex
	state *State
}

// NewCommitter loads the newest state and returns a committer on it.
func NewCommitter(ctx context.Context, store *Store) (*Committer, error) {
	s, err := store.Load(ctx)
	if err != nil {
		return nil, err
	}
	return &Committer{store: store, state: s}, nil
}

// State returns the newest state that this process knows.
func (c *Committer) State() *State {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.state
}

// Commit asks propose for an edit on the newest state and commits it. When another process committed first, or it is not
// known whether our commit happened, it reloads and asks again: propose must look at the state it is given each time, and
// returns an empty edit when nothing is left to do.
func (c *Committer) Commit(ctx context.Context, propose func(*State) (Edit, error)) (*State, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for {
		e, err := propose(c.state)
		if err != nil {
			return nil, err
		}
		if e.IsZero() {
			return c.state, nil
		}
		next, err := c.store.Commit(ctx, c.state, e)
		if err == nil {
			c.state = next
			return next, nil
		}
		reloaded, loadErr := c.store.Load(ctx)
		if loadErr != nil {
			return nil, errors.Join(err, loadErr)
		}
		moved := reloaded.Number != c.state.Number
		c.state = reloaded
		if !errors.Is(err, ErrConflict) && !moved {
			return nil, err
		}
	}
}
