package snapshotter

import (
	"container/list"
	"context"
	"sync"

	"github.com/afterimagedb/afterimage/segment"
)

const (
	// cacheBytesMax bounds what a snapshotter keeps of what it read.
	cacheBytesMax = 32 << 20
	// cacheEntryMax is the largest read that is kept: key indexes, and the one row group that a small read fetches.
	cacheEntryMax = 1 << 20
)

// cache keeps recent small reads: the segments of level 0 hold rows of every table, so a walk over many small tables asks
// for the same indexes and row groups again and again. Nobody writes to what it returns.
type cache struct {
	from segment.Getter

	mu    sync.Mutex
	bytes int
	known map[place]*list.Element
	order list.List // of *entry, the last used first
}

type place struct {
	name           string
	offset, length int64
}

type entry struct {
	place
	data []byte
}

func newCache(from segment.Getter) *cache {
	return &cache{from: from, known: map[place]*list.Element{}}
}

// GetRange reads through the cache.
func (c *cache) GetRange(ctx context.Context, name string, offset, length int64) ([]byte, error) {
	p := place{name, offset, length}
	if data, ok := c.get(p); ok {
		return data, nil
	}
	data, err := c.from.GetRange(ctx, name, offset, length)
	if err == nil && len(data) <= cacheEntryMax {
		c.put(p, data)
	}
	return data, err
}

func (c *cache) get(p place) ([]byte, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	e, ok := c.known[p]
	if !ok {
		return nil, false
	}
	c.order.MoveToFront(e)
	return e.Value.(*entry).data, true //nolint:forcetypeassert // only put adds
}

func (c *cache) put(p place, data []byte) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if _, ok := c.known[p]; ok {
		return
	}
	c.known[p] = c.order.PushFront(&entry{p, data})
	c.bytes += len(data)
	for c.bytes > cacheBytesMax {
		last := c.order.Back()
		e := c.order.Remove(last).(*entry) //nolint:forcetypeassert // only put adds
		delete(c.known, e.place)
		c.bytes -= len(e.data)
	}
}
