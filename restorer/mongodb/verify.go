package mongodb

import (
	"bytes"
	"context"
	"fmt"

	"github.com/cenkalti/backoff/v5"
	"github.com/zeebo/xxh3"
	"go.mongodb.org/mongo-driver/mongo"

	"github.com/afterimagedb/afterimage/restorer"
)

// partitions is how finely a tally tells where two tables differ: only the partitions that do are read again.
const partitions = 1024

// tally sums the hashes of a table's documents by partition of their _id. Sums do not depend on the order of arrival.
type tally struct {
	parts [partitions]part
	last  uint64 // order of arrival, for capped collections
}

type part struct{ count, hi, lo uint64 }

func (t *tally) add(doc []byte) {
	h := xxh3.Hash128(doc)
	p := &t.parts[partition(doc)]
	p.count++
	p.hi += h.Hi
	p.lo += h.Lo
	t.last = t.last*0x9E3779B97F4A7C15 + h.Lo
}

func (t *tally) count() (n uint64) {
	for i := range t.parts {
		n += t.parts[i].count
	}
	return n
}

func partition(doc []byte) uint64 {
	_, id, err := identity(doc)
	if err != nil || id == nil {
		id = doc
	}
	return xxh3.Hash(id) % partitions
}

// verify reads the target back, as a majority of its members holds it, and compares. What a fail-over may have rolled back
// is written once more; then what still differs is reported by _id.
func (l *loader) verify(ctx context.Context) error {
	for try := 0; ; try++ {
		got, err := l.tally(ctx)
		if err != nil {
			return err
		}
		if got.parts == l.want.parts {
			if l.ordered() && got.last != l.want.last {
				l.fail("its documents have another natural order than at T")
				return nil
			}
			l.rep.Verified = true
			return nil
		}
		repairable, err := l.differences(ctx, got)
		if err != nil {
			return err
		}
		if try > 0 || repairable == 0 || l.ordered() {
			l.run.opts.Metrics.mismatches.Add(float64(len(l.rep.Mismatch)))
			return nil
		}
		if err := l.again(ctx, got); err != nil {
			return err
		}
		l.rep.Mismatch = nil
	}
}

// tally sums up the target collection, from the start again when a fail-over ends the reading.
func (l *loader) tally(ctx context.Context) (*tally, error) {
	return backoff.Retry(ctx, func() (*tally, error) {
		got := &tally{}
		err := l.readBack(ctx, got.add)
		if err != nil && !transient(err) && !hasCode(err, cursorCodes...) {
			err = backoff.Permanent(err)
		}
		return got, err
	}, patience()...)
}

// cursorCodes: the cursor is not there any more, or was killed.
var cursorCodes = []int{43, 175, 237}

// readBack calls f with every document of the target collection, in natural order.
func (l *loader) readBack(ctx context.Context, f func(doc []byte)) error {
	return l.run.target.scan(ctx, l.table.db, l.table.name, func(doc []byte) error {
		f(doc)
		return nil
	})
}

func (t *target) scan(ctx context.Context, db, coll string, f func(doc []byte) error) error {
	cmd := newCommand("find", coll).doc("hint", newDocument().i32("$natural", 1).end()).flag("noCursorTimeout", true)
	cmd, err := t.majority(ctx, cmd)
	if err != nil {
		return err
	}
	cur, err := t.client.Database(db).RunCommandCursor(ctx, cmd.end())
	if err != nil {
		return fmt.Errorf("read back: %w", err)
	}
	return drain(ctx, cur, f)
}

func drain(ctx context.Context, cur *mongo.Cursor, f func(doc []byte) error) error {
	defer func() { _ = cur.Close(context.WithoutCancel(ctx)) }()
	for cur.Next(ctx) {
		if err := f(cur.Current); err != nil {
			return err
		}
	}
	if err := cur.Err(); err != nil {
		return fmt.Errorf("read back: %w", err)
	}
	return nil
}

// heldMax bounds the hashes that a search for differences keeps in memory: partitions are searched in groups.
const heldMax = 1 << 20

// mismatchesMax bounds the report.
const mismatchesMax = 100

// differences names what differs, reading the differing partitions of both sides again. It returns
// how many a fail-over may have taken: those that are missing or lack their exact fix.
func (l *loader) differences(ctx context.Context, got *tally) (repairable int, err error) {
	group := make(map[uint64]bool)
	var held uint64
	flush := func() error {
		n, err := l.compare(ctx, group)
		repairable += n
		clear(group)
		held = 0
		return err
	}
	for i := range got.parts {
		if got.parts[i] == l.want.parts[i] {
			continue
		}
		group[uint64(i)] = true
		if held += got.parts[i].count; held > heldMax {
			if err := flush(); err != nil {
				return repairable, err
			}
		}
	}
	return repairable, flush()
}

