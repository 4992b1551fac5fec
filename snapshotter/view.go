package snapshotter

import (
	"context"
	"slices"
	"strings"

	"github.com/afterimagedb/afterimage"
	"github.com/afterimagedb/afterimage/dialect"
)

// Selector chooses namespaces by patterns. In a pattern `*` stands for any run of characters; a pattern without a dot
// names a whole database. Nothing in Include means everything; Exclude wins over Include.
type Selector struct {
	Include []string
	Exclude []string
}

// Match reports whether the namespace is chosen.
func (s Selector) Match(namespace string) bool {
	matches := func(p string) bool { return matchNamespace(p, namespace) }
	return !slices.ContainsFunc(s.Exclude, matches) && (len(s.Include) == 0 || slices.ContainsFunc(s.Include, matches))
}

func matchNamespace(pattern, namespace string) bool {
	if !strings.Contains(pattern, ".") && pattern != "*" {
		pattern += ".*"
	}
	parts := strings.Split(pattern, "*")
	if len(parts) == 1 {
		return pattern == namespace
	}
	first, last := parts[0], parts[len(parts)-1]
	if len(namespace) < len(first)+len(last) || !strings.HasPrefix(namespace, first) || !strings.HasSuffix(namespace, last) {
		return false
	}
	// What lies between the ends is found greedily from the left, which leaves the most for what follows.
	rest := namespace[len(first) : len(namespace)-len(last)]
	for _, part := range parts[1 : len(parts)-1] {
		i := strings.Index(rest, part)
		if i < 0 {
			return false
		}
		rest = rest[i+len(part):]
	}
	return true
}

// View is the state of the chosen tables at one time. It is safe for concurrent use.
type View struct {
	s   *Snapshotter
	at  afterimage.Time
	sel Selector
}

// At fixes a time and a selection.
func (s *Snapshotter) At(at afterimage.Time, sel Selector) *View {
	return &View{s: s, at: at, sel: sel}
}

// Time is the time of the view.
func (v *View) Time() afterimage.Time { return v.at }

// Tables returns the chosen tables that lived at the view's time, by namespace.
func (v *View) Tables(ctx context.Context) ([]dialect.Table, error) {
	tables, err := v.s.Catalog(ctx, v.at)
	if err != nil {
		return nil, err
	}
	return slices.DeleteFunc(tables, func(t dialect.Table) bool { return !v.sel.Match(t.Namespace) }), nil
}

// Rows reads the rows of a table in the order of their keys, or of their birth when t.Ordered.
func (v *View) Rows(ctx context.Context, t dialect.Table) (*Rows, error) {
	return v.s.Rows(ctx, t, v.at, afterimage.Range{})
}

// Row returns one row, nil when there was none. The bytes are the caller's.
func (v *View) Row(ctx context.Context, t dialect.Table, key []byte) ([]byte, error) {
	st, err := v.s.Row(ctx, t, key, v.at)
	if err != nil || !st.Exists {
		return nil, err
	}
	return st.Body, nil
}
