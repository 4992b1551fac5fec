package stream

import (
	"encoding/binary"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"testing"
	"time"

	"github.com/klauspost/compress/zstd"

	"github.com/afterimagedb/afterimage"
)

// benchBatches makes batches of about size bytes of changes that look like documents: words, numbers, identities.
func benchBatches(n, size int) []*afterimage.Batch {
	rnd := rand.New(rand.NewPCG(1, 2))
	words := make([]string, 2000)
	for i := range words {
		for range 1 + rnd.IntN(4) {
			words[i] += []string{"ka", "lo", "mi", "ran", "te", "vo", "sul", "per", "din", "ar", "on", "ex"}[rnd.IntN(12)]
		}
	}
	var at uint64
	list := make([]*afterimage.Batch, n)
	for i := range list {
		b := &afterimage.Batch{BatchHeader: afterimage.BatchHeader{Lane: "rs0", Incarnation: "i1", From: afterimage.Position{Hi: at}}}
		for got := 0; got < size; {
			at++
			key := binary.BigEndian.AppendUint64(nil, rnd.Uint64())
			var body []byte
			for range 12 {
				f := rnd.Float64()
				body = append(append(body, "\x02field\x00"...), words[int(f*f*2000)]...)
				body = append(append(body, ' '), words[rnd.IntN(2000)]...)
				body = append(body, "\x01number\x00"...)
				body = binary.LittleEndian.AppendUint64(body, rnd.Uint64())
			}
			b.Changes = append(b.Changes, afterimage.Change{
				Time: afterimage.Time(at), Pos: afterimage.Position{Hi: at}, Wall: int64(at / 500), Op: afterimage.OpPut,
				Table: afterimage.TableID{byte(rnd.IntN(2))}, Key: key, Body: body,
			})
			got += len(key) + len(body)
		}
		b.To = afterimage.Position{Hi: at}
		list[i] = b
	}
	return list
}

func BenchmarkEncode(b *testing.B) {
	var e Encoder
	batch := benchBatches(1, 512<<10)[0]
	buf, err := e.Encode(nil, batch)
	if err != nil {
		b.Fatal(err)
	}
	b.SetBytes(int64(len(e.body)))
	b.ReportAllocs()
	for b.Loop() {
		if buf, err = e.Encode(buf[:0], batch); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(len(e.body))/float64(len(buf)), "ratio")
}

// BenchmarkZstd is what compression of the same body would cost with zstd at its fastest.
func BenchmarkZstd(b *testing.B) {
	var e Encoder
	if _, err := e.Encode(nil, benchBatches(1, 512<<10)[0]); err != nil {
		b.Fatal(err)
	}
	z, err := zstd.NewWriter(nil, zstd.WithEncoderConcurrency(1), zstd.WithEncoderLevel(zstd.SpeedFastest))
	if err != nil {
		b.Fatal(err)
	}
	var buf []byte
	b.SetBytes(int64(len(e.body)))
	for b.Loop() {
		buf = z.EncodeAll(e.body, buf[:0])
	}
	b.ReportMetric(float64(len(e.body))/float64(len(buf)), "ratio")
}

func BenchmarkDecode(b *testing.B) {
	var d Decoder
	msg, err := EncodeBatch(benchBatches(1, 512<<10)[0])
	if err != nil {
		b.Fatal(err)
	}
	if _, err := d.Decode(msg); err != nil {
		b.Fatal(err)
	}
	b.SetBytes(int64(len(d.body)))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := d.Decode(msg); err != nil {
			b.Fatal(err)
		}
	}
}

func cpuTime() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// BenchmarkBacklog makes 290 MB of changes durable, in batches of 512 KB.
func BenchmarkBacklog(b *testing.B) {
	batches := benchBatches(20, 512<<10)
	l := openLane(b, openBus(b, Options{}), "rs0")
	mustLast(b, l)
	const total = 290 << 20
	b.SetBytes(total)
	cpu := cpuTime()
	for b.Loop() {
		for i := range total / (512 << 10) {
			mustPublish(b, l, batches[i%len(batches)])
		}
		mustFlush(b, l)
	}
	b.ReportMetric((cpuTime()-cpu).Seconds()/float64(b.N), "cpu-s/op")
}

// BenchmarkRead reads what is durable.
func BenchmarkRead(b *testing.B) {
	l := openLane(b, openBus(b, Options{}), "rs0")
	mustLast(b, l)
	const n = 100
	mustPublish(b, l, slices.Repeat(benchBatches(10, 512<<10), n/10)...)
	mustFlush(b, l)
	b.SetBytes(n * 512 << 10)
	cpu := cpuTime()
	for b.Loop() {
		r, err := l.Read(b.Context(), 0)
		if err != nil {
			b.Fatal(err)
		}
		for range n {
			if _, _, err := r.Next(b.Context()); err != nil {
				b.Fatal(err)
			}
		}
		r.Close()
	}
	b.ReportMetric((cpuTime()-cpu).Seconds()/float64(b.N), "cpu-s/op")
}

// fdatasync50 is the median time of a write and fdatasync of size bytes in dir.
func fdatasync50(b *testing.B, dir string, size int) time.Duration {
	f, err := os.Create(filepath.Join(dir, "probe"))
	if err != nil {
		b.Fatal(err)
	}
	defer f.Close()
	var took []time.Duration
	for range 200 {
		began := time.Now()
		if _, err := f.Write(make([]byte, size)); err != nil {
			b.Fatal(err)
		}
		if err := syscall.Fdatasync(int(f.Fd())); err != nil {
			b.Fatal(err)
		}
		took = append(took, time.Since(began))
	}
	slices.Sort(took)
	return took[len(took)/2]
}

// BenchmarkLatency is the time from Publish of one small batch to its acknowledgement.
func BenchmarkLatency(b *testing.B) {
	dir := b.TempDir()
	l := openLane(b, openBus(b, Options{Dir: dir}), "rs0")
	mustLast(b, l)
	batch := benchBatches(1, 1000)[0]
	sync := fdatasync50(b, dir, 1000)
	var took []time.Duration
	for b.Loop() {
		began := time.Now()
		mustPublish(b, l, batch)
		mustFlush(b, l)
		took = append(took, time.Since(began))
	}
	slices.Sort(took)
	b.ReportMetric(float64(took[len(took)/2].Microseconds()), "p50-us")
	b.ReportMetric(float64(took[len(took)*99/100].Microseconds()), "p99-us")
	b.ReportMetric(float64(sync.Microseconds()), "fdatasync-p50-us")
}
