package bucket

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
)

// Memory is a bucket in memory, for tests and for the simulation. Copies keep callers and store apart.
type Memory struct {
	mu      sync.RWMutex
	objects map[string][]byte
}

var _ Bucket = (*Memory)(nil)

// NewMemory returns an empty bucket in memory.
func NewMemory() *Memory { return &Memory{objects: map[string][]byte{}} }

// Clone returns a bucket with the same content: what a crash would have left.
func (m *Memory) Clone() *Memory {
	m.mu.RLock()
	defer m.mu.RUnlock()
	return &Memory{objects: maps.Clone(m.objects)} // values are never changed in place
}

// Put implements [Bucket].
func (m *Memory) Put(ctx context.Context, name string, data []byte) error {
	return m.write(ctx, name, data, false)
}

// Create implements [Bucket].
func (m *Memory) Create(ctx context.Context, name string, data []byte) error {
	return m.write(ctx, name, data, true)
}

func (m *Memory) write(ctx context.Context, name string, data []byte, create bool) error {
	if err := errors.Join(ctx.Err(), CheckName(name)); err != nil {
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if _, ok := m.objects[name]; ok && create {
		return fmt.Errorf("create %s in %s: %w", name, m, ErrExists)
	}
	m.objects[name] = append([]byte{}, data...)
	return nil
}

// lookup returns the object itself, not a copy.
func (m *Memory) lookup(ctx context.Context, name string) ([]byte, error) {
	if err := errors.Join(ctx.Err(), CheckName(name)); err != nil {
		return nil, err
	}
	m.mu.RLock()
	defer m.mu.RUnlock()
	data, ok := m.objects[name]
	if !ok {
		return nil, fmt.Errorf("read %s in %s: %w", name, m, ErrNotFound)
	}
	return data, nil
}

// Get implements [Bucket].
func (m *Memory) Get(ctx context.Context, name string) ([]byte, error) {
	data, err := m.lookup(ctx, name)
	return bytes.Clone(data), err
}

// GetRange implements [Bucket].
func (m *Memory) GetRange(ctx context.Context, name string, offset, length int64) ([]byte, error) {
	data, err := m.lookup(ctx, name)
	if err != nil {
		return nil, err
	}
	if err := CheckRange(offset, length, int64(len(data))); err != nil {
		return nil, fmt.Errorf("read %s in %s: %w", name, m, err)
	}
	return bytes.Clone(data[offset : offset+length]), nil
}

// Size implements [Bucket].
func (m *Memory) Size(ctx context.Context, name string) (int64, error) {
	data, err := m.lookup(ctx, name)
	return int64(len(data)), err
}

// List implements [Bucket].
func (m *Memory) List(ctx context.Context, prefix, after string, fn func(Info) error) error {
	m.mu.RLock()
	names := slices.Collect(maps.Keys(m.objects))
	m.mu.RUnlock()
	for _, name := range sortedAfter(names, prefix, after) {
		if err := ctx.Err(); err != nil {
			return err
		}
		m.mu.RLock()
		data, ok := m.objects[name]
		m.mu.RUnlock()
		if !ok {
			continue // deleted meanwhile, perhaps by fn
		}
		if err := fn(Info{Name: name, Size: int64(len(data))}); err != nil {
			return endOfList(err)
		}
	}
	return nil
}

// Delete implements [Bucket].
func (m *Memory) Delete(ctx context.Context, name string) error {
	if err := errors.Join(ctx.Err(), CheckName(name)); err != nil {
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.objects, name)
	return nil
}

// String implements [Bucket].
func (m *Memory) String() string { return "memory" }

// endOfList turns SkipAll into a good end.
func endOfList(err error) error {
	if errors.Is(err, SkipAll) {
		return nil
	}
	return err
}
