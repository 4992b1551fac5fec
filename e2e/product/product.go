// Package product runs the real binary as an operator would: a configuration file, a service, commands with exit codes.
//
// Words:
//   - installation: a folder with a configuration, a data folder and, by default, the bucket.
//   - service: an `afterimage serve` of an installation; there may be several with different roles.
//
// The package imports no testing.
package product

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/afterimagedb/afterimage/e2e/harness"
	"github.com/afterimagedb/afterimage/e2e/wire"
)

// Source is the name of the one source of an installation.
const Source = "rs"

// NotRecoverable is the exit code for a time that can't be had.
const NotRecoverable = 3

// Build compiles the binary into a folder.
func Build(ctx context.Context, dir string) (string, error) {
	out := filepath.Join(dir, "afterimage")
	args := []string{"build", "-o", out}
	if os.Getenv("AFTERIMAGE_RACE") != "" {
		args = append(args, "-race")
	}
	cmd := exec.CommandContext(ctx, "go", append(args, "github.com/afterimagedb/afterimage/cmd/afterimage")...)
	if text, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("product: build: %w\n%s", err, text)
	}
	return out, nil
}

// Options of an installation.
type Options struct {
	Binary   string
	Dir      string
	URI      string   // of the source
	Bucket   string   // URL; default a folder
	Stream   string   // default embedded
	LookBack string   // default none
	Env      []string // more environment
}

// Installation is a configured product.
type Installation struct {
	o      Options
	config string
	n      int
}

// New writes the configuration.
func New(o Options) (*Installation, error) {
	p := &Installation{o: o, config: filepath.Join(o.Dir, "afterimage.yaml")}
	if err := os.MkdirAll(o.Dir, 0o700); err != nil {
		return nil, fmt.Errorf("product: %w", err)
	}
	if p.o.Bucket == "" {
		p.o.Bucket = "file://" + filepath.Join(o.Dir, "bucket")
	}
	if p.o.Stream == "" {
		p.o.Stream = "embedded"
	}
	if p.o.LookBack == "" {
		p.o.LookBack = "0s"
	}
	return p, os.WriteFile(p.config, p.yaml(filepath.Join(o.Dir, "data"), "127.0.0.1:0"), 0o600)
}

func (p *Installation) yaml(data, http string) []byte {
	return fmt.Appendf(nil, "data_dir: %q\nbucket: %q\nstream: %q\nhttp: %q\nsources:\n  - name: %s\n    mongodb: { uri: %q, look_back: %s }\n",
		data, p.o.Bucket, p.o.Stream, http, Source, p.o.URI, p.o.LookBack)
}

// LogPath is what the services print.
func (p *Installation) LogPath() string { return filepath.Join(p.o.Dir, "serve.log") }

// BucketDir is the folder of a folder bucket.
func (p *Installation) BucketDir() string { return strings.TrimPrefix(p.o.Bucket, "file://") }

// Serve starts the service. The caller ends it.
func (p *Installation) Serve(args ...string) (*harness.Process, error) {
	return harness.StartProcess(p.o.Binary, append([]string{"serve", "--config", p.config}, args...), p.o.Env, p.LogPath())
}

// ServeApart is Serve with a data folder of its own and other arguments in front: another process of the same installation.
func (p *Installation) ServeApart(args ...string) (*harness.Process, error) {
	p.n++
	dir := filepath.Join(p.o.Dir, fmt.Sprintf("apart%d", p.n))
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("product: %w", err)
	}
	config := filepath.Join(dir, "afterimage.yaml")
	if err := os.WriteFile(config, p.yaml(filepath.Join(dir, "data"), "127.0.0.1:0"), 0o600); err != nil {
		return nil, fmt.Errorf("product: %w", err)
	}
	return harness.StartProcess(p.o.Binary, append(args, "--config", config), p.o.Env, filepath.Join(dir, "serve.log"))
}

// Result of a command.
type Result struct {
	Code   int
	Stdout []byte
	Stderr string
}

// Err is nil for exit code 0.
func (r Result) Err() error {
	if r.Code == 0 {
		return nil
	}
	return fmt.Errorf("exit code %d: %s", r.Code, strings.TrimSpace(r.Stderr))
}

