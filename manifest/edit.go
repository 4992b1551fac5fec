package manifest

import (
	"fmt"
	"maps"
	"slices"

	"github.com/afterimagedb/afterimage"
	"github.com/afterimagedb/afterimage/segment"
)

// Edit is what a commit changes. Its fields are applied in the order in which they stand here.
type Edit struct {
	Lanes          []LaneEdit                        `json:"lanes,omitempty"`
	AddSegments    []segment.Meta                    `json:"addSegments,omitempty"`
	AddImages      []Image                           `json:"addImages,omitempty"`
	RemoveImages   []string                          `json:"removeImages,omitempty"`
	RemoveSegments []string                          `json:"removeSegments,omitempty"` // their objects become doomed
	SetScans       map[afterimage.TableID]Scan       `json:"setScans,omitempty"`
	EndScans       []afterimage.TableID              `json:"endScans,omitempty"`
	SetWindows     map[afterimage.TableID][]Interval `json:"setWindows,omitempty"`
	AddGaps        []Gap                             `json:"addGaps,omitempty"`
	AddUncertified []Uncertified                     `json:"addUncertified,omitempty"`
	SetBoundaries  []afterimage.Bound                `json:"setBoundaries,omitempty"`
	Swept          []string                          `json:"swept,omitempty"` // doomed objects that have been deleted
}

// LaneEdit advances a lane, or adds it when Extends is nil. The lane takes the value of Lane whole.
type LaneEdit struct {
	Extends *afterimage.Position `json:"extends,omitempty"` // the coverage this edit was prepared on
	Lane    Lane                 `json:"lane"`
}

// IsZero reports whether the edit changes nothing.
func (e *Edit) IsZero() bool {
	return len(e.Lanes) == 0 && len(e.AddSegments) == 0 && len(e.AddImages) == 0 && len(e.RemoveImages) == 0 &&
		len(e.RemoveSegments) == 0 && len(e.SetScans) == 0 && len(e.EndScans) == 0 && len(e.SetWindows) == 0 &&
		len(e.AddGaps) == 0 && len(e.AddUncertified) == 0 && len(e.SetBoundaries) == 0 && len(e.Swept) == 0
}

// NewState is the state before the first commit.
func NewState() *State {
	return &State{
		Segments: map[string]segment.Meta{},
		Scans:    map[afterimage.TableID]Scan{},
		Windows:  map[afterimage.TableID][]Interval{},
		Doomed:   map[string]int64{},
	}
}

// Apply returns the state after e, committed at wall (milliseconds since the Unix epoch). s is left as it was.
// An error means that e was prepared on a state that no longer holds, or is inconsistent in itself.
func (s *State) Apply(e Edit, wall int64) (*State, error) {
	n := *s
	n.Number++
	if err := n.applyLanes(e.Lanes); err != nil {
		return nil, err
	}
	if err := n.applySegments(&e, wall); err != nil {
		return nil, err
	}
	if len(e.SetScans) > 0 || len(e.EndScans) > 0 {
		n.Scans = maps.Clone(n.Scans)
		maps.Copy(n.Scans, e.SetScans)
		for _, id := range e.EndScans {
			delete(n.Scans, id)
		}
	}
	if len(e.SetWindows) > 0 {
		n.Windows = maps.Clone(n.Windows)
		maps.Copy(n.Windows, e.SetWindows)
	}
	n.Gaps = append(slices.Clip(n.Gaps), e.AddGaps...)
	n.Uncertified = append(slices.Clip(n.Uncertified), e.AddUncertified...)
	if len(e.SetBoundaries) > 0 {
		n.Boundaries = e.SetBoundaries
	}
	return &n, nil
}

func (s *State) applyLanes(edits []LaneEdit) error {
	if len(edits) == 0 {
		return nil
	}
	s.Lanes = slices.Clone(s.Lanes)
	for _, le := range edits {
		switch i := int(le.Lane.ID); {
		case le.Extends == nil && i == len(s.Lanes):
			s.Lanes = append(s.Lanes, le.Lane)
		case le.Extends == nil || i >= len(s.Lanes):
			return fmt.Errorf("lane %d (%s): %d lanes exist", i, le.Lane.Name, len(s.Lanes))
		case s.Lanes[i].Covered != *le.Extends:
			return fmt.Errorf("lane %s is covered to %s, the edit extends %s", s.Lanes[i].Name, s.Lanes[i].Covered, *le.Extends)
		case le.Lane.Covered.Less(*le.Extends):
			return fmt.Errorf("lane %s: coverage would shrink from %s to %s", s.Lanes[i].Name, *le.Extends, le.Lane.Covered)
		default:
			s.Lanes[i] = le.Lane
		}
	}
	return nil
}

func (s *State) applySegments(e *Edit, wall int64) error {
	if len(e.AddSegments)+len(e.AddImages)+len(e.RemoveImages)+len(e.RemoveSegments)+len(e.Swept) == 0 {
		return nil
	}
	s.Segments, s.Doomed = maps.Clone(s.Segments), maps.Clone(s.Doomed)
	for _, m := range e.AddSegments {
		if _, ok := s.Segments[m.ID]; ok {
			return fmt.Errorf("segment %s is live already", m.ID)
		}
		if _, ok := s.Doomed[segment.ObjectName(m.ID)]; ok {
			return fmt.Errorf("segment %s is doomed", m.ID)
		}
		s.Segments[m.ID] = m
	}
	s.Images = append(slices.Clip(s.Images), e.AddImages...)
	s.Images = slices.DeleteFunc(slices.Clone(s.Images), func(im Image) bool { return slices.Contains(e.RemoveImages, im.ID) })
	for _, id := range e.RemoveSegments {
		if _, ok := s.Segments[id]; !ok {
			return fmt.Errorf("segment %s is not live", id)
		}
		delete(s.Segments, id)
		s.Doomed[segment.ObjectName(id)] = wall
	}
	for _, im := range s.Images {
		for _, id := range im.Segments {
			if _, ok := s.Segments[id]; !ok {
				return fmt.Errorf("image %s uses segment %s, which is not live", im.ID, id)
			}
		}
	}
	for _, name := range e.Swept {
		delete(s.Doomed, name)
	}
	return nil
}

// Lane returns the lane of that name, the newest incarnation.
func (s *State) Lane(name string) (Lane, bool) {
	for _, v := range slices.Backward(s.Lanes) {
		if v.Name == name {
			return v, true
		}
	}
	return Lane{}, false
}

// Horizon is the time up to which nothing more can appear in any lane; 0 without lanes. Of several incarnations of a lane
// only the newest counts: the log of the others has ended.
func (s *State) Horizon() afterimage.Time {
	h := afterimage.MaxTime
	for i, l := range s.Lanes {
		if !slices.ContainsFunc(s.Lanes[i+1:], func(m Lane) bool { return m.Name == l.Name }) {
			h = min(h, l.Horizon)
		}
	}
	if len(s.Lanes) == 0 {
		return 0
	}
	return h
}
