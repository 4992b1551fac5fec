//go:build bench

package bench

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"go.mongodb.org/mongo-driver/bson"
	"go.mongodb.org/mongo-driver/bson/primitive"

	"github.com/afterimagedb/afterimage/bucket"
	"github.com/afterimagedb/afterimage/dialect"
	"github.com/afterimagedb/afterimage/dialect/mongodb"
	"github.com/afterimagedb/afterimage/e2e/bench/workload"
	"github.com/afterimagedb/afterimage/e2e/harness"
	"github.com/afterimagedb/afterimage/e2e/product"
	"github.com/afterimagedb/afterimage/manifest"
	"github.com/afterimagedb/afterimage/segment"
	"github.com/afterimagedb/afterimage/snapshotter"
)

const (
	days         = 9
	churnPercent = 3
	commandRuns  = 3
)

// snapshot writes the state at three times, each beside mongodump of the live server.
func (b *bench) snapshot(t *testing.T) {
	b.caughtUp(t)
	ctx := t.Context()
	var dumps []usage
	var dumped int64
	for range commandRuns {
		u, n, err := b.main.dump(ctx)
		if err != nil {
			t.Fatal(err)
		}
		dumps, dumped = append(dumps, u), n
	}
	dump := median(dumps, usageCPU)
	target := b.scaled(3 * time.Second)
	for _, x := range []struct {
		name string
		at   primitive.Timestamp
	}{{"just after the first image", b.image.start}, {"in the middle of the operations", b.ops.middle}, {"at the end", b.ops.end}} {
		var ours []usage
		var size int64
		for range commandRuns {
			u, n, err := b.writeSnapshot(ctx, x.at)
			if err != nil {
				t.Fatal(err)
			}
			ours, size = append(ours, u), n
		}
		u := median(ours, usageCPU)
		b.add(t, row{
			Claim: "snapshot to a mongodump folder " + x.name + ", CPU", Peer: "mongodump plain of the live server: " + secs(dump.cpu), Ours: secs(u.cpu),
			Ratio: ratio(u.cpu.Seconds(), dump.cpu.Seconds()), Target: "under " + secs(target), Met: u.cpu < target,
			Note: fmt.Sprintf("took %s (mongodump %s), %s (%s), %s of memory", secs(u.wall), secs(dump.wall), mb(size), mb(dumped), mb(u.peak)),
		})
	}
}

func usageCPU(u usage) float64 { return u.cpu.Seconds() }

// writeSnapshot writes one and removes it again.
func (b *bench) writeSnapshot(ctx context.Context, at primitive.Timestamp) (usage, int64, error) {
	dir := filepath.Join(b.dir, "snapshot")
	defer discard(dir)
	u, err := b.command(ctx, "snapshot", product.Source, "--at", timeOf(at).String(), "--out", dir, "-o", "json")
	if err != nil {
		return u, 0, err
	}
	n, err := sizeOf(dir)
	return u, n, err
}

// command runs the product on the main installation.
func (b *bench) command(ctx context.Context, args ...string) (usage, error) {
	return run(ctx, b.binary, append(args, "--config", filepath.Join(b.main.dir, "afterimage.yaml"))...)
}

// restore puts the state in the middle of the operations into a fresh set, and mongorestore the same data into another.
func (b *bench) restore(t *testing.T) {
	b.caughtUp(t)
	ctx := t.Context()
	at := timeOf(b.ops.middle).String()
	var report struct{ Documents int64 }
	ours, ourCPU, err := intoFreshSet(ctx, func(uri string) (usage, error) {
		u, err := b.command(ctx, "restore", product.Source, "--at", at, "--to", uri, "--include", workload.Database, "-o", "json")
		if err == nil {
			err = json.Unmarshal(u.stdout, &report)
		}
		return u, err
	})
	if err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(b.dir, "snapshot")
	defer discard(dir)
	if _, err := b.command(ctx, "snapshot", product.Source, "--at", at, "--out", dir, "--include", workload.Database); err != nil {
		t.Fatal(err)
	}
	tool, err := harness.Mongorestore.Path()
	if err != nil {
		t.Fatal(err)
	}
	theirs, theirCPU, err := intoFreshSet(ctx, func(uri string) (usage, error) {
		return run(ctx, tool, "--quiet", "--uri", uri, "--dir", dir, "-j", "4", "--numInsertionWorkersPerCollection", "4")
	})
	if err != nil {
		t.Fatal(err)
	}
	rate := func(u usage) float64 { return float64(report.Documents) / u.wall.Seconds() }
	b.add(t, row{
		Claim: fmt.Sprintf("restore of %d documents in the middle of the operations into a set of 3 members", report.Documents),
		Peer:  fmt.Sprintf("mongorestore -j 4 of the same documents: %.0f documents/s", rate(theirs)), Ours: fmt.Sprintf("%.0f documents/s", rate(ours)),
		Ratio: ratio(rate(ours), rate(theirs)), Target: "at least 1, no replay", Met: report.Documents > 0 && rate(ours) >= rate(theirs),
		Note: fmt.Sprintf("took %s with its verification (mongorestore %s, no verification, no replay); CPU %s (%s), of the mongods %s (%s): they bound it; memory %s (%s)",
			secs(ours.wall), secs(theirs.wall), secs(ours.cpu), secs(theirs.cpu), secs(ourCPU), secs(theirCPU), mb(ours.peak), mb(theirs.peak)),
	})
}

