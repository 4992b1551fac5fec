package config

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/afterimagedb/afterimage"
)

func load(t *testing.T, text string, env map[string]string) (*Config, error) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "afterimage.yaml")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return Load(path, func(k string) string { return env[k] })
}

func TestLoad(t *testing.T) {
	c, err := load(t, `
data_dir: /var/lib/afterimage
sources:
  - name: shop
    mongodb: { uri: "mongodb://u:${PW}@db1/?replicaSet=rs0", look_back: 336h }
`, map[string]string{"PW": "s3cret", "AFTERIMAGE_HTTP": "127.0.0.1:1"})
	if err != nil {
		t.Fatal(err)
	}
	if c.Bucket != "file:///var/lib/afterimage/bucket" || c.Stream != "embedded" || c.HTTP != "127.0.0.1:1" {
		t.Errorf("defaults and environment: %+v", c)
	}
	m := c.Sources[0].MongoDB
	if m.URI != "mongodb://u:s3cret@db1/?replicaSet=rs0" || time.Duration(m.LookBack) != 336*time.Hour {
		t.Errorf("source: %+v", m)
	}
}

func TestLoadRefuses(t *testing.T) {
	for name, c := range map[string]struct{ text, want string }{
		"typo":        {"sorces: []\n", "unknown key sorces"},
		"duration":    {"sources: [{name: a, mongodb: {uri: 'mongodb://x', look_back: 3 weeks}}]\n", "not a duration"},
		"no uri":      {"sources: [{name: a, mongodb: {}}]\n", "mongodb.uri is missing"},
		"bad uri":     {"sources: [{name: a, mongodb: {uri: 'localhost:1'}}]\n", "want mongodb://"},
		"twice":       {"sources: [{name: a, mongodb: {uri: 'mongodb://x'}}, {name: a, mongodb: {uri: 'mongodb://y'}}]\n", "twice"},
		"bad name":    {"sources: [{name: A/b, mongodb: {uri: 'mongodb://x'}}]\n", "lower-case"},
		"env not set": {"sources: [{name: a, mongodb: {uri: 'mongodb://${NOPE}'}}]\n", "NOPE"},
		"not yaml":    {"a: [\n", "afterimage.yaml"},
		"stream":      {"stream: 'http://u:pw@h'\n", "want embedded"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := load(t, c.text, nil)
			var usage *afterimage.UsageError
			if !errors.As(err, &usage) || !strings.Contains(err.Error(), c.want) {
				t.Fatalf("got %v, want a usage error with %q", err, c.want)
			}
			if strings.Contains(err.Error(), "pw") {
				t.Errorf("a secret is printed: %v", err)
			}
		})
	}
}
