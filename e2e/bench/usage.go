//go:build bench

package bench

import (
	"bytes"
	"context"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/afterimagedb/afterimage/e2e/harness"
)

const tick = time.Second / 100 // of /proc's CPU times

// cpuOf is user and system time of processes up to now.
func cpuOf(pids ...int) (time.Duration, error) {
	var sum time.Duration
	for _, pid := range pids {
		b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
		if err != nil {
			return 0, err
		}
		f := strings.Fields(string(b[bytes.LastIndexByte(b, ')')+1:])) // from field 3 on
		for _, x := range f[11:13] {
			n, err := strconv.ParseInt(x, 10, 64)
			if err != nil {
				return 0, fmt.Errorf("/proc/%d/stat: %w", pid, err)
			}
			sum += time.Duration(n) * tick
		}
	}
	return sum, nil
}

// peakMemory is the most memory that a process has held, in bytes.
func peakMemory(pid int) int64 {
	text := field(fmt.Sprintf("/proc/%d/status", pid), "VmHWM")
	n, _ := strconv.ParseInt(strings.TrimSuffix(text, " kB"), 10, 64) // zero when the process is gone: shown as such
	return n << 10
}

func pidsOf(rs *harness.ReplicaSet) []int {
	var out []int
	for _, m := range rs.Members {
		out = append(out, m.PID())
	}
	return out
}

// meter measures the CPU of processes over a time.
type meter struct {
	pids  []int
	cpu   time.Duration
	began time.Time
}

func startMeter(pids ...int) (meter, error) {
	cpu, err := cpuOf(pids...)
	return meter{pids, cpu, time.Now()}, err
}

// read returns the CPU and the time since the start.
func (m meter) read() (cpu, wall time.Duration, err error) {
	now, err := cpuOf(m.pids...)
	return now - m.cpu, time.Since(m.began), err
}

// usage is what a command took.
type usage struct {
	wall, cpu time.Duration
	peak      int64 // bytes
	stdout    []byte
}

// run runs a command to its end.
func run(ctx context.Context, path string, args ...string) (usage, error) {
	var out, errs bytes.Buffer
	cmd := exec.CommandContext(ctx, path, args...)
	cmd.Stdout, cmd.Stderr = &out, &errs
	began := time.Now()
	err := cmd.Run()
	u := usage{wall: time.Since(began), stdout: out.Bytes()}
	if err != nil {
		return u, fmt.Errorf("%s: %w: %s", filepath.Base(path), err, errs.String())
	}
	u.cpu = cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime()
	if r, ok := cmd.ProcessState.SysUsage().(*syscall.Rusage); ok {
		u.peak = r.Maxrss << 10
	}
	return u, nil
}

// sizeOf is the bytes of the files in a folder.
func sizeOf(dir string) (int64, error) {
	var sum int64
	err := filepath.WalkDir(dir, func(_ string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		info, err := d.Info()
		if err == nil {
			sum += info.Size()
		}
		return err
	})
	return sum, err
}

// discard removes what is not needed any more; what stays goes with the folder of the test.
func discard(path string) { _ = os.RemoveAll(path) }

// syncTimes writes 4 KB and makes it durable, every so often until ctx ends: the disk's share in what is acknowledged, under
// the same load.
func syncTimes(ctx context.Context, dir string, every time.Duration) ([]time.Duration, error) {
	f, err := os.CreateTemp(dir, "sync")
	if err != nil {
		return nil, err
	}
	defer discard(f.Name())
	defer f.Close()
	t := time.NewTicker(every)
	defer t.Stop()
	var out []time.Duration
	for {
		select {
		case <-ctx.Done():
			return out, nil
		case <-t.C:
		}
		began := time.Now()
		if _, err := f.Write(make([]byte, 4<<10)); err != nil {
			return nil, err
		}
		if err := syscall.Fdatasync(int(f.Fd())); err != nil {
			return nil, err
		}
		out = append(out, time.Since(began))
	}
}

// quantile is one of measured times; it sorts them.
func quantile(times []time.Duration, q float64) time.Duration {
	if len(times) == 0 {
		return 0
	}
	slices.Sort(times)
	return times[min(len(times)-1, int(q*float64(len(times))))]
}

func median[T any](all []T, of func(T) float64) T {
	s := slices.Clone(all)
	slices.SortFunc(s, func(a, b T) int { return int(1e9 * (of(a) - of(b))) })
	return s[len(s)/2]
}

func ms(d time.Duration) string { return fmt.Sprintf("%.1f ms", float64(d)/1e6) }

func secs(d time.Duration) string { return fmt.Sprintf("%.2f s", d.Seconds()) }

func mb(n int64) string { return fmt.Sprintf("%.1f MB", float64(n)/1e6) }
