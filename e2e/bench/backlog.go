//go:build bench

package bench

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"go.mongodb.org/mongo-driver/mongo"

	"github.com/afterimagedb/afterimage/e2e/product"
)

// backlog is what reading the operations took.
type backlog struct {
	raw, changes       []reading
	rawCPU, changesCPU time.Duration // of the mongods, least
	alone, whole       []outcome
	aloneCPU           []time.Duration // of the mongods
	member             string
	idle               float64 // CPU of the idle mongods, share of a core

	covered, coveredCPU time.Duration // of the real service, until the manifest covers it
	peak                int64
	settled, settledCPU time.Duration
}

const backlogRuns = 3

// catchUp measures reading the operations: raw, as a change stream, by listening processes, and by the service itself.
func (p *protected) catchUp(ctx context.Context, o operations) (backlog, error) {
	var b backlog
	var err error
	if b.idle, err = p.calm(ctx); err != nil {
		return b, err
	}
	for i := range backlogRuns {
		if err := b.run(ctx, p, o, i); err != nil {
			return b, err
		}
	}
	err = b.metered(p, &b.changesCPU, func(m *mongo.Client) error {
		r, err := readChanges(ctx, m, o.begin)
		b.changes = append(b.changes, r)
		return err
	})
	if err != nil {
		return b, fmt.Errorf("change stream: %w", err)
	}
	return b, b.serve(ctx, p, o)
}

// calm waits until the mongods have written out what they were given, and returns the share of a core that they go on to take.
func (p *protected) calm(ctx context.Context) (float64, error) {
	least := 1e9
	for range 20 {
		m, err := startMeter(pidsOf(p.set)...)
		if err != nil {
			return 0, err
		}
		select {
		case <-time.After(4 * time.Second):
		case <-ctx.Done():
			return 0, ctx.Err()
		}
		cpu, wall, err := m.read()
		if err != nil {
			return 0, err
		}
		share := cpu.Seconds() / wall.Seconds()
		if share > least*.9 || share < .03 {
			return min(share, least), nil
		}
		least = share
	}
	return least, nil
}

func (b *backlog) run(ctx context.Context, p *protected, o operations, i int) error {
	for _, compact := range []bool{false, true} {
		dir := filepath.Join(p.dir, fmt.Sprintf("child%d-%v", i, compact))
		defer discard(dir)
		do := orders{Source: product.Source, URI: p.set.URI(), Bucket: p.bucketDir(), Scratch: filepath.Join(dir, "scratch"), UpTo: timeOf(o.end), Compact: compact}
		var err error
		if do.Stream, err = copyOf(p.streamDir(), filepath.Join(dir, "stream")); err != nil {
			return err
		}
		if profile := os.Getenv("AFTERIMAGE_BENCH_PROFILE"); profile != "" && i == 0 {
			do.Profile = fmt.Sprintf("%s-compact-%v.pprof", profile, compact)
		}
		if compact {
			if do.Bucket, err = copyOf(p.bucketDir(), filepath.Join(dir, "bucket")); err != nil {
				return err
			}
		}
		m, err := startMeter(pidsOf(p.set)...)
		if err != nil {
			return err
		}
		out, err := listen(ctx, do)
		if err != nil {
			return err
		}
		cpu, wall, err := m.read()
		if err != nil {
			return err
		}
		if compact {
			b.whole = append(b.whole, out)
		} else {
			b.alone = append(b.alone, out)
			b.aloneCPU = append(b.aloneCPU, cpu-time.Duration(b.idle*float64(wall)))
			b.member = out.Member
		}
	}
	err := b.metered(p, &b.rawCPU, func(m *mongo.Client) error {
		r, err := readOplog(ctx, m, o.begin, o.end)
		b.raw = append(b.raw, r)
		return err
	})
	if err != nil {
		return fmt.Errorf("raw oplog: %w", err)
	}
	return nil
}

// metered reads the member that our listener reads, and keeps the least CPU of the mongods.
func (b *backlog) metered(p *protected, least *time.Duration, f func(*mongo.Client) error) error {
	var client *mongo.Client
	for _, m := range p.set.Members {
		if m.Addr() == b.member {
			var err error
			if client, err = m.Client(); err != nil {
				return err
			}
		}
	}
	if client == nil {
		return fmt.Errorf("the listener read %q, which is no member", b.member)
	}
	m, err := startMeter(pidsOf(p.set)...)
	if err != nil {
		return err
	}
	if err := f(client); err != nil {
		return err
	}
	cpu, wall, err := m.read()
	if cpu -= time.Duration(b.idle * float64(wall)); *least == 0 || cpu < *least {
		*least = cpu
	}
	return err
}

func (b *backlog) serve(ctx context.Context, p *protected, o operations) error {
	began := time.Now()
	var err error
	if p.service, err = p.install.Serve(); err != nil {
		return err
	}
	if _, err = p.await(ctx, "the backlog", covers(o.end)); err != nil {
		return err
	}
	b.covered = time.Since(began)
	if b.coveredCPU, err = cpuOf(p.service.PID()); err != nil {
		return err
	}
	if _, err := p.settle(ctx); err != nil {
		return err
	}
	b.settled = time.Since(began) - settleTime
	if b.settledCPU, err = cpuOf(p.service.PID()); err != nil {
		return err
	}
	b.peak = peakMemory(p.service.PID())
	return p.service.Stop()
}
