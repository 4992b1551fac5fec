// Package config reads afterimage.yaml: strict about keys, so that a typo is an error and not a default; environment
// variables override; secrets may be references, and are never printed.
package config

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"time"

	"gopkg.in/yaml.v3"

	"github.com/afterimagedb/afterimage"
)

// Config is the whole file.
type Config struct {
	DataDir string   `yaml:"data_dir"` // default ./data
	Bucket  string   `yaml:"bucket"`   // default file://<data_dir>/bucket
	Stream  string   `yaml:"stream"`   // "embedded" (default) or nats://host:4222,...
	HTTP    string   `yaml:"http"`     // default 127.0.0.1:8710
	Sources []Source `yaml:"sources"`  //

	Path string `yaml:"-"` // the file it came from, for messages
}

// Source is one protected cluster.
type Source struct {
	Name    string   `yaml:"name"`
	MongoDB *MongoDB `yaml:"mongodb"`
}

// MongoDB says how to reach a replica set.
type MongoDB struct {
	URI      string   `yaml:"uri"`
	LookBack Duration `yaml:"look_back"` // how far back in the oplog the first start reaches; 0: from now on
}

// Duration is a time.Duration written as in Go: 336h, 15m.
type Duration time.Duration

// UnmarshalYAML reads the Go form.
func (d *Duration) UnmarshalYAML(n *yaml.Node) error {
	v, err := time.ParseDuration(n.Value)
	if err != nil || v < 0 {
		return fmt.Errorf("line %d: %q is not a duration: write it like 15m or 336h", n.Line, n.Value)
	}
	*d = Duration(v)
	return nil
}

var sourceName = regexp.MustCompile(`^[a-z0-9][a-z0-9_-]{0,62}$`)

// Load reads the file, applies the environment, resolves references and checks the result. An empty path means
// afterimage.yaml if there is one, else the defaults. Every error is a usage error that names file, key and remedy.
func Load(path string, getenv func(string) string) (*Config, error) {
	c := &Config{Path: path}
	if path == "" {
		c.Path = "afterimage.yaml"
	}
	raw, err := os.ReadFile(c.Path)
	switch {
	case errors.Is(err, fs.ErrNotExist) && path == "":
		raw = nil
	case err != nil:
		return nil, afterimage.Usagef("configuration: %w", err)
	}
	d := yaml.NewDecoder(bytes.NewReader(raw))
	d.KnownFields(true)
	if err := d.Decode(c); err != nil && len(bytes.TrimSpace(raw)) > 0 {
		return nil, afterimage.Usagef("%s: %s", c.Path, explain(err))
	}
	c.environment(getenv)
	if err := c.resolve(getenv); err != nil {
		return nil, afterimage.Usagef("%s: %w", c.Path, err)
	}
	c.defaults()
	if err := c.check(); err != nil {
		return nil, afterimage.Usagef("%s: %w", c.Path, err)
	}
	return c, nil
}

var unknownField = regexp.MustCompile(`field (\S+) not found in type config\.(\S+)`)

// explain turns the decoder's words about Go types into words about the file.
func explain(err error) string {
	s := strings.TrimPrefix(err.Error(), "yaml: unmarshal errors:\n")
	s = unknownField.ReplaceAllString(s, "unknown key $1")
	s = strings.ReplaceAll(s, "yaml: ", "")
	return strings.Join(strings.Fields(strings.ReplaceAll(s, "\n", ";")), " ") + " (keys are listed in docs/operating.md)"
}

// environment applies AFTERIMAGE_DATA_DIR and the like, and AFTERIMAGE_SOURCES_<NAME>_MONGODB_URI.
func (c *Config) environment(getenv func(string) string) {
	set := func(p *string, name string) {
		if v := getenv("AFTERIMAGE_" + name); v != "" {
			*p = v
		}
	}
	set(&c.DataDir, "DATA_DIR")
	set(&c.Bucket, "BUCKET")
	set(&c.Stream, "STREAM")
	set(&c.HTTP, "HTTP")
	for i := range c.Sources {
		if m := c.Sources[i].MongoDB; m != nil {
			set(&m.URI, "SOURCES_"+strings.ToUpper(strings.ReplaceAll(c.Sources[i].Name, "-", "_"))+"_MONGODB_URI")
		}
	}
}

