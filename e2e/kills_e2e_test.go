//go:build e2e

package e2e

import (
	"context"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/afterimagedb/afterimage/e2e/harness"
	"github.com/afterimagedb/afterimage/e2e/harness/harnesstest"
	"github.com/afterimagedb/afterimage/e2e/product"
)

// The service dies of SIGKILL at random instants, also while it starts and during the first image, and loses and doubles
// nothing.
func TestKills(t *testing.T) {
	kills := 12
	if long {
		kills = 60
	}
	ctx := limit(t, 5*time.Minute)
	rs := harnesstest.ReplicaSet(t, harness.Options{CacheGB: 1})
	c := documentsOnly(t, ctx, rs)
	p := install(t, rs, product.Options{})
	rec := newRecorder(t, c, rs, harness.Mongo60)
	run, cancel := context.WithCancel(ctx)
	defer cancel()
	chaosEnded, recorded := make(chan error, 1), make(chan error, 1)
	go func() { chaosEnded <- c.Run(run) }()
	go func() { recorded <- rec.record(run) }()

	r := rand.New(rand.NewPCG(9, 9))
	service := serve(t, p)
	for i := range kills {
		pause(ctx, 200*time.Millisecond+time.Duration(r.Int64N(int64(2300*time.Millisecond))))
		if !service.Alive() {
			t.Fatalf("the service ended by itself with %d before kill %d:\n%s", service.ExitCode(), i, p.LogTail())
		}
		if err := service.Kill(); err != nil {
			t.Fatal(err)
		}
		service = serve(t, p)
	}
	// Of the times recorded some are in the window, whatever became of the first image so far.
	now, err := rec.now(ctx)
	if err != nil {
		t.Fatal(err)
	}
	waitCovers(t, ctx, p, service, now)
	pause(ctx, 2*time.Second)

	cancel()
	for _, ended := range []chan error{chaosEnded, recorded} {
		if err := <-ended; err != nil {
			t.Fatal(err)
		}
	}
	status := checkWhole(t, ctx, p, service, rec)
	rec.truths = rec.truths[max(0, len(rec.truths)-20):]
	checkTruths(t, ctx, p, rec, status, exact{version: harness.Mongo60, timesMin: 4})
}
