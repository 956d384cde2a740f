//go:build unix && !linux

package process

import (
	"os"

	"golang.org/x/sys/unix"
)

func closeRangeCloexec() bool { return false }

func waitExit(proc *os.Process) (*os.ProcessState, error) { return proc.Wait() }

// dupOver makes to another descriptor of what fd is one of.
func dupOver(fd, to int) error { return unix.Dup2(fd, to) }

// openProcess returns nil: no descriptor of a process is watched here.
func openProcess(int) *os.File { return nil }

func waitReadable(*os.File) bool { return false }

// AwaitExit reports false: nothing tells here that a process has ended but its status.
func (*Process) AwaitExit() bool { return false }
