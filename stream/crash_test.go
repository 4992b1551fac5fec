package stream

import (
	"bufio"
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"strconv"
	"testing"
	"time"
)

// publishForever is the process that dies: it goes on from the stream's end and prints each position that is durable.
func publishForever(dir string) error {
	ctx := context.Background()
	b, err := Open(ctx, Options{Dir: dir, Source: "shop"})
	if err != nil {
		return err
	}
	l, err := b.Lane(ctx, "rs0")
	if err != nil {
		return err
	}
	last, err := l.Last(ctx)
	if err != nil {
		return err
	}
	fmt.Fprintln(os.Stdout, last.To.Hi)
	for at := last.To.Hi; ; {
		for range 1 + rand.IntN(20) {
			next, size := at+1+rand.Uint64N(5), 1+rand.IntN(3000)
			if rand.IntN(40) == 0 {
				size = 9 << 20 / int(next-at) // in parts
			}
			if err := l.Publish(ctx, batchAt(at, next, size)); err != nil {
				return err
			}
			at = next
		}
		if err := l.Flush(ctx); err != nil {
			return err
		}
		fmt.Fprintln(os.Stdout, at)
	}
}

// killAfter runs the child and kills it some time after its first line. It returns the last position it printed.
func killAfter(t *testing.T, dir string, life time.Duration) uint64 {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(exe)
	cmd.Env = append(os.Environ(), childEnv+"="+dir)
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	var acked uint64
	lines := bufio.NewScanner(out)
	for first := true; lines.Scan(); first = false {
		if first {
			timer := time.AfterFunc(life, func() { _ = cmd.Process.Kill() })
			defer timer.Stop()
		}
		if acked, err = strconv.ParseUint(lines.Text(), 10, 64); err != nil {
			t.Errorf("child printed %q", lines.Text())
		}
	}
	if err := cmd.Wait(); err == nil || cmd.ProcessState.Exited() {
		t.Fatalf("the child ended by itself: %v", err)
	}
	return acked
}

func crashRounds(t *testing.T, rounds int, lifeMax time.Duration) {
	dir := t.TempDir()
	var acked uint64
	for round := range rounds {
		was := acked
		acked = killAfter(t, dir, rand.N(lifeMax))
		if acked < was {
			t.Fatalf("round %d: the lane ends at %d, acknowledged was %d", round, acked, was)
		}
	}
	l := openLane(t, openBus(t, Options{Dir: dir}), "rs0")
	last := mustLast(t, l)
	if last.To.Hi < acked || acked == 0 {
		t.Fatalf("the lane ends at %d, acknowledged was %d", last.To.Hi, acked)
	}
	readChain(t, l, 0, 0, last.To.Hi)
}

func TestKilledAtRandomInstants(t *testing.T) { crashRounds(t, 5, 150*time.Millisecond) }
