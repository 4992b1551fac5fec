//go:build !linux

package harness

import "syscall"

// childAttr keeps a terminal's Ctrl-C from a child: who started it stops it.
func childAttr() *syscall.SysProcAttr { return &syscall.SysProcAttr{Setpgid: true} }
