// Package judge says whether two states of MongoDB are the same, byte for byte. It reads a server through package wire, or a
// folder as mongodump writes it, and shares no code with the product.
//
// Words:
//   - state: the collections, views, time-series and users of a server at one time, each with options, indexes and documents.
//   - unread: a collection whose documents were not read, because no one time could be had for them (capped, not quiesced).
//   - bodies: small documents kept once for all states, to show what differs.
//
// What holds:
//  1. Two documents are the same only if their bytes are. Options and indexes are the same if they are equal as canonical
//     extended JSON, top-level fields in any order, top-level numbers by value (the server prints 64.0 or 64).
//  2. A document is found by the type and bytes of its _id, so that two documents with equal keys are seen as a difference.
//  3. The order of a capped collection is part of its state.
package judge

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"

	"go.mongodb.org/mongo-driver/bson"
)

// keepBytes is the size up to which documents are kept to show differences.
const keepBytes = 4 << 10

type hash [16]byte

// Bodies keeps the small documents of many states once.
type Bodies struct {
	mu sync.Mutex
	m  map[hash]bson.Raw
}

// NewBodies makes an empty store.
func NewBodies() *Bodies { return &Bodies{m: map[hash]bson.Raw{}} }

func (b *Bodies) add(h hash, raw bson.Raw) {
	if len(raw) > keepBytes {
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if _, ok := b.m[h]; !ok {
		b.m[h] = slices.Clone(raw)
	}
}

func (b *Bodies) get(h hash) bson.Raw {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.m[h]
}

// Namespace is the state of one collection or view.
type Namespace struct {
	Kind    string // collection, view, timeseries, auth
	Options map[string]string
	Indexes map[string]string
	Docs    map[string]hash // by type and bytes of _id
	Order   hash            // of a capped collection
	Capped  bool
	Unread  bool
}

// State is the state of a server.
type State struct {
	Namespaces map[string]*Namespace
	bodies     *Bodies
}

// Documents counts them.
func (s *State) Documents() int {
	n := 0
	for _, ns := range s.Namespaces {
		n += len(ns.Docs)
	}
	return n
}

// IDs calls f with the documents of a namespace whose bodies were kept.
func (s *State) IDs(ns string, f func(bson.Raw)) {
	if n := s.Namespaces[ns]; n != nil {
		for _, h := range n.Docs {
			f(s.bodies.get(h))
		}
	}
}

// digest collects the documents of one namespace.
type digest struct {
	ns     *Namespace
	bodies *Bodies
}

func (d digest) add(raw bson.Raw) error {
	sum := sha256.Sum256(raw)
	h := hash(sum[:16])
	key := string(raw)
	if id, err := raw.LookupErr("_id"); err == nil {
		key = string([]byte{byte(id.Type)}) + string(id.Value)
	}
	if len(key) > 128 {
		k := sha256.Sum256([]byte(key))
		key = "hash of long _id " + hex.EncodeToString(k[:])
	}
	for _, twice := d.ns.Docs[key]; twice; _, twice = d.ns.Docs[key] {
		key += "\x00again"
	}
	d.ns.Docs[key] = h
	if d.ns.Capped {
		next := sha256.Sum256(append(d.ns.Order[:], h[:]...))
		d.ns.Order = hash(next[:16])
	}
	d.bodies.add(h, raw)
	return nil
}

// Options of Compare.
type Options struct {
	Auth   bool // users and roles too
	Ignore func(namespace string) bool
}

// Compare lists what is different in got; nothing when the states are the same.
func Compare(want, got *State, o Options) []string {
	var diffs []string
	all := maps.Clone(want.Namespaces)
	maps.Copy(all, got.Namespaces)
	for _, name := range slices.Sorted(maps.Keys(all)) {
		w, g := want.Namespaces[name], got.Namespaces[name]
		switch {
		case o.Ignore != nil && o.Ignore(name), !o.Auth && all[name].Kind == "auth":
		case w == nil && g.Kind == "auth" && len(g.Docs) == 0, g == nil && w.Kind == "auth" && len(w.Docs) == 0:
		case w == nil:
			diffs = append(diffs, fmt.Sprintf("%s: a %s of %d documents that should not be there", name, g.Kind, len(g.Docs)))
		case g == nil:
			diffs = append(diffs, fmt.Sprintf("%s: missing, a %s of %d documents", name, w.Kind, len(w.Docs)))
		default:
			for _, d := range compareNamespace(w, g, want.bodies, got.bodies) {
				diffs = append(diffs, name+": "+d)
			}
		}
	}
	return diffs
}

func compareNamespace(w, g *Namespace, wb, gb *Bodies) []string {
	var diffs []string
	if w.Kind != g.Kind {
		diffs = append(diffs, fmt.Sprintf("kind %s, want %s", g.Kind, w.Kind))
	}
	diffs = append(diffs, compareMaps("option", w.Options, g.Options)...)
	diffs = append(diffs, compareMaps("index", w.Indexes, g.Indexes)...)
	if w.Unread || g.Unread {
		return diffs
	}
	before := len(diffs)
	for key, h := range w.Docs {
		have, ok := g.Docs[key]
		switch {
		case !ok:
			diffs = append(diffs, "document missing: "+show(wb.get(h), key))
		case have != h:
			diffs = append(diffs, fmt.Sprintf("document differs at %s\n    want %s\n    got  %s", where(wb.get(h), gb.get(have)), show(wb.get(h), key), show(gb.get(have), key)))
		}
	}
	for key, h := range g.Docs {
		if _, ok := w.Docs[key]; !ok {
			diffs = append(diffs, "document should not be there: "+show(gb.get(h), key))
		}
	}
	slices.Sort(diffs[before:])
	if len(diffs) == before && w.Capped && w.Order != g.Order {
		diffs = append(diffs, "same documents in another natural order (capped)")
	}
	return diffs
}

func compareMaps(what string, w, g map[string]string) []string {
	var diffs []string
	for _, k := range slices.Sorted(maps.Keys(w)) {
		if have, ok := g[k]; !ok {
			diffs = append(diffs, fmt.Sprintf("%s %q missing: %s", what, k, w[k]))
		} else if have != w[k] {
			diffs = append(diffs, fmt.Sprintf("%s %q is %s, want %s", what, k, have, w[k]))
		}
	}
	for _, k := range slices.Sorted(maps.Keys(g)) {
		if _, ok := w[k]; !ok {
			diffs = append(diffs, fmt.Sprintf("%s %q should not be there: %s", what, k, g[k]))
		}
	}
	return diffs
}

func show(raw bson.Raw, key string) string {
	if raw == nil {
		return fmt.Sprintf("(large) _id %q", key)
	}
	s := raw.String()
	if len(s) > 400 {
		s = s[:400] + "..."
	}
	return fmt.Sprintf("%s (%d bytes)", s, len(raw))
}

// where is the path of the first difference.
func where(a, b bson.Raw) string {
	if a == nil || b == nil {
		return "(too large to say)"
	}
	ea, erra := a.Elements()
	eb, errb := b.Elements()
	if erra != nil || errb != nil {
		return "(not readable)"
	}
	for i := range min(len(ea), len(eb)) {
		va, vb := ea[i].Value(), eb[i].Value()
		name := ea[i].Key()
		if name != eb[i].Key() {
			return fmt.Sprintf("field %d: name %q, want %q", i, eb[i].Key(), name)
		}
		if va.Type == vb.Type && string(va.Value) == string(vb.Value) {
			continue
		}
		if va.Type == vb.Type && (va.Type == bson.TypeEmbeddedDocument || va.Type == bson.TypeArray) {
			return name + "." + where(bson.Raw(va.Value), bson.Raw(vb.Value))
		}
		return fmt.Sprintf("%s: type %#x bytes %.64x, want type %#x bytes %.64x", name, byte(vb.Type), vb.Value, byte(va.Type), va.Value)
	}
	return fmt.Sprintf("%d fields, want %d", len(eb), len(ea))
}

// Summary prints the first differences, for a test's failure.
func Summary(diffs []string, most int) string {
	s := strings.Join(diffs[:min(len(diffs), most)], "\n  ")
	if len(diffs) > most {
		s += fmt.Sprintf("\n  and %d more", len(diffs)-most)
	}
	return "  " + s
}

// canonical prints one top-level value of options or an index: numbers by value, the rest exact.
func canonical(v bson.RawValue) string {
	if f, ok := v.AsInt64OK(); ok {
		return fmt.Sprint(f)
	}
	return v.String()
}

// fields prints a document's top-level fields, but the ones left out; those in nested are one level deeper without order.
func fields(d bson.Raw, omit, nested []string) (map[string]string, error) {
	out := map[string]string{}
	elems, err := d.Elements()
	if err != nil {
		return nil, fmt.Errorf("judge: %w", err)
	}
	for _, e := range elems {
		name, v := e.Key(), e.Value()
		if slices.Contains(omit, name) {
			continue
		}
		sub, isDoc := v.DocumentOK()
		if !isDoc || !slices.Contains(nested, name) {
			out[name] = canonical(v)
			continue
		}
		inner, err := fields(sub, nil, nil)
		if err != nil {
			return nil, err
		}
		keys := slices.SortedFunc(maps.Keys(inner), cmp.Compare[string])
		var b strings.Builder
		for _, k := range keys {
			fmt.Fprintf(&b, "%s=%s ", k, inner[k])
		}
		out[name] = b.String()
	}
	return out, nil
}

func optionsOf(d bson.Raw) (map[string]string, error) {
	return fields(d, []string{"uuid", "flags", "recordIdsReplicated"}, []string{"timeseries", "clusteredIndex", "collation", "changeStreamPreAndPostImages"})
}

func indexOf(d bson.Raw) (string, error) {
	m, err := fields(d, []string{"ns", "background", "buildUUID"}, []string{"collation", "weights"})
	if err != nil {
		return "", err
	}
	var b strings.Builder
	for _, k := range slices.Sorted(maps.Keys(m)) {
		fmt.Fprintf(&b, "%s=%s ", k, m[k])
	}
	return b.String(), nil
}
