package harness

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
)

// The mongod versions that `make deps` fetches.
const (
	Mongo60 = "6.0"
	Mongo50 = "5.0"
	Mongo44 = "4.4"
)

// Program is an outside program of the harness.
type Program struct {
	variable string // names the binary
	inCache  string // where `make deps` leaves it
}

// The programs beside the mongods.
var (
	VersityGW    = Program{"AFTERIMAGE_VERSITYGW", "bin/versitygw"}
	Mongodump    = Program{"AFTERIMAGE_MONGODUMP", "bin/mongodump"}
	Mongorestore = Program{"AFTERIMAGE_MONGORESTORE", "bin/mongorestore"}
	Python       = Program{"AFTERIMAGE_PYTHON", "venv/bin/python"}
)

var mongods = map[string]Program{
	Mongo60: {"AFTERIMAGE_MONGOD", "mongod-6.0.5/mongod"},
	Mongo50: {"AFTERIMAGE_MONGOD_50", "mongod-5.0/mongod"},
	Mongo44: {"AFTERIMAGE_MONGOD_44", "mongod-4.4/mongod"},
}

// ErrMissing is in the error of a binary that is not there.
var ErrMissing = errors.New("binary is missing")

// Mongod returns the mongod of one of the pinned versions; "" is 6.0.
func Mongod(version string) (Program, error) {
	if version == "" {
		version = Mongo60
	}
	p, ok := mongods[version]
	if !ok {
		return Program{}, fmt.Errorf("harness: no mongod %q: 6.0, 5.0 and 4.4 are pinned", version)
	}
	return p, nil
}

// Path finds the program: its variable, else the cache of `make deps`.
func (p Program) Path() (string, error) {
	path, from := os.Getenv(p.variable), p.variable
	if path == "" {
		path, from = filepath.Join(cacheDir(), p.inCache), "the cache"
	}
	if info, err := os.Stat(path); err != nil || info.IsDir() {
		return "", fmt.Errorf("harness: %s (from %s): %w; run: make deps", path, from, ErrMissing)
	}
	return path, nil
}

// cacheDir is where scripts/deps.sh puts things; the two must agree.
func cacheDir() string {
	if d := os.Getenv("AFTERIMAGE_DEPS"); d != "" {
		return d
	}
	if d := os.Getenv("XDG_CACHE_HOME"); d != "" {
		return filepath.Join(d, "afterimage-deps")
	}
	home, err := os.UserHomeDir()
	if err != nil {
		home = "/"
	}
	return filepath.Join(home, ".cache", "afterimage-deps")
}
