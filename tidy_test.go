package afterimage_test

import (
	"bytes"
	"os/exec"
	"slices"
	"strings"
	"testing"
)

const module = "github.com/afterimagedb/afterimage"

// may is the architecture: which of our packages each package imports. Stages (listeners, stream, compactor, snapshotter,
// restorer) never import one another; the vocabulary points down; only cmd and e2e see all of it.
var may = map[string][]string{
	"":                         {},
	"segment":                  {""},
	"bucket":                   {""},
	"bucket/s3":                {"", "bucket"},
	"bucket/open":              {"", "bucket", "bucket/s3"},
	"bucket/buckettest":        {"bucket"},
	"dialect":                  {""},
	"dialect/mongodb":          {"", "dialect"},
	"manifest":                 {"", "bucket", "segment"},
	"fold":                     {"", "dialect", "segment"},
	"config":                   {""},
	"listeners":                {""},
	"listeners/mongodb":        {"", "bucket", "dialect/mongodb", "listeners", "listeners/mongodb/oplog", "manifest", "segment"},
	"listeners/mongodb/oplog":  {"", "dialect/mongodb", "manifest"},
	"stream":                   {""},
	"compactor":                {"", "bucket", "dialect", "fold", "manifest", "segment"},
	"snapshotter":              {"", "dialect", "fold", "manifest", "segment"},
	"snapshotter/format":       {"", "dialect", "dialect/mongodb"},
	"snapshotter/format/bson":  {"snapshotter/format"},
	"snapshotter/format/jsonl": {"snapshotter/format"},
	"restorer":                 {"", "dialect"},
	"restorer/mongodb":         {"", "dialect", "dialect/mongodb", "restorer"},
}

// TestImports checks the imports of the code itself (not of tests) against the table. cmd and e2e may import anything.
func TestImports(t *testing.T) {
	out, err := exec.Command("go", "list", "-f", `{{.ImportPath}} {{join .Imports ","}}`, "./...").Output()
	if err != nil {
		t.Fatalf("go list: %v", err)
	}
	seen := map[string]bool{}
	for line := range bytes.Lines(out) {
		path, imports, _ := strings.Cut(strings.TrimSpace(string(line)), " ")
		pkg := ours(path)
		if strings.HasPrefix(pkg, "cmd/") || pkg == "e2e" || strings.HasPrefix(pkg, "e2e/") {
			continue
		}
		seen[pkg] = true
		allowed, known := may[pkg]
		if !known {
			t.Errorf("package %s has no line in the import table", pkg)
			continue
		}
		for imp := range strings.SplitSeq(imports, ",") {
			if !strings.HasPrefix(imp, module) {
				continue
			}
			if !slices.Contains(allowed, ours(imp)) {
				t.Errorf("package %s imports %s, which the import table does not allow", pkg, ours(imp))
			}
		}
	}
	for pkg := range may {
		if !seen[pkg] {
			t.Errorf("package %q is in the import table but not in the tree", pkg)
		}
	}
}

func ours(path string) string {
	return strings.TrimPrefix(strings.TrimPrefix(path, module), "/")
}