// Run runs one command to its end. The error is one of running it, not its exit code.
func (p *Installation) Run(ctx context.Context, args ...string) (Result, error) {
	var out, errs bytes.Buffer
	cmd := exec.CommandContext(ctx, p.o.Binary, append(args, "--config", p.config)...)
	cmd.Env = append(os.Environ(), p.o.Env...)
	cmd.Stdout, cmd.Stderr = &out, &errs
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && (!errors.As(err, &exit) || ctx.Err() != nil) {
		return Result{}, fmt.Errorf("product: %s: %w: %s", strings.Join(args, " "), errors.Join(err, ctx.Err()), errs.String())
	}
	return Result{cmd.ProcessState.ExitCode(), out.Bytes(), errs.String()}, nil
}

// Do is Run that wants exit code 0.
func (p *Installation) Do(ctx context.Context, args ...string) ([]byte, error) {
	r, err := p.Run(ctx, args...)
	if err == nil && r.Err() != nil {
		err = fmt.Errorf("product: %s: %w", strings.Join(args, " "), r.Err())
	}
	return r.Stdout, err
}

// Interval is a span of restorable times; To "" is the horizon.
type Interval struct{ From, To string }

// Gap is a hole that was recorded.
type Gap struct{ From, To, Reason string }

// Status is what `status -o json` says of the source.
type Status struct {
	State         string
	Horizon       string
	Windows       []Interval
	Gaps          []Gap
	Uncertified   []struct{ Time, Reason string }
	ScansUnderWay int
	Segments      int
	Changes       int64
}

// Time reads seconds.ordinal; "" is zero.
func Time(s string) wire.TS {
	var t wire.TS
	_, _ = fmt.Sscanf(s, "%d.%d", &t.T, &t.I) // zero if it is not one
	return t
}

// Status asks for it.
func (p *Installation) Status(ctx context.Context) (Status, error) {
	out, err := p.Do(ctx, "status", Source, "-o", "json")
	if err != nil {
		return Status{}, err
	}
	var all []Status
	if err := json.Unmarshal(out, &all); err != nil || len(all) != 1 {
		return Status{}, fmt.Errorf("product: status printed %q: %w", out, err)
	}
	return all[0], nil
}

// WaitStatus polls the status until f says nil, the service ends or the context does.
func (p *Installation) WaitStatus(ctx context.Context, service *harness.Process, f func(Status) error) (Status, error) {
	var last Status
	dead := false
	err := harness.Poll(ctx, func(ctx context.Context) error {
		if service != nil && !service.Alive() {
			dead = true
			return nil
		}
		s, err := p.Status(ctx)
		if err != nil {
			return err
		}
		last = s
		return f(s)
	})
	if dead {
		err = fmt.Errorf("product: the service ended with %d:\n%s", service.ExitCode(), p.LogTail())
	}
	if err != nil {
		err = fmt.Errorf("product: status %+v: %w\n%s", last, err, p.LogTail())
	}
	return last, err
}

// Covers is a condition of WaitStatus: the first image is done and the horizon has reached a time.
func Covers(at wire.TS) func(Status) error {
	return func(s Status) error {
		if s.ScansUnderWay > 0 || len(s.Windows) == 0 {
			return errors.New("no window yet")
		}
		if Time(s.Horizon).Less(at) {
			return fmt.Errorf("horizon %s, want %s", s.Horizon, at)
		}
		return nil
	}
}

// Snapshot writes the state at a time to a new folder.
func (p *Installation) Snapshot(ctx context.Context, at, out string, args ...string) (Result, error) {
	return p.Run(ctx, append([]string{"snapshot", Source, "--at", at, "--out", out, "-o", "json"}, args...)...)
}

// Restore puts the state at a time into a server, with users, and with times to live as they were.
func (p *Installation) Restore(ctx context.Context, at, uri string, args ...string) (Result, error) {
	return p.Run(ctx, append([]string{"restore", Source, "--at", at, "--to", uri, "--users", "--ttl", "keep", "-o", "json"}, args...)...)
}

// LogTail is the end of what the services printed.
func (p *Installation) LogTail() string {
	text, err := os.ReadFile(p.LogPath())
	if err != nil {
		return err.Error()
	}
	return string(text[max(0, len(text)-6000):])
}

// CommandMax is how long one command of a test may take.
const CommandMax = 2 * time.Minute
