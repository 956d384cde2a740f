package process

import (
	"bytes"
	"fmt"
	"os"
	"strconv"
	"time"
)

// Resident is the resident set of a process in bytes, 0 if it cannot be told
// (proc(5), statm).
func Resident(pid int) int64 {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/statm", pid))
	if err != nil {
		return 0
	}
	if f := bytes.Fields(b); len(f) > 1 {
		pages, _ := strconv.ParseInt(string(f[1]), 10, 64)
		return pages * int64(os.Getpagesize())
	}
	return 0
}

// clockTicks per second, of /proc: a constant of the interface.
const clockTicks = 100

// CPU is what a process has used, in user and kernel, 0 if it cannot be told.
func CPU(pid int) time.Duration {
	stat := readStat(pid)
	if stat == nil {
		return 0
	}
	user, _ := strconv.ParseInt(stat[statUser], 10, 64)
	system, _ := strconv.ParseInt(stat[statSystem], 10, 64)
	return time.Duration(user+system) * time.Second / clockTicks
}