// compare reads the partitions in group from both sides.
func (l *loader) compare(ctx context.Context, group map[uint64]bool) (repairable int, err error) {
	if len(group) == 0 {
		return 0, nil
	}
	there := map[string]xxh3.Uint128{}
	err = l.readBack(ctx, func(doc []byte) {
		if group[partition(doc)] {
			there[idKey(doc)] = xxh3.Hash128(doc)
		}
	})
	if err != nil {
		return 0, err
	}
	err = l.source(ctx, func(doc []byte) error {
		if !group[partition(doc)] {
			return nil
		}
		h, ok := there[idKey(doc)]
		delete(there, idKey(doc))
		switch {
		case !ok:
			repairable++
			l.mismatch(idText(doc), "is missing")
		case h != xxh3.Hash128(doc):
			if c := bytes.Clone(doc); setPlaceholders(c) != nil && h == xxh3.Hash128(c) {
				repairable++ // the fix was rolled back, the insert was not
			}
			l.mismatch(idText(doc), "differs")
		}
		return nil
	})
	for id := range there {
		l.mismatch(valueText(id[0], []byte(id[1:])), "is not in the source: written by someone else while the restore ran")
	}
	return repairable, err
}

func (l *loader) mismatch(id, problem string) {
	if len(l.rep.Mismatch) < mismatchesMax {
		l.rep.Mismatch = append(l.rep.Mismatch, restorer.Mismatch{ID: id, Problem: problem})
	}
}

// idKey is the type and the bytes of _id.
func idKey(doc []byte) string {
	typ, id, err := identity(doc)
	if err != nil || id == nil {
		return "\x03" + string(doc)
	}
	return string(append([]byte{typ}, id...))
}

// source calls f with every document as it is to be in the target.
func (l *loader) source(ctx context.Context, f func(doc []byte) error) error {
	rows, err := l.run.opts.Source.Rows(ctx, l.table.table)
	if err != nil {
		return fmt.Errorf("read the source: %w", err)
	}
	defer func() { _ = rows.Close() }()
	var masked []byte
	for rows.Next() {
		body, err := l.table.mask.apply(&masked, rows.Body())
		if err == nil {
			err = f(body)
		}
		if err != nil {
			return err
		}
	}
	if err := rows.Err(); err != nil {
		return fmt.Errorf("read the source: %w", err)
	}
	return nil
}

// again writes the documents of differing partitions once more; those that are there are left alone.
func (l *loader) again(ctx context.Context, got *tally) error {
	b := l.run.buffers.Get().(*batch)
	defer l.run.buffers.Put(b)
	prefix := insertPrefix(l.table.name, false)
	b.begin(prefix, 0)
	err := l.source(ctx, func(doc []byte) error {
		if n := partition(doc); got.parts[n] == l.want.parts[n] {
			return nil
		}
		if b.full(len(doc)) {
			if err := l.write(ctx, b); err != nil {
				return err
			}
			b.begin(prefix, 0)
		}
		b.add(doc)
		return nil
	})
	if err != nil || len(b.spans) == 0 {
		return err
	}
	return l.write(ctx, b)
}

// skipCapped lets rows pass that an earlier run has written: what the target holds must be the first rows of the source.
func (l *loader) skipCapped(ctx context.Context, rows restorer.Rows) error {
	var masked []byte
	return l.run.target.scan(ctx, l.table.db, l.table.name, func(doc []byte) error {
		if !rows.Next() {
			return fmt.Errorf("the target holds more documents than there were at T: someone else wrote to it")
		}
		body, err := l.table.mask.apply(&masked, rows.Body())
		if err != nil {
			return err
		}
		if err := l.sameCapped(ctx, doc, body); err != nil {
			return err
		}
		l.want.add(body)
		l.rep.Documents++
		l.rep.Bytes += int64(len(body))
		return nil
	})
}

// sameCapped checks a document that an earlier run has written; that run may have ended before its exact fix.
func (l *loader) sameCapped(ctx context.Context, there, body []byte) error {
	if bytes.Equal(there, body) {
		return nil
	}
	b := l.run.buffers.Get().(*batch)
	defer l.run.buffers.Put(b)
	b.begin(nil, 0)
	b.add(body)
	if !bytes.Equal(there, b.doc(0)) {
		return fmt.Errorf("the target holds %s where the source has %s: someone else wrote to it", idText(there), idText(body))
	}
	return l.fix(ctx, b)
}
