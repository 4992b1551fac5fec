//go:build e2e

package mongodb

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/afterimagedb/afterimage/e2e/harness"
)

const benchDocs = 300_000

// benchSource makes documents of about 980 bytes like those of an order: nested, with arrays, dates and text.
func benchSource(t testing.TB) *memory {
	r := rand.New(rand.NewPCG(1, 1))
	words := strings.Fields("ka lo mi ran te vo sul per din ar on ex tri quo bel nas")
	text := func(n int) string {
		var s strings.Builder
		for s.Len() < n {
			s.WriteString(words[r.IntN(len(words))])
			if r.IntN(3) == 0 {
				s.WriteByte(' ')
			}
		}
		return s.String()
	}
	m := newMemory()
	for _, ns := range []string{"shop.customers", "shop.orders"} {
		n := benchDocs / 3
		if ns == "shop.orders" {
			n = benchDocs - n
		}
		docs := make([][]byte, 0, n)
		for i := range n {
			d := newDocument().str("_id", fmt.Sprintf("C%08d", i)).i64("seq", int64(i)).str("status", words[r.IntN(8)])
			for k := range 4 {
				item := newDocument().str("sku", text(10)).str("name", text(14)).i32("qty", int32(r.IntN(9))).end()
				d = d.doc("item"+strconv.Itoa(k), item)
			}
			docs = append(docs, d.str("notes", text(560)).i32("rev", 0).end())
		}
		m.table(t, ns, docs...)
	}
	return m
}

// cpu is what the processes have used, in seconds.
func cpu(t testing.TB, pids []int) (s float64) {
	for _, pid := range pids {
		b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
		if err != nil {
			t.Skip("no /proc: CPU can't be told")
		}
		f := strings.Fields(string(b[strings.LastIndexByte(string(b), ')')+2:]))
		user, _ := strconv.ParseFloat(f[11], 64)
		system, _ := strconv.ParseFloat(f[12], 64)
		s += (user + system) / 100
	}
	return s
}

// BenchmarkRestore restores 300,000 documents into a fresh 3-member set, by us and by mongorestore.
func BenchmarkRestore(b *testing.B) {
	m := benchSource(b)
	dump := b.TempDir()
	for ns, rows := range m.rows {
		db, coll := splitNamespace(ns)
		if err := os.MkdirAll(filepath.Join(dump, db), 0o750); err != nil {
			b.Fatal(err)
		}
		f, err := os.Create(filepath.Join(dump, db, coll+".bson"))
		if err != nil {
			b.Fatal(err)
		}
		for _, r := range rows {
			if _, err := f.Write(r.body); err != nil {
				b.Fatal(err)
			}
		}
		if err := f.Close(); err != nil {
			b.Fatal(err)
		}
	}
	b.Run("afterimage", func(b *testing.B) {
		benchRestore(b, func(uri string) error {
			rep, err := Restore(context.Background(), Options{URI: uri, Source: m, At: at()})
			if err == nil && rep.Documents != benchDocs {
				err = fmt.Errorf("%d documents", rep.Documents)
			}
			return err
		})
	})
	b.Run("mongorestore", func(b *testing.B) {
		path, err := harness.Mongorestore.Path()
		if err != nil {
			b.Skip(err)
		}
		benchRestore(b, func(uri string) error {
			out, err := exec.Command(path, "--uri", uri, "-j", "4", "--numInsertionWorkersPerCollection", "4", dump).CombinedOutput()
			if err != nil {
				return fmt.Errorf("%w: %s", err, out)
			}
			return nil
		})
	})
}

func benchRestore(b *testing.B, restore func(uri string) error) {
	for b.Loop() {
		b.StopTimer()
		rs, err := harness.StartReplicaSet(context.Background(), harness.Options{Members: 3, CacheGB: 1, OplogMB: 2000})
		if err != nil {
			b.Fatal(err)
		}
		var pids []int
		for _, member := range rs.Members {
			pids = append(pids, member.PID())
		}
		before, begin := cpu(b, pids), time.Now()
		b.StartTimer()
		err = restore(rs.URI())
		b.StopTimer()
		b.ReportMetric(benchDocs/time.Since(begin).Seconds(), "docs/s")
		b.ReportMetric(cpu(b, pids)-before, "mongod-cpu-s")
		if stop := rs.Stop(); stop != nil || err != nil {
			b.Fatal(err, stop)
		}
		b.StartTimer()
	}
}
