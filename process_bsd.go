//go:build unix && !linux

package cluster

import "os"

func closeRangeCloexec() bool { return false }

func waitExit(proc *os.Process) (*os.ProcessState, error) { return proc.Wait() }
