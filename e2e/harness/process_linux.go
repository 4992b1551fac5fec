package harness

import "syscall"

// childAttr makes a child die with the thread that started it, and keeps a terminal's Ctrl-C from it: who started it stops it.
func childAttr() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Setpgid: true}
}
