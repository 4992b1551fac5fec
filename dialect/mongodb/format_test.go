package mongodb_test

import (
	"bufio"
	"encoding/hex"
	"os"
	"strings"
	"testing"

	"github.com/afterimagedb/afterimage/dialect/mongodb"
)

// TestFormatPage checks the keys that docs/format/mongodb.md shows.
func TestFormatPage(t *testing.T) {
	f, err := os.Open("../../docs/format/mongodb.md")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	seen, inside := 0, false
	for lines := bufio.NewScanner(f); lines.Scan(); {
		line := lines.Text()
		inside = inside || strings.HasPrefix(line, "Examples, which a test reads")
		parts := strings.Split(line, " | ")
		if !inside || len(parts) != 2 || !strings.HasPrefix(line, "| `") {
			inside = inside && !strings.HasPrefix(line, "The key of a catalog row")
			continue
		}
		id := strings.TrimSuffix(strings.TrimPrefix(parts[0], "| `"), "`")
		want := strings.TrimSuffix(parts[1], " |")
		key, err := mongodb.AppendDocKey(nil, doc(t, `{"_id":`+id+`}`))
		if got := hex.EncodeToString(key); err != nil || got != want {
			t.Errorf("%s: key %s (%v), the page says %s", id, got, err, want)
		}
		seen++
	}
	if seen < 10 {
		t.Errorf("%d examples found", seen)
	}
}
