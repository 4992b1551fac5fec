package snapshotter

import (
	"cmp"
	"context"
	"fmt"
	"math"
	"slices"
	"time"

	"github.com/afterimagedb/afterimage"
	"github.com/afterimagedb/afterimage/segment"
)

// TimeOfWall returns the last commit time at or before a moment of the source's wall clock, in milliseconds since the Unix
// epoch. Times are whole seconds and an ordinal, so only the second that the moment lies in is looked at: its changes
// that were committed by then are included, and everything of earlier seconds.
func (s *Snapshotter) TimeOfWall(ctx context.Context, wallMillis int64) (afterimage.Time, error) {
	sec := wallMillis / time.Second.Milliseconds()
	if wallMillis < 1000 || sec > math.MaxUint32 {
		return 0, afterimage.Usagef("the moment %d ms after 1970 is out of range", wallMillis)
	}
	first := afterimage.MongoTime(uint32(sec), 0)
	best := first - 1
	segments := s.changes(afterimage.Range{}, best, first.EndOfSecond())
	// A segment whose every row is out of the question is not read.
	slices.SortFunc(segments, func(a, b segment.Meta) int { return cmp.Compare(b.MaxTime, a.MaxTime) })
	for _, m := range segments {
		if m.MaxTime <= best {
			break
		}
		t, err := s.lastBy(ctx, m, best, first.EndOfSecond(), wallMillis)
		if err != nil {
			return 0, fmt.Errorf("map a moment to a commit time: %w", err)
		}
		best = max(best, t)
	}
	return best, nil
}

// lastBy returns the last time in (after, until] of a change of a segment that was committed by a moment.
func (s *Snapshotter) lastBy(ctx context.Context, m segment.Meta, after, until afterimage.Time, wallMillis int64) (afterimage.Time, error) {
	it, err := segment.Open(ctx, s.bucket, m, segment.ReadOptions{After: after, Until: until})
	if err != nil {
		return 0, err
	}
	defer discard(it)
	best := after
	for it.Next() {
		if c := it.Change(); c.Wall != 0 && c.Wall <= wallMillis {
			best = max(best, c.Time)
		}
	}
	return best, it.Err()
}
