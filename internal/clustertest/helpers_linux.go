package clustertest

import (
	"syscall"
	"time"
)

// CPUUsed is what this process has used of it so far.
func CPUUsed() time.Duration {
	var used syscall.Rusage
	Must(syscall.Getrusage(syscall.RUSAGE_SELF, &used))
	return time.Duration(used.Utime.Nano() + used.Stime.Nano())
}
