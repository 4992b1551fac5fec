// Package buckettest holds what tests of buckets and of their users share: the contract suite that every implementation
// passes, and [Faulty], a bucket that fails when it is told to.
package buckettest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/afterimagedb/afterimage/bucket"
)

// Run runs the contract suite. Each call of open returns an empty bucket.
func Run(t *testing.T, open func(t *testing.T) bucket.Bucket) {
	t.Helper()
	for _, c := range []struct {
		name string
		run  func(*testing.T, bucket.Bucket)
	}{
		{"ReadWhatWasWritten", readWhatWasWritten},
		{"NotFound", notFound},
		{"Ranges", ranges},
		{"CreateOnce", createOnce},
		{"CreateRace", createRace},
		{"PutAgain", putAgain},
		{"List", list},
		{"ListMany", listMany},
		{"ListEnds", listEnds},
		{"Delete", remove},
		{"BadNames", badNames},
		{"Copies", copies},
		{"Cancelled", cancelled},
		{"Sub", subBucket},
	} {
		t.Run(c.name, func(t *testing.T) { c.run(t, open(t)) })
	}
}

// must stops the test at an error that no part of it expects.
func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func put(t *testing.T, b bucket.Bucket, name, data string) {
	t.Helper()
	must(t, b.Put(t.Context(), name, []byte(data)))
}

func wantObject(t *testing.T, b bucket.Bucket, name, data string) {
	t.Helper()
	got, err := b.Get(t.Context(), name)
	must(t, err)
	if string(got) != data {
		t.Fatalf("%s: read %.60q, want %.60q", name, got, data)
	}
}

// names lists (prefix, after).
func names(t *testing.T, b bucket.Bucket, prefix, after string) []string {
	t.Helper()
	var out []string
	must(t, b.List(t.Context(), prefix, after, func(i bucket.Info) error {
		out = append(out, i.Name)
		return nil
	}))
	return out
}

func readWhatWasWritten(t *testing.T, b bucket.Bucket) {
	big := bytes.Repeat([]byte("0123456789abcdef"), 300_000)
	for name, data := range map[string]string{
		"a":                              "",
		"manifests/00000000000000000001": "x",
		"a b/c+d%25&é=ü,(1).parquet":     "odd",
		"segments/big":                   string(big),
		"binary":                         "\x00\xff\r\n\x1a",
	} {
		if strings.HasPrefix(name, "s") {
			must(t, b.Create(t.Context(), name, []byte(data)))
		} else {
			put(t, b, name, data)
		}
		wantObject(t, b, name, data)
		size, err := b.Size(t.Context(), name)
		must(t, err)
		if size != int64(len(data)) {
			t.Fatalf("%s: size %d, want %d", name, size, len(data))
		}
	}
}

func notFound(t *testing.T, b bucket.Bucket) {
	put(t, b, "folder/object", "x")
	for _, name := range []string{"absent", "folder", "folder/absent", "folder/object/below", "absent/too"} {
		_, err := b.Get(t.Context(), name)
		wantNotFound(t, "Get", name, err)
		_, err = b.GetRange(t.Context(), name, 0, 1)
		wantNotFound(t, "GetRange", name, err)
		_, err = b.Size(t.Context(), name)
		wantNotFound(t, "Size", name, err)
	}
}

func wantNotFound(t *testing.T, op, name string, err error) {
	t.Helper()
	if !errors.Is(err, bucket.ErrNotFound) || !strings.Contains(err.Error(), name) {
		t.Errorf("%s(%s): %v, want ErrNotFound with the object's name", op, name, err)
	}
}

func ranges(t *testing.T, b bucket.Bucket) {
	put(t, b, "r", "0123456789")
	for _, c := range []struct {
		offset, length int64
		want           string
	}{{0, 10, "0123456789"}, {0, 1, "0"}, {9, 1, "9"}, {3, 4, "3456"}, {0, 0, ""}, {10, 0, ""}} {
		got, err := b.GetRange(t.Context(), "r", c.offset, c.length)
		if err != nil || string(got) != c.want {
			t.Errorf("%d bytes at %d: %q, %v, want %q", c.length, c.offset, got, err, c.want)
		}
	}
	for _, c := range [][2]int64{{0, 11}, {9, 2}, {10, 1}, {11, 1}, {11, 0}, {-1, 2}, {0, -1}, {1, 1<<63 - 1}} {
		if got, err := b.GetRange(t.Context(), "r", c[0], c[1]); err == nil || errors.Is(err, bucket.ErrNotFound) {
			t.Errorf("%d bytes at %d: %q, %v, want an error that is not ErrNotFound", c[1], c[0], got, err)
		}
	}
}

