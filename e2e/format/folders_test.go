//go:build e2e

package format

import (
	"bytes"
	"encoding/json"
	"errors"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
)

// compareFolders wants the same files with the same bytes, but for what mongodump adds of its own: the server's version
// documents, the config database, and its prelude.
func compareFolders(t *testing.T, theirs, ours string) {
	t.Helper()
	a, b := files(t, theirs), files(t, ours)
	names := slices.Sorted(maps.Keys(a))
	for name := range b {
		if _, ok := a[name]; !ok {
			names = append(names, name)
		}
	}
	for _, name := range names {
		if name == "prelude.json" || strings.HasPrefix(name, "config/") || strings.HasPrefix(name, "admin/system.version") {
			continue
		}
		same := bytes.Equal(a[name], b[name])
		if !same && strings.HasSuffix(name, ".metadata.json") {
			same = sameButOrder(t, a[name], b[name])
		}
		if !same {
			t.Errorf("%s differs (%d and %d bytes)\nmongodump: %.1500s\n     ours: %.1500s", name, len(a[name]), len(b[name]), a[name], b[name])
		}
	}
}

// sameButOrder allows another order of the fields of an index: listIndexes sorts them, the catalog keeps the oplog's.
func sameButOrder(t *testing.T, a, b []byte) bool {
	t.Helper()
	var x, y any
	if err := errors.Join(json.Unmarshal(a, &x), json.Unmarshal(b, &y)); err != nil {
		t.Error(err)
	}
	return len(a) == len(b) && reflect.DeepEqual(x, y)
}

func files(t *testing.T, root string) map[string][]byte {
	t.Helper()
	out := map[string][]byte{}
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		name, err := filepath.Rel(root, path)
		if err != nil {
			return err
		}
		out[name], err = os.ReadFile(path)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}
