//go:build e2e

package bucket

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/afterimagedb/afterimage/bucket"
	"github.com/afterimagedb/afterimage/bucket/buckettest"
	"github.com/afterimagedb/afterimage/bucket/open"
	"github.com/afterimagedb/afterimage/e2e/harness"
	"github.com/afterimagedb/afterimage/e2e/harness/harnesstest"
)

func openURL(t *testing.T, url string) bucket.Bucket {
	t.Helper()
	b, err := open.Open(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestS3Contract(t *testing.T) {
	srv := harnesstest.S3(t, harness.S3Options{})
	n := 0
	buckettest.Run(t, func(t *testing.T) bucket.Bucket {
		n++
		return openURL(t, srv.URL(fmt.Sprintf("suite%d", n)))
	})
}

// TestS3Parts writes an object that goes up in parts, twice.
func TestS3Parts(t *testing.T) {
	b := openURL(t, harnesstest.S3(t, harness.S3Options{}).URL("parts"))
	data := bytes.Repeat([]byte("0123456789abcdef"), 70<<20/16)
	data[65<<20] = 'X'
	if err := b.Create(t.Context(), "big", data); err != nil {
		t.Fatal(err)
	}
	if err := b.Create(t.Context(), "big", data); !errors.Is(err, bucket.ErrExists) {
		t.Fatalf("second Create: %v, want ErrExists", err)
	}
	got, err := b.Get(t.Context(), "big")
	if err != nil || !bytes.Equal(got, data) {
		t.Fatalf("read %d bytes, %v", len(got), err)
	}
	if got, err = b.GetRange(t.Context(), "big", 65<<20, 3); err != nil || string(got) != "X12" {
		t.Errorf("range: %q, %v", got, err)
	}
	if err := b.Put(t.Context(), "big", data[:66<<20]); err != nil {
		t.Fatal(err)
	}
	if size, err := b.Size(t.Context(), "big"); err != nil || size != 66<<20 {
		t.Errorf("size %d, %v", size, err)
	}
}

// TestS3CutConnections cuts every connection after some bytes, while writers race to create objects: whatever was
// acknowledged is there, and no name has two winners.
func TestS3CutConnections(t *testing.T) {
	srv := harnesstest.S3(t, harness.S3Options{})
	proxy := cutter(t, strings.TrimPrefix(srv.Endpoint, "http://"))
	const writers, names = 4, 40
	var winners [names]atomic.Int32
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	g, ctx := errgroup.WithContext(ctx)
	for w := range writers {
		b := openURL(t, "s3://"+srv.Bucket+"/cut?endpoint="+url.QueryEscape("http://"+proxy))
		g.Go(func() error {
			for n := range names {
				err := createUntilKnown(ctx, b, fmt.Sprintf("n/%03d", n), fmt.Sprintf("%d of %d", n, w))
				if err == nil {
					winners[n].Add(1)
				} else if !errors.Is(err, bucket.ErrExists) {
					return err
				}
			}
			return nil
		})
	}
	if err := g.Wait(); err != nil {
		t.Fatal(err)
	}
	b := openURL(t, srv.URL("cut"))
	for n := range names {
		data, err := b.Get(t.Context(), fmt.Sprintf("n/%03d", n))
		if err != nil || !strings.HasPrefix(string(data), fmt.Sprintf("%d of ", n)) || winners[n].Load() != 1 {
			t.Errorf("object %d: %q, %v, %d winners", n, data, err, winners[n].Load())
		}
	}
}

// cutter forwards connections to a server and cuts each when it has answered some hundreds of bytes: in the middle of an
// answer, or just before it.
func cutter(t *testing.T, server string) (addr string) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	t.Cleanup(func() { closeQuietly(l); wg.Wait() })
	wg.Go(func() {
		for n := int64(0); ; n++ {
			client, err := l.Accept()
			if err != nil {
				return
			}
			wg.Go(func() {
				defer closeQuietly(client)
				up, err := net.Dial("tcp", server)
				if err != nil {
					t.Error(err)
					return
				}
				defer closeQuietly(up)
				wg.Go(func() {
					_, _ = io.Copy(up, client)
					closeQuietly(up)
				})
				_, _ = io.CopyN(client, up, n*397%4001)
			})
		}
	})
	return l.Addr().String()
}

// closeQuietly ends a connection, which may have ended already.
func closeQuietly(c io.Closer) { _ = c.Close() }

// createUntilKnown does what the manifest does: after an error it reads back whose object is there.
func createUntilKnown(ctx context.Context, b bucket.Bucket, name, data string) error {
	for {
		err := b.Create(ctx, name, []byte(data))
		if err == nil || ctx.Err() != nil {
			return err
		}
		got, gerr := b.Get(ctx, name)
		switch {
		case gerr == nil && string(got) == data:
			return nil
		case gerr == nil:
			return bucket.ErrExists
		case ctx.Err() != nil:
			return errors.Join(err, gerr)
		}
	}
}
