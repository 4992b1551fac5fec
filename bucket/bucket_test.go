package bucket_test

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/afterimagedb/afterimage/bucket"
	"github.com/afterimagedb/afterimage/bucket/buckettest"
)

func TestMemory(t *testing.T) {
	buckettest.Run(t, func(*testing.T) bucket.Bucket { return bucket.NewMemory() })
}

func TestFolder(t *testing.T) {
	buckettest.Run(t, func(t *testing.T) bucket.Bucket {
		b, err := bucket.NewFolder(filepath.Join(t.TempDir(), "not", "there", "yet"))
		if err != nil {
			t.Fatal(err)
		}
		return b
	})
}

func TestSubPassesTheSuite(t *testing.T) {
	buckettest.Run(t, func(*testing.T) bucket.Bucket { return bucket.Sub(bucket.NewMemory(), "some/where") })
}

func TestMemoryClone(t *testing.T) {
	m := bucket.NewMemory()
	if err := m.Put(t.Context(), "a", []byte("1")); err != nil {
		t.Fatal(err)
	}
	c := m.Clone()
	if err := m.Put(t.Context(), "a", []byte("2")); err != nil {
		t.Fatal(err)
	}
	if got, err := c.Get(t.Context(), "a"); err != nil || string(got) != "1" {
		t.Fatalf("the clone reads %q, %v", got, err)
	}
}

// TestFolderTemps: what a crashed writer left is never listed, and removed only when it is old.
func TestFolderTemps(t *testing.T) {
	root := t.TempDir()
	b, err := bucket.NewFolder(root)
	if err != nil {
		t.Fatal(err)
	}
	if err := b.Put(t.Context(), "a", nil); err != nil {
		t.Fatal(err)
	}
	tmp := filepath.Join(root, ".tmp")
	if left, err := os.ReadDir(tmp); err != nil || len(left) != 0 {
		t.Fatalf("a finished write left %v, %v", left, err)
	}
	young, old := filepath.Join(tmp, "young"), filepath.Join(tmp, "old")
	for path, age := range map[string]time.Duration{young: 23 * time.Hour, old: 25 * time.Hour} {
		when := time.Now().Add(-age)
		if err := os.WriteFile(path, []byte("torn"), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Chtimes(path, when, when); err != nil {
			t.Fatal(err)
		}
	}
	if b, err = bucket.NewFolder(root); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(young); err != nil {
		t.Errorf("a writer that may still live lost its file: %v", err)
	}
	if _, err := os.Stat(old); !os.IsNotExist(err) {
		t.Errorf("the old leftover is still there: %v", err)
	}
	var names []string
	if err := b.List(t.Context(), "", "", func(i bucket.Info) error { names = append(names, i.Name); return nil }); err != nil {
		t.Fatal(err)
	}
	if len(names) != 1 || names[0] != "a" {
		t.Errorf("listed %q", names)
	}
}

func TestFolderOnAFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := bucket.NewFolder(path); err == nil {
		t.Fatal("a bucket opened on a file")
	}
}

// TestFolderRemovedUnderUs: the folder cache must not make writes fail for ever.
func TestFolderRemovedUnderUs(t *testing.T) {
	root := filepath.Join(t.TempDir(), "b")
	b, err := bucket.NewFolder(root)
	if err != nil {
		t.Fatal(err)
	}
	for _, gone := range []string{"x", "", ".tmp"} {
		if err := b.Create(t.Context(), "x/y/z", []byte("1")); err != nil {
			t.Fatal(err)
		}
		if err := os.RemoveAll(filepath.Join(root, gone)); err != nil {
			t.Fatal(err)
		}
	}
	if err := b.Put(t.Context(), "x/y/z", []byte("1")); err != nil {
		t.Fatal(err)
	}
}