func createOnce(t *testing.T, b bucket.Bucket) {
	must(t, b.Create(t.Context(), "c/1", []byte("first")))
	for _, data := range []string{"second", "first"} {
		if err := b.Create(t.Context(), "c/1", []byte(data)); !errors.Is(err, bucket.ErrExists) {
			t.Fatalf("second Create: %v, want ErrExists", err)
		}
	}
	wantObject(t, b, "c/1", "first")
	must(t, b.Delete(t.Context(), "c/1"))
	must(t, b.Create(t.Context(), "c/1", []byte("third")))
	wantObject(t, b, "c/1", "third")
}

// createRace is invariant 2.
func createRace(t *testing.T, b bucket.Bucket) {
	const writers, rounds = 12, 5
	for round := range rounds {
		name := fmt.Sprintf("race/%d", round)
		var won atomic.Int64
		var winner atomic.Value
		var wg sync.WaitGroup
		start := make(chan struct{})
		for w := range writers {
			wg.Go(func() {
				data := fmt.Sprintf("writer %d", w)
				<-start
				switch err := b.Create(t.Context(), name, []byte(data)); {
				case err == nil:
					won.Add(1)
					winner.Store(data)
				case !errors.Is(err, bucket.ErrExists):
					t.Errorf("Create: %v, want ErrExists", err)
				}
			})
		}
		close(start)
		wg.Wait()
		if won.Load() != 1 {
			t.Fatalf("%d Creates of %s succeeded, want 1", won.Load(), name)
		}
		wantObject(t, b, name, winner.Load().(string))
	}
}

func putAgain(t *testing.T, b bucket.Bucket) {
	put(t, b, "p", "same")
	put(t, b, "p", "same") // a caller that lost the answer writes again
	wantObject(t, b, "p", "same")
	put(t, b, "p", "longer than before")
	put(t, b, "p", "short")
	wantObject(t, b, "p", "short")
}

func list(t *testing.T, b bucket.Bucket) {
	if got := names(t, b, "", ""); len(got) != 0 {
		t.Fatalf("an empty bucket lists %q", got)
	}
	all := []string{"a-b", "a.b/c", "a/b", "a/b-c", "a/c/d", "a0", "b", "seg/1", "seg/10", "seg/2", "segments/1", "é"}
	for i, name := range all {
		put(t, b, name, strings.Repeat("x", i))
	}
	prefixes := []string{"", "a", "a/", "a/b", "a/c/d", "a/c/d/", "se", "seg", "seg/", "seg/1", "zz", "nothing/here", "../", "/", "é"}
	afters := []string{"", "a", "a-b", "a.", "a/", "a/b", "a/b-", "a/c/d", "a/c/e", "a0", "seg", "seg/1", "seg/10", "segz", "zzz", "\u00ff"}
	for _, prefix := range prefixes {
		for _, after := range afters {
			var want []string
			for _, name := range all {
				if strings.HasPrefix(name, prefix) && name > after {
					want = append(want, name)
				}
			}
			if got := names(t, b, prefix, after); !slices.Equal(got, want) {
				t.Errorf("prefix %q after %q: %q, want %q", prefix, after, got, want)
			}
		}
	}
	i := 0
	must(t, b.List(t.Context(), "", "", func(info bucket.Info) error {
		if info.Name != all[i] || info.Size != int64(i) {
			t.Errorf("listed %v, want %s of %d bytes", info, all[i], i)
		}
		i++
		return nil
	}))
}

