package harness

import (
	"context"
	"errors"
	"net"
	"os/exec"
	"syscall"
	"time"
)

// Process is a child that a test controls: one of the product, for instance. It dies with this process.
type Process struct{ p *process }

// StartProcess starts a program; what it prints is appended to a file. The environment is this process's and more.
func StartProcess(path string, args, env []string, logPath string) (*Process, error) {
	p, err := startProcess(path, args, env, logPath)
	if err != nil {
		return nil, err
	}
	return &Process{p}, nil
}

// PID is the process id.
func (p *Process) PID() int { return p.p.os.Pid }

// Alive says whether it has not ended yet.
func (p *Process) Alive() bool { return p != nil && p.p.alive() }

// Exited is closed when it has ended.
func (p *Process) Exited() <-chan struct{} { return p.p.exited }

// ExitCode is that of a process that has ended, -1 when a signal ended it.
func (p *Process) ExitCode() int {
	<-p.p.exited
	var exit *exec.ExitError
	switch {
	case p.p.err == nil:
		return 0
	case errors.As(p.p.err, &exit):
		return exit.ExitCode()
	}
	return -1
}

// Kill ends it at once (SIGKILL) and waits until it is gone.
func (p *Process) Kill() error { return p.p.kill() }

// Pause freezes it (SIGSTOP).
func (p *Process) Pause() error { return p.p.signal(syscall.SIGSTOP) }

// Resume lets a paused one go on (SIGCONT).
func (p *Process) Resume() error { return p.p.signal(syscall.SIGCONT) }

// Stop asks it to end (SIGTERM), waits, and kills it after a grace.
func (p *Process) Stop() error { return p.p.stop() }

// Poll calls f until it says nil or the context ends; what f said last is in the error.
func Poll(ctx context.Context, f func(context.Context) error) error { return poll(ctx, nil, f) }

// FreeAddr is an address of 127.0.0.1 on which nothing listens now.
func FreeAddr() (string, error) {
	ports, err := freePorts(1)
	if err != nil {
		return "", err
	}
	return addr(ports[0]), nil
}

// Reachable waits until something listens on an address.
func Reachable(ctx context.Context, address string) error {
	return poll(ctx, nil, func(ctx context.Context) error {
		d := net.Dialer{Timeout: time.Second}
		c, err := d.DialContext(ctx, "tcp", address)
		if err == nil {
			c.Close()
		}
		return err
	})
}
