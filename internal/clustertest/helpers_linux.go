package clustertest

import (
	"syscall"
	"time"
)

// CPUUsed returns the CPU time that this process has used.
func CPUUsed() time.Duration {
	var used syscall.Rusage
	Must(syscall.Getrusage(syscall.RUSAGE_SELF, &used))
	return time.Duration(used.Utime.Nano() + used.Stime.Nano())
}
