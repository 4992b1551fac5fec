package harness

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"time"
)

const (
	pollInterval = 50 * time.Millisecond
	stopGrace    = 20 * time.Second // after SIGTERM, before SIGKILL
	logTailBytes = 4 << 10
)

// process is one running child. Its fields are set before it is handed out.
type process struct {
	os     *os.Process
	exited chan struct{} // closed when the child has been reaped
	err    error         // how it ended; read after exited
}

// startProcess runs a program with its output appended to a log file. The kernel kills a child when the thread that started it
// ends, and Go ends threads as it likes: so a goroutine locked to its thread starts the child and waits for it.
func startProcess(path string, args, env []string, logPath string) (*process, error) {
	out, err := os.OpenFile(logPath, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, fmt.Errorf("harness: log of %s: %w", filepath.Base(path), err)
	}
	cmd := exec.Command(path, args...)
	cmd.Env = append(os.Environ(), env...)
	cmd.Stdout, cmd.Stderr = out, out
	cmd.SysProcAttr = childAttr()

	p := &process{exited: make(chan struct{})}
	started := make(chan error)
	go func() {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		defer out.Close()
		if err := cmd.Start(); err != nil {
			started <- err
			return
		}
		p.os = cmd.Process
		started <- nil
		p.err = cmd.Wait()
		close(p.exited)
	}()
	if err := <-started; err != nil {
		return nil, fmt.Errorf("harness: start %s: %w", path, err)
	}
	return p, nil
}

// alive says whether the child has not been reaped yet; a nil process never lived.
func (p *process) alive() bool {
	if p == nil {
		return false
	}
	select {
	case <-p.exited:
		return false
	default:
		return true
	}
}

func (p *process) signal(s syscall.Signal) error {
	if !p.alive() {
		return os.ErrProcessDone
	}
	if err := p.os.Signal(s); err != nil {
		return fmt.Errorf("harness: signal %v to process %d: %w", s, p.os.Pid, err)
	}
	return nil
}

// kill ends the child at once, paused or not, and waits until it is gone.
func (p *process) kill() error {
	err := p.signal(syscall.SIGKILL)
	if err != nil && !errors.Is(err, os.ErrProcessDone) {
		return err
	}
	if p != nil {
		<-p.exited
	}
	return nil
}

// stop asks the child to end, and kills it when it has not after the grace.
func (p *process) stop() error {
	if !p.alive() {
		return nil
	}
	// The order matters: a paused child gets the request before it runs again.
	err := errors.Join(p.signal(syscall.SIGTERM), p.signal(syscall.SIGCONT))
	if err != nil && p.alive() {
		return errors.Join(err, p.kill())
	}
	select {
	case <-p.exited:
		return nil
	case <-time.After(stopGrace):
		return p.kill()
	}
}

// poll calls f until it says nil, the context ends, or the child has ended. What f said last is in the error.
func poll(ctx context.Context, p *process, f func(context.Context) error) error {
	tick := time.NewTicker(pollInterval)
	defer tick.Stop()
	var ended <-chan struct{}
	if p != nil {
		ended = p.exited
	}
	for {
		err := f(ctx)
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return errors.Join(ctx.Err(), err)
		case <-ended:
			return errors.Join(fmt.Errorf("process %d ended", p.os.Pid), p.err, err)
		case <-tick.C:
		}
	}
}

// Ports are chosen below the range from which the kernel gives ports to outgoing connections: one of those could take a
// member's port while the member is down.
const (
	portMin = 12000
	portMax = 32000
)

// freePorts returns n different ports of 127.0.0.1 on which nothing listens now.
func freePorts(n int) ([]int, error) {
	var ports []int
	for tries := 0; len(ports) < n; tries++ {
		if tries > 1000 {
			return nil, errors.New("harness: no free port on 127.0.0.1")
		}
		port := portMin + rand.IntN(portMax-portMin)
		l, err := net.Listen("tcp", addr(port))
		if err != nil {
			continue
		}
		defer l.Close() // all at once, so that no port is given twice
		ports = append(ports, port)
	}
	return ports, nil
}

func addr(port int) string { return net.JoinHostPort("127.0.0.1", strconv.Itoa(port)) }

// logTail returns the end of a log, for an error.
func logTail(path string) string {
	f, err := os.Open(path)
	if err != nil {
		return err.Error()
	}
	defer f.Close()
	if info, err := f.Stat(); err == nil && info.Size() > logTailBytes {
		if _, err := f.Seek(-logTailBytes, io.SeekEnd); err != nil {
			return err.Error()
		}
	}
	b, err := io.ReadAll(f)
	if err != nil {
		return err.Error()
	}
	return strings.TrimSpace(string(b))
}
