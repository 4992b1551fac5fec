//go:build e2e

package e2e

import (
	"context"
	"flag"
	"fmt"
	"os"
	"testing"
	"time"

	"github.com/afterimagedb/afterimage/e2e/harness"
	"github.com/afterimagedb/afterimage/e2e/product"
)

// binary is the product, built once for all tests.
var binary string

// long asks for the variants that take hours of machine time in all: more kills, more times.
var long = os.Getenv("AFTERIMAGE_LONG") != ""

func TestMain(m *testing.M) {
	flag.Parse()
	os.Exit(func() int {
		dir, err := os.MkdirTemp("", "afterimage-bin-")
		if err == nil {
			defer os.RemoveAll(dir)
			binary, err = product.Build(context.Background(), dir)
		}
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		return m.Run()
	}())
}

// folder is a test's folder; AFTERIMAGE_KEEP names one that stays, to look into after a failure.
func folder(t *testing.T) string {
	t.Helper()
	if keep := os.Getenv("AFTERIMAGE_KEEP"); keep != "" {
		dir, err := os.MkdirTemp(keep, "t-")
		if err != nil {
			t.Fatal(err)
		}
		t.Log("files are kept in", dir)
		return dir
	}
	return t.TempDir()
}

// install makes an installation for a set.
func install(t *testing.T, rs *harness.ReplicaSet, o product.Options) *product.Installation {
	t.Helper()
	o.Binary, o.URI = binary, rs.URI()
	if o.Dir == "" {
		o.Dir = folder(t)
	}
	p, err := product.New(o)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// serve starts the service, and stops it at the end of the test.
func serve(t *testing.T, p *product.Installation, args ...string) *harness.Process {
	t.Helper()
	s, err := p.Serve(args...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { stop(t, s) })
	return s
}

func stop(t *testing.T, s *harness.Process) {
	t.Helper()
	if err := s.Stop(); err != nil {
		t.Error(err)
	}
}

func limit(t *testing.T, d time.Duration) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), d)
	t.Cleanup(cancel)
	return ctx
}

// pause waits for a part of a test's script: how long something is left alone.
func pause(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
	case <-t.C:
	}
}
