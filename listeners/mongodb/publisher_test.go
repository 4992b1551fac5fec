package mongodb

import (
	"bytes"
	"context"
	"encoding/json"
	"slices"
	"sync"

	"github.com/afterimagedb/afterimage"
	"github.com/afterimagedb/afterimage/listeners"
	"github.com/afterimagedb/afterimage/manifest"
)

// memoryLane is a lane's stream and manifest in memory. Several publishers may share it.
type memoryLane struct {
	mu      sync.Mutex
	seq     uint64
	batches []afterimage.Batch
	state   *manifest.State
	hold    bool // batches do not reach the manifest
	fault   error
}

func newMemoryLane() *memoryLane { return &memoryLane{state: manifest.NewState()} }

// memoryPublisher is one listener's view of a lane.
type memoryPublisher struct {
	lane   *memoryLane
	expect uint64
}

var _ listeners.Publisher = (*memoryPublisher)(nil)

func (p *memoryPublisher) Last(context.Context) (afterimage.Last, error) {
	p.lane.mu.Lock()
	defer p.lane.mu.Unlock()
	p.expect = p.lane.seq
	last := afterimage.Last{Seq: p.lane.seq}
	if n := len(p.lane.batches); n > 0 {
		last.BatchHeader = p.lane.batches[n-1].BatchHeader
	}
	return last, nil
}

func (p *memoryPublisher) Publish(_ context.Context, b *afterimage.Batch) error {
	l := p.lane
	l.mu.Lock()
	defer l.mu.Unlock()
	if p.expect != l.seq {
		return afterimage.ErrFenced
	}
	if l.fault != nil {
		return l.fault
	}
	c := *b
	c.Changes = slices.Clone(b.Changes)
	for i := range c.Changes {
		c.Changes[i].Key, c.Changes[i].Body = bytes.Clone(c.Changes[i].Key), bytes.Clone(c.Changes[i].Body)
	}
	l.batches = append(l.batches, c)
	l.seq++
	p.expect = l.seq
	if !l.hold {
		return l.commit(&c)
	}
	return nil
}

func (p *memoryPublisher) Flush(context.Context) error { return nil }

// commit takes a batch into the state.
func (l *memoryLane) commit(b *afterimage.Batch) error {
	mb := manifest.NewBuilder(l.state)
	if _, err := mb.Batch(b, l.seq); err != nil {
		return err
	}
	next, err := l.state.Apply(mb.Edit(), 0)
	if err != nil {
		return err
	}
	l.state = next
	return nil
}

func (l *memoryLane) State(context.Context) (*manifest.State, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.state, nil
}

// last returns the header of the newest batch.
func (l *memoryLane) last() afterimage.BatchHeader {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.batches) == 0 {
		return afterimage.BatchHeader{}
	}
	return l.batches[len(l.batches)-1].BatchHeader
}

// changes returns all changes in order of publication.
func (l *memoryLane) changes() []afterimage.Change {
	l.mu.Lock()
	defer l.mu.Unlock()
	var out []afterimage.Change
	for _, b := range l.batches {
		out = append(out, b.Changes...)
	}
	return out
}

// notes returns all notes of a kind.
func (l *memoryLane) notes(kind manifest.NoteKind) []manifest.Note {
	l.mu.Lock()
	defer l.mu.Unlock()
	var out []manifest.Note
	for _, b := range l.batches {
		for _, raw := range b.Notes {
			var n manifest.Note
			if err := json.Unmarshal(raw, &n); err == nil && n.Kind == kind {
				out = append(out, n)
			}
		}
	}
	return out
}
