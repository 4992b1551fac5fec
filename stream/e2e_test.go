//go:build e2e

package stream

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/url"
	"os"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"

	"github.com/afterimagedb/afterimage"
)

func TestKilledManyTimes(t *testing.T) { crashRounds(t, 60, 400*time.Millisecond) }

// node is a member of a cluster in this process.
type node struct {
	opts   *server.Options
	server *server.Server
}

func (n *node) start(t *testing.T) {
	t.Helper()
	s, err := server.NewServer(n.opts.Clone())
	if err != nil {
		t.Fatal(err)
	}
	s.SetLoggerV2(&serverLog{slog.New(slog.DiscardHandler)}, false, false, false)
	s.Start()
	n.server = s
}

func freePort(t *testing.T) int {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port
}

func startCluster(t *testing.T) ([]*node, string) {
	t.Helper()
	nodes := make([]*node, 3)
	var routes []*url.URL
	var urls []string
	for i := range nodes {
		o := serverOptions(t.TempDir(), 0)
		o.ServerName = fmt.Sprintf("n%d", i)
		o.NoSystemAccount = false
		o.MaxPayload = 1 << 20
		o.DontListen, o.Host, o.Port = false, "127.0.0.1", freePort(t)
		o.Cluster = server.ClusterOpts{Name: "c", Host: "127.0.0.1", Port: freePort(t)}
		routes = append(routes, &url.URL{Scheme: "nats", Host: fmt.Sprintf("127.0.0.1:%d", o.Cluster.Port)})
		urls = append(urls, fmt.Sprintf("nats://127.0.0.1:%d", o.Port))
		nodes[i] = &node{opts: o}
	}
	for _, n := range nodes {
		n.opts.Routes = routes
		n.start(t)
	}
	t.Cleanup(func() {
		for _, n := range nodes {
			stop(n.server)
		}
	})
	return nodes, strings.Join(urls, ",")
}

// openWhenReady opens a lane once the cluster has elected its leaders.
func openWhenReady(t *testing.T, b *Bus) *Lane {
	t.Helper()
	ctx := testContext(t)
	for try := 0; ; try++ {
		l, err := b.Lane(ctx, "rs0")
		if err == nil {
			return l
		}
		if pause(ctx, try) != nil {
			t.Fatal(err)
		}
	}
}

// Two publishers race while members of the cluster, among them the stream's leader, are stopped and started.
func TestClusterMakesOneChain(t *testing.T) {
	nodes, urls := startCluster(t)
	const to = 24000 // enough for several restarts on a fast machine
	ctx := testContext(t)
	var buses [2]*Bus
	var lanes [2]*Lane
	for i := range buses {
		buses[i] = openBus(t, Options{URL: urls, Replicas: 3})
		lanes[i] = openWhenReady(t, buses[i])
		lanes[i].pub.timeout = time.Second
	}
	var wg sync.WaitGroup
	done := make(chan struct{})
	for i, l := range lanes {
		n := uint64(i)
		wg.Go(func() {
			for ctx.Err() == nil {
				err := raceTo(ctx, l, to, func() uint64 { n = n*7 + 3; return 1 + n%6 })
				if err == nil {
					return
				}
				t.Logf("publisher %d goes on after: %v", i, err)
				_ = pause(ctx, 3)
			}
			t.Errorf("publisher %d: %v", i, ctx.Err())
		})
	}
	go func() { wg.Wait(); close(done) }()
	for i := 0; ; i++ {
		waitCurrent(ctx, nodes)
		select {
		case <-done:
			if i == 0 {
				t.Error("no member was stopped")
			}
			readChain(t, openWhenReady(t, buses[0]), 0, 0, to)
			t.Logf("%d restarts of members", i)
			return
		default:
		}
		if ctx.Err() != nil {
			<-done
			return
		}
		n := nodes[i%3]
		stop(n.server)
		n.start(t)
		if !n.server.ReadyForConnections(10 * time.Second) {
			t.Error("a member did not start")
		}
	}
}

// waitCurrent waits until all members are up to date, and a moment more in which publishers get on.
func waitCurrent(ctx context.Context, nodes []*node) {
	for _, n := range nodes {
		for !n.server.JetStreamIsCurrent() && pause(ctx, 3) == nil {
		}
	}
	for range 2 {
		_ = pause(ctx, 10)
	}
}

// The disk fills up under the server, and is emptied again.
func TestDiskFull(t *testing.T) {
	dir := t.TempDir()
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size=200m"); err != nil {
		t.Skipf("needs the right to mount: %v", err)
	}
	defer func() {
		if err := syscall.Unmount(dir, syscall.MNT_DETACH); err != nil {
			t.Error(err)
		}
	}()
	b, err := Open(testContext(t), Options{Dir: dir + "/s", Source: "shop", MaxBytes: 1 << 30})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = b.Close() })
	l := openLane(t, b, "rs0")
	l.pub.timeout, l.pub.patience = 500*time.Millisecond, 2*time.Second
	mustLast(t, l)
	ctx := testContext(t)
	published := make(chan error, 1)
	go func() {
		var err error
		for at := uint64(0); at < 300; {
			if err = l.Publish(ctx, batchAt(at, at+1, 500_000)); err == nil {
				err = l.Flush(ctx)
			}
			at++
			for err != nil && ctx.Err() == nil {
				t.Logf("at %d: %v", at, err)
				var last afterimage.Last
				if last, err = l.Last(ctx); err == nil {
					at = last.To.Hi
				}
			}
		}
		published <- err
	}()
	// The reserve is kept first; then somebody else takes what is left, and gives it back.
	filler := dir + "/filler"
	reader := openLane(t, b, "rs0")
	r, err := reader.Read(ctx, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	for at := uint64(0); at < 300; {
		batch, seq, err := r.Next(ctx)
		if err != nil {
			t.Logf("reader at %d: %v", at, err)
			continue
		}
		if batch.From.Hi != at {
			t.Fatalf("batch from %d, want %d", batch.From.Hi, at)
		}
		at = batch.To.Hi
		if at%40 == 0 {
			if err := os.WriteFile(filler, make([]byte, 190<<20), 0o600); err == nil {
				t.Error("the disk is not full")
			}
			_ = pause(ctx, 10)
			if err := os.Remove(filler); err != nil {
				t.Error(err)
			}
		}
		if at%20 == 0 {
			if err := reader.Trim(ctx, seq); err != nil {
				t.Logf("trim: %v", err)
			}
		}
	}
	if err := <-published; err != nil {
		t.Fatal(err)
	}
}
