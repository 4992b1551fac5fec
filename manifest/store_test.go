package manifest

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"

	"github.com/afterimagedb/afterimage"
	"github.com/afterimagedb/afterimage/bucket"
	"github.com/afterimagedb/afterimage/segment"
)

func open(t *testing.T, b bucket.Bucket) *Store {
	t.Helper()
	st, err := Open(t.Context(), b, "s", "mongodb")
	if err != nil {
		t.Fatal(err)
	}
	return st
}

func add(id string) Edit {
	return Edit{AddSegments: []segment.Meta{{ID: id, Kind: segment.Changes}}}
}

// TestLoadFindsEveryCommit commits past several checkpoints and loads with a fresh store after each.
func TestLoadFindsEveryCommit(t *testing.T) {
	b := bucket.NewMemory()
	st := open(t, b)
	s, err := st.Load(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for i := range 3*checkpointEvery + 5 {
		if s, err = st.Commit(t.Context(), s, add(fmt.Sprint(i))); err != nil {
			t.Fatal(err)
		}
		fresh, err := open(t, b).Load(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if fresh.Number != uint64(i+1) || len(fresh.Segments) != i+1 {
			t.Fatalf("after commit %d a fresh store loads number %d with %d segments", i+1, fresh.Number, len(fresh.Segments))
		}
	}
}

func TestConcurrentCommittersLoseNothing(t *testing.T) {
	b := bucket.NewMemory()
	var wg sync.WaitGroup
	for w := range 4 {
		wg.Go(func() {
			c, err := NewCommitter(t.Context(), open(t, b))
			if err != nil {
				t.Error(err)
				return
			}
			for i := range 20 {
				if _, err := c.Commit(t.Context(), func(*State) (Edit, error) { return add(fmt.Sprintf("%d-%d", w, i)), nil }); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	s, err := open(t, b).Load(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if s.Number != 80 || len(s.Segments) != 80 {
		t.Fatalf("number %d, %d segments: want 80 of each", s.Number, len(s.Segments))
	}
}

// liar stores the object and says that it failed, or loses it and says so.
type liar struct {
	bucket.Bucket
	store bool
	times int
}

var errLie = errors.New("connection reset")

func (l *liar) Create(ctx context.Context, name string, data []byte) error {
	if l.times == 0 {
		return l.Bucket.Create(ctx, name, data)
	}
	l.times--
	if l.store {
		if err := l.Bucket.Create(ctx, name, data); err != nil {
			return err
		}
	}
	return errLie
}

func TestLostReplyIsSuccess(t *testing.T) {
	for _, store := range []bool{true, false} {
		b := bucket.NewMemory()
		open(t, b)
		st := open(t, &liar{Bucket: b, store: store, times: 1})
		s, err := st.Commit(t.Context(), NewState(), add("a"))
		if err != nil || s.Number != 1 {
			t.Fatalf("stored %v: %v", store, err)
		}
	}
	b := bucket.NewMemory()
	open(t, b)
	st := open(t, &liar{Bucket: b, times: 99})
	if _, err := st.Commit(t.Context(), NewState(), add("a")); !errors.Is(err, errLie) {
		t.Fatalf("a bucket that never stores: %v", err)
	}
}

func TestStaleWriterConflicts(t *testing.T) {
	b := bucket.NewMemory()
	one, two := open(t, b), open(t, b)
	if _, err := one.Commit(t.Context(), NewState(), add("a")); err != nil {
		t.Fatal(err)
	}
	if _, err := two.Commit(t.Context(), NewState(), add("b")); !errors.Is(err, ErrConflict) {
		t.Fatalf("second writer on the same state: %v, want ErrConflict", err)
	}
	// A writer that slept while its number was trimmed away must not count.
	if err := b.Create(t.Context(), fmt.Sprintf("floors/%020d", 90), nil); err != nil {
		t.Fatal(err)
	}
	three := open(t, b)
	if _, err := three.Commit(t.Context(), NewState(), add("c")); !errors.Is(err, ErrConflict) {
		t.Fatalf("writer below the floor: %v, want ErrConflict", err)
	}
}

// TestDamage flips each byte of a manifest: it must be noticed, by a message that names the object.
func TestDamage(t *testing.T) {
	b := bucket.NewMemory()
	if _, err := open(t, b).Commit(t.Context(), NewState(), add("a")); err != nil {
		t.Fatal(err)
	}
	raw, err := b.Get(t.Context(), objectName(1))
	if err != nil {
		t.Fatal(err)
	}
	for i := range raw {
		bad := append([]byte(nil), raw...)
		bad[i] ^= 0x10
		if d, err := decode(bad); err == nil && d.Number == 1 && i > len(magic)+20 {
			t.Fatalf("byte %d flipped and nobody noticed", i)
		}
		if err := b.Put(t.Context(), objectName(1), bad); err != nil {
			t.Fatal(err)
		}
		if _, err := open(t, b).Load(t.Context()); err != nil && !strings.Contains(err.Error(), objectName(1)) {
			t.Fatalf("the error does not name the object: %v", err)
		}
	}
	for _, bad := range [][]byte{nil, raw[:10], raw[:len(raw)-1]} {
		if _, err := decode(bad); err == nil {
			t.Fatalf("a manifest cut to %d bytes was read", len(bad))
		}
	}
}

func TestOpenRefuses(t *testing.T) {
	b := bucket.NewMemory()
	if _, err := Open(t.Context(), b, "s", ""); !errors.Is(err, ErrNoRepository) {
		t.Errorf("no repository: %v", err)
	}
	open(t, b)
	var usage *afterimage.UsageError
	if _, err := Open(t.Context(), b, "s", "cassandra"); !errors.As(err, &usage) {
		t.Errorf("other kind: %v", err)
	}
	if err := b.Put(t.Context(), "repository.json", []byte(`{"format":99,"kind":"mongodb"}`)); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(t.Context(), b, "s", ""); err == nil || !strings.Contains(err.Error(), "newer afterimage") {
		t.Errorf("newer format: %v", err)
	}
}

func FuzzDecode(f *testing.F) {
	d := &document{Number: 1, Edit: add("a")}
	raw, err := encode(d)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(raw)
	f.Add([]byte(magic + " 1 none 0\n"))
	f.Fuzz(func(_ *testing.T, b []byte) { _, _ = decode(b) })
}
