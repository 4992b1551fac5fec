package stream

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/afterimagedb/afterimage"
)

// childEnv makes the test binary the process that a crash test kills.
const childEnv = "AFTERIMAGE_STREAM_CHILD"

func TestMain(m *testing.M) {
	if dir := os.Getenv(childEnv); dir != "" {
		if err := publishForever(dir); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	goleak.VerifyTestMain(m)
}

func testContext(t testing.TB) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), 60*time.Second)
	t.Cleanup(cancel)
	return ctx
}

func openBus(t testing.TB, opts Options) *Bus {
	t.Helper()
	if opts.Source == "" {
		opts.Source = "shop"
	}
	if opts.URL == "" && opts.Dir == "" {
		opts.Dir = t.TempDir()
	}
	b, err := Open(testContext(t), opts)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := b.Close(); err != nil {
			t.Error(err)
		}
	})
	return b
}

func openLane(t testing.TB, b *Bus, name string) *Lane {
	t.Helper()
	l, err := b.Lane(testContext(t), name)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func mustLast(t testing.TB, l *Lane) afterimage.Last {
	t.Helper()
	last, err := l.Last(testContext(t))
	if err != nil {
		t.Fatal(err)
	}
	return last
}

func mustPublish(t testing.TB, l *Lane, batches ...*afterimage.Batch) {
	t.Helper()
	for _, b := range batches {
		if err := l.Publish(testContext(t), b); err != nil {
			t.Fatal(err)
		}
	}
}

func mustFlush(t testing.TB, l *Lane) {
	t.Helper()
	if err := l.Flush(testContext(t)); err != nil {
		t.Fatal(err)
	}
}

// batchAt makes the batch (from, to] with one change per position, whose body has size bytes that don't compress.
func batchAt(from, to uint64, size int) *afterimage.Batch {
	b := &afterimage.Batch{BatchHeader: afterimage.BatchHeader{
		Lane: "rs0", Incarnation: "i1",
		From: afterimage.Position{Hi: from}, To: afterimage.Position{Hi: to}, Horizon: afterimage.Time(to),
	}}
	rnd := rand.NewChaCha8([32]byte{byte(from), byte(to)})
	for p := from + 1; p <= to; p++ {
		body := make([]byte, size)
		_, _ = rnd.Read(body) // never fails
		b.Changes = append(b.Changes, afterimage.Change{
			Time: afterimage.Time(p), Pos: afterimage.Position{Hi: p}, Wall: int64(p), Op: afterimage.OpPut,
			Table: afterimage.TableID{1}, Key: fmt.Appendf(nil, "k%d", p), Body: body,
		})
	}
	return b
}

// readChain reads from the message after until position to, and checks that batches form a chain from position from.
// It returns the sequences of the batches.
func readChain(t testing.TB, l *Lane, after, from, to uint64) []uint64 {
	t.Helper()
	ctx := testContext(t)
	r, err := l.Read(ctx, after)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	var seqs []uint64
	for at := from; at < to; {
		b, seq, err := r.Next(ctx)
		if err != nil {
			t.Fatalf("after position %d: %v", at, err)
		}
		if b.From.Hi != at {
			t.Fatalf("message %d: batch from %d, want %d", seq, b.From.Hi, at)
		}
		for i := range b.Changes {
			if b.Changes[i].Pos.Hi != at+1+uint64(i) {
				t.Fatalf("message %d: change %d at %v", seq, i, b.Changes[i].Pos)
			}
		}
		at = b.To.Hi
		seqs = append(seqs, seq)
	}
	return seqs
}
