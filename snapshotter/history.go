package snapshotter

import (
	"context"
	"fmt"
	"slices"

	"github.com/afterimagedb/afterimage"
	"github.com/afterimagedb/afterimage/dialect"
)

// FieldNamer is what a dialect may implement so that histories say what changed.
type FieldNamer interface {
	// ChangedFields names the top-level fields that differ between two bodies of a row; either may be nil.
	ChangedFields(before, after []byte) []string
}

// Version is a row from one change to the next.
type Version struct {
	Time   afterimage.Time   `json:"time"`             // commit time of the change that made it
	Order  uint32            `json:"order"`            // of the change within Time
	Wall   int64             `json:"wall,omitempty"`   // the source's clock at commit, milliseconds since the Unix epoch; 0 if unknown
	Op     afterimage.Op     `json:"op"`               // of the change; OpPut or OpDelete when Since
	Lane   afterimage.LaneID `json:"lane"`             //
	Since  bool              `json:"since,omitempty"`  // not a change: the row is known to have been so from Time on
	Known  bool              `json:"known"`            // false: an update whose base is not known, only that it happened
	Exists bool              `json:"exists"`           //
	Body   []byte            `json:"body,omitempty"`   // the row after the change, nil when it does not exist or is not known
	Fields []string          `json:"fields,omitempty"` // top-level fields that differ from the version before, see FieldNamer
}

// History returns the versions of a row in (from, to], oldest first, led by what it was at from, or when its table's
// window opened. Rows of images that repeat a known version are none. It reads a few ranges of objects only.
func (s *Snapshotter) History(ctx context.Context, t dialect.Table, key []byte, from, to afterimage.Time) ([]Version, error) {
	var out []Version
	err := s.EachVersion(ctx, t, key, from, to, func(v *Version) error {
		c := *v
		c.Body = slices.Clone(v.Body)
		out = append(out, c)
		return nil
	})
	return out, err
}

// EachVersion is [Snapshotter.History] without holding the versions; the body is valid during the call only. An error of
// fn ends it.
func (s *Snapshotter) EachVersion(ctx context.Context, t dialect.Table, key []byte, from, to afterimage.Time, fn func(*Version) error) error {
	if from > to {
		return afterimage.Usagef("history from %s to %s: the first lies after the second", from, to)
	}
	namer, _ := s.dialect.(FieldNamer)
	err := s.walk(ctx, t.ID, afterimage.KeyRange(t.ID, key), from, to, func(st *step) error {
		v := versionOf(st)
		if namer != nil && st.before.known && st.after.known {
			v.Fields = namer.ChangedFields(st.before.full(), st.after.full())
		}
		return fn(&v)
	})
	if err != nil {
		return fmt.Errorf("history of %s in %s: %w", s.keyText(key), named(t), err)
	}
	return nil
}

// full is the body, nil when there is none.
func (r *rowState) full() []byte {
	if !r.known || !r.exists {
		return nil
	}
	return r.body
}

func versionOf(st *step) Version {
	v := Version{
		Time: st.time, Order: afterimage.OrderImage, Lane: st.lane, Op: afterimage.OpPut,
		Since: st.change == nil, Known: st.after.known, Exists: st.after.exists, Body: st.after.full(),
	}
	if c := st.change; c != nil {
		v.Order, v.Wall, v.Op = c.Order, c.Wall, c.Op
	} else if !st.after.exists {
		v.Op = afterimage.OpDelete
	}
	return v
}

// keyText names a key in errors: keys are not meant to be read.
func (*Snapshotter) keyText(key []byte) string { return fmt.Sprintf("key %x", key) }
