package main

import (
	"fmt"
	"io"
	"log/slog"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/afterimagedb/afterimage"
	"github.com/afterimagedb/afterimage/restorer"
)

// progress shows long work: one line that is written over on a terminal, a log line now and then elsewhere.
type progress struct {
	w        io.Writer
	log      *slog.Logger
	terminal bool
	began    time.Time
	last     time.Time
	shown    bool
}

func newProgress(w io.Writer, log *slog.Logger) *progress {
	p := &progress{w: w, log: log, began: time.Now()}
	if f, ok := w.(*os.File); ok {
		if st, err := f.Stat(); err == nil {
			p.terminal = st.Mode()&os.ModeCharDevice != 0
		}
	}
	return p
}

func (p *progress) every() time.Duration {
	if p.terminal {
		return 100 * time.Millisecond
	}
	return 10 * time.Second
}

// show prints a line unless the last one was just now.
func (p *progress) show(line string, args ...any) {
	now := time.Now()
	if p.last.IsZero() {
		p.last = p.began
	}
	if now.Sub(p.last) < p.every() {
		return
	}
	p.last = now
	if !p.terminal {
		p.log.Info(line, args...)
		return
	}
	p.shown = true
	var b strings.Builder
	b.WriteString(line)
	for i := 0; i+1 < len(args); i += 2 {
		fmt.Fprintf(&b, "  %v %v", args[i], args[i+1])
	}
	fmt.Fprintf(p.w, "\r\033[K%s", clip(b.String(), 110))
}

// done clears the line.
func (p *progress) done() {
	if p.shown {
		fmt.Fprint(p.w, "\r\033[K")
	}
}

func (p *progress) restore(r restorer.Progress) {
	secs := time.Since(p.began).Seconds()
	p.show("restoring", "phase", r.Phase, "namespace", r.Namespace, "tables", fmt.Sprintf("%d/%d", r.Tables, r.TablesTotal),
		"documents", r.Documents, "bytes", bytesOf(r.Bytes), "rate", bytesOf(int64(float64(r.Bytes)/secs))+"/s")
}

// parseBytes reads a size such as 50MB or 1GiB; empty is 0.
func parseBytes(s string) (int64, error) {
	if s == "" {
		return 0, nil
	}
	units := []struct {
		suffix string
		factor float64
	}{{"KiB", 1 << 10}, {"MiB", 1 << 20}, {"GiB", 1 << 30}, {"kB", 1e3}, {"KB", 1e3}, {"MB", 1e6}, {"GB", 1e9}, {"B", 1}, {"", 1}}
	for _, u := range units {
		number, ok := strings.CutSuffix(s, u.suffix)
		if !ok {
			continue
		}
		v, err := strconv.ParseFloat(strings.TrimSpace(number), 64)
		if err != nil || v <= 0 {
			break
		}
		return int64(v * u.factor), nil
	}
	return 0, afterimage.Usagef("size %q: write it like 50MB or 1GiB", s)
}
