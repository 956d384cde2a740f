//go:build unix && !linux

package cluster

import "os"

// runningBinary is this process's file by its path at start: these systems
// have no name for the file that runs.
func runningBinary() string { return executable }

func closeRangeCloexec() bool { return false }

func waitExit(proc *os.Process) (*os.ProcessState, error) { return proc.Wait() }
