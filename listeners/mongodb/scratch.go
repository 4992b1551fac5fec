package mongodb

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/afterimagedb/afterimage/listeners/mongodb/oplog"
)

// scratchPattern names the files of open transactions.
const scratchPattern = "transaction-*.scratch"

// scratchFile is removed when it is closed.
type scratchFile struct{ *os.File }

func (f scratchFile) Close() error { return errors.Join(f.File.Close(), os.Remove(f.Name())) }

// scratch makes scratch files in dir; an empty dir means memory only.
func scratch(dir string) func() (oplog.ScratchFile, error) {
	if dir == "" {
		return nil
	}
	return func() (oplog.ScratchFile, error) {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return nil, err
		}
		f, err := os.CreateTemp(dir, scratchPattern)
		if err != nil {
			return nil, err
		}
		return scratchFile{f}, nil
	}
}

// sweepScratch removes what a killed process left behind.
func sweepScratch(dir string) error {
	if dir == "" {
		return nil
	}
	names, err := filepath.Glob(filepath.Join(dir, scratchPattern))
	if err != nil {
		return fmt.Errorf("list scratch files: %w", err)
	}
	for _, name := range names {
		if err := os.Remove(name); err != nil {
			return fmt.Errorf("remove a left-over scratch file: %w", err)
		}
	}
	return nil
}
