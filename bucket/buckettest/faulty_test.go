package buckettest

import (
	"context"
	"errors"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/afterimagedb/afterimage/bucket"
)

func TestFaultyWithoutAPlanPassesTheSuite(t *testing.T) {
	Run(t, func(*testing.T) bucket.Bucket { return NewFaulty(bucket.NewMemory()) })
}

func TestFaultyFailsBefore(t *testing.T) {
	m := bucket.NewMemory()
	f := NewFaulty(m)
	f.Set(At(2, Fail))
	put(t, f, "a", "1")
	if err := f.Put(t.Context(), "b", nil); !errors.Is(err, ErrInjected) {
		t.Fatalf("second write: %v", err)
	}
	put(t, f, "c", "3")
	if got := names(t, m, "", ""); len(got) != 2 || f.Calls() != 3 {
		t.Errorf("wrote %q in %d calls", got, f.Calls())
	}
	f.Set(From(2, Fail))
	wantObject(t, f, "a", "1")
	for range 3 {
		if _, err := f.Get(t.Context(), "a"); !errors.Is(err, ErrInjected) {
			t.Errorf("after the crash: %v", err)
		}
	}
}

func TestFaultyLosesReplies(t *testing.T) {
	m := bucket.NewMemory()
	f := NewFaulty(m)
	f.Set(Always(LoseReply))
	if err := f.Create(t.Context(), "a", []byte("1")); !errors.Is(err, ErrInjected) {
		t.Fatal(err)
	}
	wantObject(t, m, "a", "1")
	if err := f.Create(t.Context(), "a", []byte("2")); !errors.Is(err, bucket.ErrExists) || errors.Is(err, ErrInjected) {
		t.Errorf("an operation's own error comes first: %v", err)
	}
	if err := f.Delete(t.Context(), "a"); !errors.Is(err, ErrInjected) {
		t.Error(err)
	}
	if got := names(t, m, "", ""); len(got) != 0 {
		t.Errorf("left %q", got)
	}
}

func TestFaultyCorrupts(t *testing.T) {
	m := bucket.NewMemory()
	f := NewFaulty(m)
	put(t, f, "a", "0123456789")
	f.Set(Always(Flip(3)))
	got, err := f.Get(t.Context(), "a")
	must(t, err)
	if string(got) == "0123456789" || string(got[:2]) != "01" || string(got[3:]) != "3456789" {
		t.Errorf("read %q", got)
	}
	f.Set(nil)
	wantObject(t, f, "a", "0123456789") // only what was read was wrong
	f.Set(At(1, Flip(1000)))
	data := []byte("0123456789")
	must(t, f.Put(t.Context(), "b", data))
	stored, err := m.Get(t.Context(), "b")
	must(t, err)
	if string(data) != "0123456789" || string(stored[:9]) != "012345678" || stored[9] == '9' {
		t.Errorf("stored %q from %q", stored, data)
	}
}

func TestFaultyFull(t *testing.T) {
	f := NewFaulty(bucket.NewMemory())
	put(t, f, "a", "1")
	f.Set(Always(Full))
	if err := f.Put(t.Context(), "b", nil); !errors.Is(err, syscall.ENOSPC) || !errors.Is(err, ErrInjected) {
		t.Errorf("a write to a full disk: %v", err)
	}
	wantObject(t, f, "a", "1")
	must(t, f.Delete(t.Context(), "a"))
}

func TestFaultySlow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := NewFaulty(bucket.NewMemory())
		f.Set(When(func(c Call) bool { return c.Op == OpPut }, Slow(time.Minute)))
		start := time.Now()
		put(t, f, "a", "1")
		if d := time.Since(start); d != time.Minute {
			t.Errorf("took %v", d)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := f.Put(ctx, "b", nil); !errors.Is(err, context.DeadlineExceeded) {
			t.Error(err)
		}
	})
}