// intoFreshSet runs a restore into a set of its own and returns also the CPU of its mongods.
func intoFreshSet(ctx context.Context, f func(uri string) (usage, error)) (u usage, cpu time.Duration, err error) {
	set, err := harness.StartReplicaSet(ctx, harness.Options{Members: 3, CacheGB: 1, OplogMB: 2048, Name: "target"})
	if err != nil {
		return u, 0, err
	}
	defer func() { err = errors.Join(err, set.Stop()) }()
	m, err := startMeter(pidsOf(set)...)
	if err != nil {
		return u, 0, err
	}
	if u, err = f(set.URI()); err != nil {
		return u, 0, err
	}
	cpu, _, err = m.read()
	return u, cpu, err
}

// stored is the first image and nine days of changes.
func (b *bench) stored(t *testing.T) {
	ctx := t.Context()
	p, err := protect(ctx, b.binary, filepath.Join(b.dir, "stored"), harness.Options{CacheGB: 1, OplogMB: 2048})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := p.stop(); err != nil {
			t.Error(err)
		}
	}()
	if err := workload.Load(ctx, p.client, seed, b.docs); err != nil {
		t.Fatal(err)
	}
	if p.service, err = p.install.Serve(); err != nil {
		t.Fatal(err)
	}
	s, err := p.await(ctx, "the first image", complete)
	if err != nil {
		t.Fatal(err)
	}
	first := bytesOf(s, segment.Image)
	_, dumpFirst, err := p.dump(ctx, "--gzip")
	if err != nil {
		t.Fatal(err)
	}
	changed := 0
	for day := range days {
		n, err := workload.Churn(ctx, p.client, seed, uint32(day+1), churnPercent)
		if err != nil {
			t.Fatal(err)
		}
		changed += n
		at, err := workload.Mark(ctx, p.client)
		if err == nil {
			_, err = p.await(ctx, "a day's changes", covers(at))
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if s, err = p.settle(ctx); err != nil {
		t.Fatal(err)
	}
	_, dumpLast, err := p.dump(ctx, "--gzip")
	if err != nil {
		t.Fatal(err)
	}
	manifests, err := sizeOf(filepath.Join(p.bucketDir(), "manifests"))
	if err != nil {
		t.Fatal(err)
	}
	all, err := sizeOf(p.bucketDir())
	if err != nil {
		t.Fatal(err)
	}
	live := bytesOf(s, segment.Image, segment.Changes) + manifests
	peer := (dumpFirst + dumpLast) * (days + 1) / 2
	target := int64(120e6 * b.scale)
	b.add(t, row{
		Claim: fmt.Sprintf("stored: first image and %d days of %d%% changes (%d), every moment kept", days, churnPercent, changed),
		Peer:  fmt.Sprintf("mongodump --gzip, %d times: %s (first %s, last %s, between them counted as their mean)", days+1, mb(peer), mb(dumpFirst), mb(dumpLast)),
		Ours:  mb(live), Ratio: ratio(float64(live), float64(peer)), Target: "under " + mb(target), Met: live < target,
		Note: fmt.Sprintf("live segments and all manifests (%s); first image %s, images now %s, changes %s; %d doomed objects still on disk for their grace make it %s",
			mb(manifests), mb(first), mb(bytesOf(s, segment.Image)), mb(bytesOf(s, segment.Changes)), len(s.Doomed), mb(all)),
	})
}

// counting counts what is read of a bucket.
type counting struct {
	bucket.Bucket
	reads, bytes atomic.Int64
}

// GetRange counts.
func (c *counting) GetRange(ctx context.Context, name string, offset, length int64) ([]byte, error) {
	data, err := c.Bucket.GetRange(ctx, name, offset, length)
	c.reads.Add(1)
	c.bytes.Add(int64(len(data)))
	return data, err
}

// history reads the history of the document that is written most often, and of others.
func (b *bench) history(t *testing.T) {
	b.caughtUp(t)
	ctx := t.Context()
	folder, err := bucket.NewFolder(b.main.bucketDir())
	if err != nil {
		t.Fatal(err)
	}
	count := &counting{Bucket: folder}
	store, err := manifest.Open(ctx, count, product.Source, "")
	if err != nil {
		t.Fatal(err)
	}
	state, err := store.Load(ctx)
	if err != nil {
		t.Fatal(err)
	}
	keys := []string{b.ops.hot}
	r := workload.NewRandom(seed + 3)
	orders, _ := workload.Sizes(b.docs)
	for range 20 {
		keys = append(keys, workload.OrderID(r.Below(orders)).Hex())
	}
	var took []time.Duration
	var hot string
	var reads, bytesRead, mostVersions int64
	for i, key := range keys {
		d, n, err := b.oneHistory(ctx, state, count, key)
		if err != nil {
			t.Fatal(err)
		}
		took = append(took, d)
		reads, bytesRead, mostVersions = max(reads, count.reads.Load()), max(bytesRead, count.bytes.Load()), max(mostVersions, int64(n))
		if i == 0 {
			hot = fmt.Sprintf("%s, %d versions, %d range reads", ms(d), n, count.reads.Load())
		}
	}
	var commands []usage
	for range commandRuns {
		u, err := b.command(ctx, "history", product.Source, workload.Database+".orders", b.ops.hot, "-o", "json")
		if err != nil {
			t.Fatal(err)
		}
		commands = append(commands, u)
	}
	u := median(commands, func(u usage) float64 { return u.wall.Seconds() })
	most, p50 := quantile(took, 1), quantile(took, .5)
	b.add(t, row{
		Claim: "history of one document, after all of it", Peer: "not offered", Ours: fmt.Sprintf("%s at most, p50 %s", ms(most), ms(p50)), Target: "under 50 ms, a few range reads",
		Met: most < 50*time.Millisecond && reads <= 64,
		Note: fmt.Sprintf("library call, nothing cached, %d documents, at most %d range reads and %.2f MB; the hottest one %s; whole command %s (%s of CPU, %d versions printed)",
			len(keys), reads, float64(bytesRead)/1e6, hot, ms(u.wall), secs(u.cpu), bytes.Count(u.stdout, []byte(`"when"`))),
	})
}

// oneHistory reads one history with nothing cached, and counts its reads anew. It returns the number of versions.
func (b *bench) oneHistory(ctx context.Context, state *manifest.State, count *counting, key string) (time.Duration, int, error) {
	s := snapshotter.New(snapshotter.Options{State: state, Bucket: count, Dialect: mongodb.New(), Scratch: b.dir})
	tables, err := s.Catalog(ctx, state.Horizon())
	if err != nil {
		return 0, 0, err
	}
	var table dialect.Table
	for _, x := range tables {
		if x.Namespace == workload.Database+".orders" {
			table = x
		}
	}
	candidates, err := mongodb.New().ParseKey(key)
	if err != nil {
		return 0, 0, err
	}
	count.reads.Store(0)
	count.bytes.Store(0)
	began := time.Now()
	versions, err := s.History(ctx, table, candidates[0], 0, state.Horizon())
	took := time.Since(began)
	if err != nil {
		return 0, 0, err
	}
	if len(versions) == 0 {
		return 0, 0, fmt.Errorf("no version of %s", key)
	}
	last := versions[len(versions)-1]
	if last.Exists {
		if id, ok := bson.Raw(last.Body).Lookup("_id").ObjectIDOK(); !ok || !strings.EqualFold(id.Hex(), key) {
			return 0, 0, fmt.Errorf("history of %s is of %s", key, id.Hex())
		}
	}
	return took, len(versions), nil
}
