package judge

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net/url"
	"os"
	"path/filepath"
	"strings"

	"go.mongodb.org/mongo-driver/bson"
)

// documentMax is more than the greatest document that a server keeps.
const documentMax = 17 << 20

// ReadFolder reads a folder as mongodump writes it, not compressed.
func ReadFolder(dir string, bodies *Bodies) (*State, error) {
	s := &State{Namespaces: map[string]*Namespace{}, bodies: bodies}
	metas, err := filepath.Glob(filepath.Join(escapeGlob(dir), "*", "*.metadata.json"))
	if err != nil {
		return nil, fmt.Errorf("judge: %w", err)
	}
	for _, path := range metas {
		if err := s.readMeta(path); err != nil {
			return nil, fmt.Errorf("judge: %s: %w", path, err)
		}
	}
	return s, nil
}

func escapeGlob(s string) string {
	return strings.NewReplacer(`\`, `\\`, `*`, `\*`, `?`, `\?`, `[`, `\[`).Replace(s)
}

func (s *State) readMeta(path string) error {
	db, base := filepath.Base(filepath.Dir(path)), strings.TrimSuffix(filepath.Base(path), ".metadata.json")
	text, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	var meta bson.Raw
	if err := bson.UnmarshalExtJSON(text, true, &meta); err != nil {
		return err
	}
	name, ok := meta.Lookup("collectionName").StringValueOK()
	if !ok {
		if name, err = url.PathUnescape(base); err != nil {
			return err
		}
	}
	n := &Namespace{Kind: "collection", Docs: map[string]hash{}, Indexes: map[string]string{}}
	switch {
	case name == "system.views", name == "system.profile", db == "config", db == "local":
		return nil
	case db == "admin" && (name == "system.users" || name == "system.roles"):
		n.Kind = "auth"
	case db == "admin":
		return nil
	default:
		if err := n.readMeta(meta); err != nil {
			return err
		}
	}
	s.Namespaces[db+"."+strings.TrimPrefix(name, "system.buckets.")] = n
	return s.readDocs(n, strings.TrimSuffix(path, ".metadata.json"))
}

func (n *Namespace) readMeta(meta bson.Raw) (err error) {
	options, ok := meta.Lookup("options").DocumentOK()
	if !ok {
		options = bson.Raw{5, 0, 0, 0, 0}
	}
	if n.Options, err = optionsOf(options); err != nil {
		return err
	}
	n.Capped = n.Options["capped"] == "true"
	if _, is := n.Options["viewOn"]; is {
		n.Kind, n.Docs, n.Indexes = "view", nil, nil
		return nil
	}
	if _, is := n.Options["timeseries"]; is {
		n.Kind = "timeseries"
	}
	indexes, ok := meta.Lookup("indexes").ArrayOK()
	if !ok {
		return nil
	}
	specs, err := indexes.Values()
	if err != nil {
		return err
	}
	for _, spec := range specs {
		d := spec.Document()
		if n.Indexes[d.Lookup("name").StringValue()], err = indexOf(d); err != nil {
			return err
		}
	}
	return nil
}

// readDocs reads the documents beside a metadata file; a time-series has them under the name of its buckets.
func (s *State) readDocs(n *Namespace, stem string) error {
	if n.Kind == "view" {
		return nil
	}
	if n.Kind == "timeseries" && !strings.HasPrefix(filepath.Base(stem), "system.buckets.") {
		stem = filepath.Join(filepath.Dir(stem), "system.buckets."+filepath.Base(stem))
	}
	f, err := os.Open(stem + ".bson")
	if err != nil {
		return err
	}
	defer f.Close()
	r := bufio.NewReaderSize(f, 1<<20)
	for {
		head, err := r.Peek(4)
		if errors.Is(err, io.EOF) && len(head) == 0 {
			return nil
		}
		if err != nil {
			return err
		}
		size := binary.LittleEndian.Uint32(head)
		if size < 5 || size > documentMax {
			return fmt.Errorf("a document of %d bytes", size)
		}
		raw := make(bson.Raw, size)
		if _, err := io.ReadFull(r, raw); err != nil {
			return err
		}
		if err := (digest{n, s.bodies}).add(raw); err != nil {
			return err
		}
	}
}
