package harness

import (
	"bytes"
	"context"
	_ "embed" // the driver script
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"go.mongodb.org/mongo-driver/bson/primitive"
)

//go:embed record.py
var recordScript string

// ErrNoJudge is in the error when the folder of the judge is not there.
var ErrNoJudge = errors.New("the judge of restores is not here")

// Judge compares restored servers with what was recorded of their source, byte for byte. It is a Python program that lives
// beside the repository, written by others than the restorer's authors.
type Judge struct {
	folder string
	python string
}

// Checkpoint is one recorded state.
type Checkpoint struct {
	N           int // its number in the record file
	T           primitive.Timestamp
	Collections int
	Documents   int
}

// String names the checkpoint as Verify wants it.
func (c Checkpoint) String() string { return fmt.Sprintf("%d", c.N) }

// NewJudge finds the judge in AFTERIMAGE_SHARED, else in ../shared beside the repository.
func NewJudge() (*Judge, error) {
	shared := os.Getenv("AFTERIMAGE_SHARED")
	if shared == "" {
		root, err := repositoryRoot()
		if err != nil {
			return nil, err
		}
		shared = filepath.Join(filepath.Dir(root), "shared")
	}
	folder := filepath.Join(shared, "oracle", "mongo")
	if _, err := os.Stat(filepath.Join(folder, "verify.py")); err != nil {
		return nil, fmt.Errorf("harness: %w: %w; AFTERIMAGE_SHARED names the folder that has oracle/mongo", ErrNoJudge, err)
	}
	python, err := Python.Path()
	if err != nil {
		return nil, err
	}
	return &Judge{folder: folder, python: python}, nil
}

// RecordTruth appends the state of a server to a record file. With a time, documents are snapshot reads at exactly that time
// (MongoDB 5.0 on; capped collections and the catalog are read as they are now). With the zero time the state is
// what is there now, at a time that the server gives: the caller keeps all writers still until it returns.
func (j *Judge) RecordTruth(ctx context.Context, uri string, at primitive.Timestamp, recordFile string) (Checkpoint, error) {
	args := []string{"-c", recordScript, j.folder, "--uri", uri, "--record", recordFile}
	if !at.IsZero() {
		args = append(args, "--at", fmt.Sprintf("%d,%d", at.T, at.I))
	}
	out, stderr, err := j.run(ctx, args)
	if err != nil {
		return Checkpoint{}, fmt.Errorf("harness: record %s: %w: %s", uri, err, lastLine(stderr))
	}
	var said struct {
		N, Collections, Documents int
		T                         [2]uint32
	}
	if err := json.Unmarshal(out, &said); err != nil {
		return Checkpoint{}, fmt.Errorf("harness: record %s: the judge said %q: %w", uri, out, err)
	}
	return Checkpoint{said.N, primitive.Timestamp{T: said.T[0], I: said.T[1]}, said.Collections, said.Documents}, nil
}

// Verify compares a server (a mongodb:// URI) or a mongodump folder with one checkpoint of a record file: its number, its
// time as t,i, or "" for the last. It returns what the judge printed and whether there is no difference. Further arguments go to
// the judge: "--no-auth", "--ts-logical", "--ignore", NS.
func (j *Judge) Verify(ctx context.Context, target, recordFile, checkpoint string, args ...string) (diffs string, ok bool, err error) {
	how := "--dir"
	if strings.HasPrefix(target, "mongodb://") {
		how = "--uri"
	}
	call := []string{filepath.Join(j.folder, "verify.py"), how, target, "--record", recordFile, "--classes"}
	if checkpoint != "" {
		call = append(call, "--checkpoint", checkpoint)
	}
	out, stderr, err := j.run(ctx, append(call, args...))
	var exit *exec.ExitError
	switch {
	case err == nil:
		return string(out), true, nil
	// A judge that fails ends with 1 as well: only one that has counted has judged.
	case errors.As(err, &exit) && exit.ExitCode() == 1 && bytes.Contains(out, []byte(" differences")):
		return string(out), false, nil
	default:
		return string(out), false, fmt.Errorf("harness: verify %s: %w: %s", target, err, lastLine(stderr))
	}
}

func (j *Judge) run(ctx context.Context, args []string) (stdout, stderr []byte, err error) {
	var out, errs bytes.Buffer
	cmd := exec.CommandContext(ctx, j.python, args...)
	cmd.Env = append(os.Environ(), "PYTHONDONTWRITEBYTECODE=1")
	cmd.Stdout, cmd.Stderr = &out, &errs
	err = cmd.Run()
	return out.Bytes(), errs.Bytes(), err
}

func lastLine(b []byte) string {
	s := strings.TrimSpace(string(b))
	return s[strings.LastIndexByte(s, '\n')+1:]
}

// repositoryRoot is the folder of go.mod at or above the working folder.
func repositoryRoot() (string, error) {
	dir, err := os.Getwd()
	if err != nil {
		return "", fmt.Errorf("harness: %w", err)
	}
	for d := dir; ; d = filepath.Dir(d) {
		if _, err := os.Stat(filepath.Join(d, "go.mod")); err == nil {
			return d, nil
		}
		if d == filepath.Dir(d) {
			return "", fmt.Errorf("harness: no go.mod at or above %s", dir)
		}
	}
}
