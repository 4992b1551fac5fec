package mongodb

import (
	"bytes"
	"context"
	"fmt"
	"slices"
	"sync"

	"golang.org/x/sync/errgroup"

	"github.com/afterimagedb/afterimage/restorer"
)

// loader writes the rows of one table.
type loader struct {
	run       *run
	table     *plannedTable
	rep       *restorer.NamespaceReport
	resumeKey []byte // rows up to here were written by an earlier run
	want      tally  // of the source

	mu       sync.Mutex
	next     int64            // sequence number of the oldest batch that is not written
	finished map[int64][]byte // last keys of batches that are written before older ones
	mark     []byte           // every row up to this key is written
}

func (l *loader) ordered() bool { return l.table.kind == kindCapped }

// load reads the source once, in order, and sends batches; several are in flight unless the table is capped.
func (l *loader) load(ctx context.Context) error {
	rows, err := l.run.opts.Source.Rows(ctx, l.table.table)
	if err != nil {
		return fmt.Errorf("read the source: %w", err)
	}
	defer func() { _ = rows.Close() }()
	l.finished = map[int64][]byte{}
	if l.ordered() && l.table.resume {
		if err := l.skipCapped(ctx, rows); err != nil {
			return err
		}
	}
	g, gctx := errgroup.WithContext(ctx)
	readErr := l.read(gctx, g, rows)
	if err := g.Wait(); err != nil {
		return err
	}
	return readErr
}

func (l *loader) read(ctx context.Context, g *errgroup.Group, rows restorer.Rows) error {
	prefix := insertPrefix(l.table.name, l.ordered())
	var b *batch
	var seq int64
	var masked []byte
	for rows.Next() {
		body, err := l.table.mask.apply(&masked, rows.Body())
		if err != nil {
			return err
		}
		l.want.add(body)
		if !l.ordered() && l.table.resume && bytes.Compare(rows.Key(), l.resumeKey) <= 0 {
			l.rep.Documents++
			l.rep.Bytes += int64(len(body))
			continue
		}
		if b != nil && b.full(len(body)) {
			if err := l.dispatch(ctx, g, b); err != nil {
				return err
			}
			b = nil
		}
		if b == nil {
			b = l.run.buffers.Get().(*batch)
			b.begin(prefix, seq)
			seq++
		}
		b.add(body)
		b.lastKey = append(b.lastKey[:0], rows.Key()...)
	}
	if err := rows.Err(); err != nil {
		return fmt.Errorf("read the source: %w", err)
	}
	if b == nil {
		return nil
	}
	return l.dispatch(ctx, g, b)
}

// dispatch waits for the rate limit and a free slot, then writes the batch beside the reading.
func (l *loader) dispatch(ctx context.Context, g *errgroup.Group, b *batch) error {
	if err := l.run.throttle(ctx, b.docBytes); err != nil {
		return err
	}
	select {
	case l.run.slots <- struct{}{}:
	case <-ctx.Done():
		return ctx.Err()
	}
	write := func() error {
		err := l.write(ctx, b)
		<-l.run.slots
		if err == nil {
			err = l.written(b)
		}
		l.run.buffers.Put(b)
		return err
	}
	if l.ordered() {
		return write()
	}
	g.Go(write)
	return nil
}

func (r *run) throttle(ctx context.Context, n int64) error {
	if r.limit == nil {
		return nil
	}
	for n > 0 {
		part := min(n, int64(r.limit.Burst()))
		if err := r.limit.WaitN(ctx, int(part)); err != nil {
			return err
		}
		n -= part
	}
	return nil
}

// written moves the mark behind the batches that are written without a hole before them.
func (l *loader) written(b *batch) error {
	l.run.opts.Metrics.documents.Add(float64(len(b.spans)))
	l.run.opts.Metrics.bytes.Add(float64(b.docBytes))
	l.mu.Lock()
	l.rep.Documents += int64(len(b.spans))
	l.rep.Bytes += b.docBytes
	l.finished[b.seq] = slices.Clone(b.lastKey)
	for key, ok := l.finished[l.next]; ok; key, ok = l.finished[l.next] {
		delete(l.finished, l.next)
		l.mark = key
		l.next++
	}
	mark := l.mark
	l.mu.Unlock()
	l.run.step(func(g *restorer.Progress) {
		g.Namespace, g.Phase = l.table.shown, "documents"
		g.Documents += int64(len(b.spans))
		g.Bytes += b.docBytes
	})
	if mark == nil || l.ordered() {
		return nil
	}
	return l.run.journal.written(l.table, mark)
}
