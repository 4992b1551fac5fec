package segment

import (
	"errors"

	"github.com/afterimagedb/afterimage"
)

// SliceIterator walks a sorted slice; the slice is the caller's and must not change meanwhile.
func SliceIterator(changes []afterimage.Change) Iterator { return &sliceIterator{rest: changes} }

type sliceIterator struct {
	rest    []afterimage.Change
	current *afterimage.Change
}

func (s *sliceIterator) Next() bool {
	if len(s.rest) == 0 {
		return false
	}
	s.current, s.rest = &s.rest[0], s.rest[1:]
	return true
}

func (s *sliceIterator) Change() *afterimage.Change { return s.current }
func (s *sliceIterator) Err() error                 { return nil }

func (s *sliceIterator) Close() error {
	s.rest = nil
	return nil
}

// Merge walks its inputs as one, in ascending order. Of changes with the same place (table, key, time and order), which
// are the same change, the one of the earliest input is kept. The first error of an input ends it. Close closes all.
func Merge(its ...Iterator) Iterator {
	if len(its) == 1 {
		return its[0]
	}
	return &merge{its: its}
}

// merge is a loser tree: tree[1:] holds the losers of the matches, tree[0] the winner. Inputs that ended lose to all.
type merge struct {
	its    []Iterator
	heads  []*afterimage.Change // current change by input, nil when it ended
	tree   []int
	last   afterimage.Change // place of the change returned; its key is ours
	began  bool
	closed bool
	err    error
}

// Next moves to the next change.
func (m *merge) Next() bool {
	if m.err != nil || m.closed || len(m.its) == 0 {
		return false
	}
	if !m.began {
		if !m.start() {
			return false
		}
	} else if m.heads[m.tree[0]] == nil || !m.pull(m.tree[0]) {
		return false
	}
	for {
		c := m.heads[m.tree[0]]
		if c == nil {
			return false
		}
		if m.began && m.last.Compare(c) == 0 {
			if !m.pull(m.tree[0]) {
				return false
			}
			continue
		}
		m.began = true
		m.last.Table, m.last.Time, m.last.Order = c.Table, c.Time, c.Order
		m.last.Key = append(m.last.Key[:0], c.Key...)
		return true
	}
}

// start reads the first change of every input and plays all matches.
func (m *merge) start() bool {
	k := len(m.its)
	m.heads, m.tree = make([]*afterimage.Change, k), make([]int, k)
	for i := range m.its {
		if !m.read(i) {
			return false
		}
	}
	// Node n has children 2n and 2n+1; leaf of input i is node k+i.
	winners := make([]int, 2*k)
	for i := range k {
		winners[k+i] = i
	}
	for n := k - 1; n >= 1; n-- {
		a, b := winners[2*n], winners[2*n+1]
		if m.less(b, a) {
			a, b = b, a
		}
		winners[n], m.tree[n] = a, b
	}
	m.tree[0] = winners[1]
	return true
}

// read moves input i on and reports whether there was no error.
func (m *merge) read(i int) bool {
	if m.its[i].Next() {
		m.heads[i] = m.its[i].Change()
		return true
	}
	m.heads[i] = nil
	m.err = m.its[i].Err()
	return m.err == nil
}

// pull moves the winning input on and replays its matches.
func (m *merge) pull(i int) bool {
	if !m.read(i) {
		return false
	}
	for n := (len(m.its) + i) / 2; n >= 1; n /= 2 {
		if m.less(m.tree[n], i) {
			m.tree[n], i = i, m.tree[n]
		}
	}
	m.tree[0] = i
	return true
}

// less orders inputs by their heads; the earlier input wins a tie.
func (m *merge) less(a, b int) bool {
	x, y := m.heads[a], m.heads[b]
	if x == nil || y == nil {
		return x != nil
	}
	if n := x.Compare(y); n != 0 {
		return n < 0
	}
	return a < b
}

// Change returns the current change.
func (m *merge) Change() *afterimage.Change { return m.heads[m.tree[0]] }

// Err returns what ended the merge early.
func (m *merge) Err() error { return m.err }

// Close closes all inputs.
func (m *merge) Close() error {
	m.closed = true
	var errs []error
	for _, it := range m.its {
		errs = append(errs, it.Close())
	}
	return errors.Join(errs...)
}
