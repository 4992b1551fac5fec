//go:build bench

package bench

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"time"

	"github.com/afterimagedb/afterimage/e2e/harness"
)

// row is one claim.
type row struct {
	Claim  string `json:"claim"`
	Peer   string `json:"peer"` // the limit or peer, measured in the same run
	Ours   string `json:"ours"`
	Ratio  string `json:"ratio,omitempty"`
	Target string `json:"target"`
	Met    bool   `json:"met"`
	Note   string `json:"note,omitempty"` // what bounds it, and what else was seen
}

// report is all rows of a run.
type report struct {
	Date    string   `json:"date"`
	Scale   float64  `json:"scale"`
	Machine []string `json:"machine"`
	Load    string   `json:"loadBefore"`
	Rows    []row    `json:"rows"`
}

func newReport(scale float64) *report {
	return &report{Date: time.Now().UTC().Format("2006-01-02 15:04 MST"), Scale: scale, Machine: machine(), Load: firstLine("/proc/loadavg")}
}

// machine describes hardware and versions.
func machine() []string {
	out := []string{fmt.Sprintf("%d cores, %s", runtime.NumCPU(), field("/proc/cpuinfo", "model name"))}
	out = append(out, "memory "+field("/proc/meminfo", "MemTotal"), "Linux "+firstLine("/proc/sys/kernel/osrelease"), runtime.Version())
	if b, err := exec.Command("git", "describe", "--tags", "--always", "--dirty").Output(); err == nil {
		out = append(out, "afterimage "+strings.TrimSpace(string(b)))
	}
	for _, f := range []func() (string, error){mongod60, harness.Mongodump.Path} {
		path, err := f()
		if err != nil {
			continue // the rows that need it say so
		}
		if b, err := exec.Command(path, "--version").Output(); err == nil {
			line, _, _ := strings.Cut(string(b), "\n")
			out = append(out, strings.Replace(line, "db version", "mongod", 1))
		}
	}
	return out
}

func mongod60() (string, error) {
	p, err := harness.Mongod(harness.Mongo60)
	if err != nil {
		return "", err
	}
	return p.Path()
}

func field(path, name string) string {
	b, err := os.ReadFile(path)
	if err != nil {
		return err.Error()
	}
	for line := range strings.Lines(string(b)) {
		if k, v, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(k) == name {
			return strings.TrimSpace(v)
		}
	}
	return "unknown"
}

func firstLine(path string) string {
	b, err := os.ReadFile(path)
	if err != nil {
		return err.Error()
	}
	line, _, _ := strings.Cut(string(b), "\n")
	return line
}

func (r row) String() string {
	met := "met"
	if !r.Met {
		met = "NOT MET"
	}
	return fmt.Sprintf("| %s | %s | %s | %s | %s | %s | %s |", r.Claim, r.Peer, r.Ours, r.Ratio, r.Target, met, r.Note)
}

const tableHead = "| work | limit or peer, same run | ours | ratio | target | | what bounds it, and what else was seen |\n| --- | --- | --- | --- | --- | --- | --- |\n"

func (r *report) markdown() string {
	var b strings.Builder
	fmt.Fprintf(&b, "Measured %s at scale %g. Load average at the start: %s.\n\n", r.Date, r.Scale, r.Load)
	for _, m := range r.Machine {
		fmt.Fprintf(&b, "- %s\n", m)
	}
	b.WriteString("\n" + tableHead)
	for _, x := range r.Rows {
		b.WriteString(x.String() + "\n")
	}
	return b.String()
}

// write leaves the rows in folder bin, and in docs/performance.md if asked to.
func (r *report) write(root string) error {
	bin := filepath.Join(root, "bin")
	if err := os.MkdirAll(bin, 0o750); err != nil {
		return err
	}
	text, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(bin, "bench.json"), append(text, '\n'), 0o600); err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(bin, "bench.md"), []byte(r.markdown()), 0o600); err != nil {
		return err
	}
	if os.Getenv("AFTERIMAGE_BENCH_DOC") == "" {
		return nil
	}
	return r.publish(filepath.Join(root, "docs", "performance.md"))
}

// publish puts the fragment between the markers of the page.
func (r *report) publish(page string) error {
	begin, end := []byte("<!-- bench:begin -->\n"), []byte("<!-- bench:end -->")
	text, err := os.ReadFile(page)
	if err != nil {
		return err
	}
	head, rest, ok := bytes.Cut(text, begin)
	_, tail, ok2 := bytes.Cut(rest, end)
	if !ok || !ok2 {
		return fmt.Errorf("%s has no bench markers", page)
	}
	out := bytes.Join([][]byte{head, begin, []byte(r.markdown()), end, tail}, nil)
	return os.WriteFile(page, out, 0o600)
}