// listMany needs several pages of a paged listing, and deletes while it lists.
func listMany(t *testing.T, b bucket.Bucket) {
	const n = 1100
	var wg sync.WaitGroup
	for w := range 4 {
		wg.Go(func() {
			for i := w; i < n; i += 4 {
				if err := b.Put(t.Context(), fmt.Sprintf("many/%06d", i), nil); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
	if got := names(t, b, "many/", "many/000049"); len(got) != n-50 || got[0] != "many/000050" || !slices.IsSorted(got) {
		t.Fatalf("%d names from %s, want %d in order", len(got), got[0], n-50)
	}
	seen := 0
	must(t, b.List(t.Context(), "many/", "many/001000", func(i bucket.Info) error {
		seen++
		return b.Delete(t.Context(), i.Name)
	}))
	if left := names(t, b, "", ""); seen != 99 || len(left) != 1001 {
		t.Fatalf("saw %d, left %d, want 99 and 1001", seen, len(left))
	}
}

func listEnds(t *testing.T, b bucket.Bucket) {
	for _, n := range []string{"1", "2", "3"} {
		put(t, b, n, n)
	}
	stop := errors.New("stop")
	for _, end := range []error{stop, bucket.SkipAll, fmt.Errorf("wrapped: %w", bucket.SkipAll)} {
		seen := 0
		err := b.List(t.Context(), "", "", func(bucket.Info) error {
			if seen++; seen == 2 {
				return end
			}
			return nil
		})
		if seen != 2 || errors.Is(end, stop) != errors.Is(err, stop) || errors.Is(end, bucket.SkipAll) && err != nil {
			t.Errorf("fn returned %v after 2: List saw %d and returned %v", end, seen, err)
		}
	}
}

func remove(t *testing.T, b bucket.Bucket) {
	put(t, b, "d/1", "x")
	put(t, b, "d/2", "y")
	for _, name := range []string{"d/1", "d/1", "d", "never", "never/there", "d/2/below"} {
		must(t, b.Delete(t.Context(), name))
	}
	if got := names(t, b, "", ""); !slices.Equal(got, []string{"d/2"}) {
		t.Fatalf("left %q", got)
	}
	must(t, b.Delete(t.Context(), "d/2"))
	must(t, b.Delete(t.Context(), "d")) // an empty folder, perhaps: still usable
	put(t, b, "d/3", "z")
	wantObject(t, b, "d/3", "z")
}

func badNames(t *testing.T, b bucket.Bucket) {
	for _, name := range []string{
		"", "/", "/a", "a/", "a//b", ".", "..", "../x", "a/../b", "a/..", "a/./b", ".hidden", "a/.tmp/b", `a\b`,
		"a\nb", "a\x00b", "\xff", strings.Repeat("x", 300), strings.Repeat("x/", 600) + "x",
	} {
		_, get := b.Get(t.Context(), name)
		_, rng := b.GetRange(t.Context(), name, 0, 0)
		_, size := b.Size(t.Context(), name)
		for op, err := range map[string]error{
			"Put": b.Put(t.Context(), name, nil), "Create": b.Create(t.Context(), name, nil),
			"Delete": b.Delete(t.Context(), name), "Get": get, "GetRange": rng, "Size": size,
		} {
			if err == nil || errors.Is(err, bucket.ErrNotFound) || errors.Is(err, bucket.ErrExists) {
				t.Errorf("%s(%.40q): %v, want it refused", op, name, err)
			}
		}
	}
}

// copies says that neither side keeps the other's memory.
func copies(t *testing.T, b bucket.Bucket) {
	data := []byte("hello")
	must(t, b.Put(t.Context(), "k", data))
	data[0] = 'X'
	got, err := b.Get(t.Context(), "k")
	must(t, err)
	got[1] = 'X'
	got, err = b.GetRange(t.Context(), "k", 0, 5)
	must(t, err)
	got[2] = 'X'
	wantObject(t, b, "k", "hello")
}

func cancelled(t *testing.T, b bucket.Bucket) {
	put(t, b, "k", "v")
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, get := b.Get(ctx, "k")
	_, rng := b.GetRange(ctx, "k", 0, 1)
	_, size := b.Size(ctx, "k")
	for op, err := range map[string]error{
		"Put": b.Put(ctx, "p", nil), "Create": b.Create(ctx, "c", nil), "Delete": b.Delete(ctx, "k"),
		"Get": get, "GetRange": rng, "Size": size,
		"List": b.List(ctx, "", "", func(bucket.Info) error { return nil }),
	} {
		if !errors.Is(err, context.Canceled) {
			t.Errorf("%s: %v, want context.Canceled", op, err)
		}
	}
	if got := names(t, b, "", ""); !slices.Equal(got, []string{"k"}) {
		t.Errorf("left %q", got)
	}
}

func subBucket(t *testing.T, b bucket.Bucket) {
	put(t, b, "other", "o")
	put(t, b, "shopping/x", "o")
	s := bucket.Sub(bucket.Sub(b, "/prod/"), "shop")
	must(t, s.Create(t.Context(), "m/1", []byte("one")))
	put(t, s, "m/2", "two")
	wantObject(t, b, "prod/shop/m/1", "one")
	if got := names(t, s, "m/", "m/1"); !slices.Equal(got, []string{"m/2"}) {
		t.Errorf("listed %q", got)
	}
	if got := names(t, s, "", ""); !slices.Equal(got, []string{"m/1", "m/2"}) {
		t.Errorf("listed %q", got)
	}
	if got, err := s.GetRange(t.Context(), "m/2", 1, 2); err != nil || string(got) != "wo" {
		t.Errorf("read %q, %v", got, err)
	}
	must(t, s.Delete(t.Context(), "m/1"))
	if _, err := s.Size(t.Context(), "m/1"); !errors.Is(err, bucket.ErrNotFound) {
		t.Errorf("size of a deleted object: %v", err)
	}
	for _, name := range []string{"", "/m/2", "../other", "."} {
		if _, err := s.Get(t.Context(), name); err == nil || errors.Is(err, bucket.ErrNotFound) {
			t.Errorf("Get(%q) through a prefix: %v, want it refused", name, err)
		}
	}
	if want := strings.TrimSuffix(b.String(), "/") + "/prod/shop"; s.String() != want {
		t.Errorf("named %q, want %q", s, want)
	}
}