var reference = regexp.MustCompile(`\$\{([A-Za-z_][A-Za-z0-9_]*)\}`)

// resolve replaces ${NAME} by the environment and file:PATH by the file's first line, in every string that may be secret.
func (c *Config) resolve(getenv func(string) string) error {
	fields := map[string]*string{"bucket": &c.Bucket, "stream": &c.Stream}
	for i := range c.Sources {
		if m := c.Sources[i].MongoDB; m != nil {
			fields["sources."+c.Sources[i].Name+".mongodb.uri"] = &m.URI
		}
	}
	for key, p := range fields {
		if path, ok := strings.CutPrefix(*p, "file:"); ok && !strings.HasPrefix(*p, "file://") {
			raw, err := os.ReadFile(path)
			if err != nil {
				return fmt.Errorf("%s: %w", key, err)
			}
			line, _, _ := strings.Cut(string(raw), "\n")
			*p = strings.TrimSpace(line)
		}
		var missing string
		*p = reference.ReplaceAllStringFunc(*p, func(r string) string {
			v := getenv(r[2 : len(r)-1])
			if v == "" {
				missing = r[2 : len(r)-1]
			}
			return v
		})
		if missing != "" {
			return fmt.Errorf("%s refers to the environment variable %s, which is not set", key, missing)
		}
	}
	return nil
}

func (c *Config) defaults() {
	if c.DataDir == "" {
		c.DataDir = "./data"
	}
	if c.Bucket == "" {
		c.Bucket = "file://" + filepath.Join(c.DataDir, "bucket")
	}
	if c.Stream == "" {
		c.Stream = "embedded"
	}
	if c.HTTP == "" {
		c.HTTP = "127.0.0.1:8710"
	}
}

func (c *Config) check() error {
	if c.Stream != "embedded" && !strings.HasPrefix(c.Stream, "nats://") && !strings.HasPrefix(c.Stream, "tls://") {
		return fmt.Errorf("stream: %q: want embedded or nats://host:4222", redact(c.Stream))
	}
	seen := map[string]bool{}
	for i, s := range c.Sources {
		switch {
		case s.Name == "":
			return fmt.Errorf("sources[%d]: name is missing", i)
		case !sourceName.MatchString(s.Name):
			return fmt.Errorf("sources[%d]: name %q: want lower-case letters, digits, - and _, at most 63", i, s.Name)
		case seen[s.Name]:
			return fmt.Errorf("sources: %s is there twice", s.Name)
		case s.MongoDB == nil:
			return fmt.Errorf("source %s: mongodb is missing", s.Name)
		case s.MongoDB.URI == "":
			return fmt.Errorf("source %s: mongodb.uri is missing", s.Name)
		case !strings.HasPrefix(s.MongoDB.URI, "mongodb://") && !strings.HasPrefix(s.MongoDB.URI, "mongodb+srv://"):
			return fmt.Errorf("source %s: mongodb.uri: want mongodb://host:port/?replicaSet=NAME", s.Name)
		}
		seen[s.Name] = true
	}
	return nil
}

// Source returns a source by name, or a usage error that lists the names there are.
func (c *Config) Source(name string) (*Source, error) {
	var names []string
	for i := range c.Sources {
		if c.Sources[i].Name == name {
			return &c.Sources[i], nil
		}
		names = append(names, c.Sources[i].Name)
	}
	if len(names) == 0 {
		return nil, afterimage.Usagef("%s names no sources: give the right file with --config", c.Path)
	}
	return nil, afterimage.Usagef("%s has no source %s: it has %s", c.Path, strconv.Quote(name), strings.Join(names, ", "))
}

var userinfo = regexp.MustCompile(`//[^/@]*@`)

// redact hides user and password of a URL.
func redact(url string) string { return userinfo.ReplaceAllString(url, "//***@") }
