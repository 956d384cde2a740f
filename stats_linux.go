package cluster

import (
	"bytes"
	"fmt"
	"os"
	"strconv"
	"time"
)

var pageSize = int64(os.Getpagesize())

// residentBytes is pid's resident set, 0 if it cannot be told (proc(5), statm).
func residentBytes(pid int) int64 {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/statm", pid))
	if err != nil {
		return 0
	}
	if f := bytes.Fields(b); len(f) > 1 {
		pages, _ := strconv.ParseInt(string(f[1]), 10, 64)
		return pages * pageSize
	}
	return 0
}

// clockTicks per second, of /proc: a constant of the interface.
const clockTicks = 100

// cpuTime is what pid has used, in user and kernel (proc(5), stat).
func cpuTime(pid int) time.Duration {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0
	}
	// The second field is a name in parentheses, which may contain anything.
	f := bytes.Fields(b[bytes.LastIndexByte(b, ')')+1:])
	if len(f) < 13 {
		return 0
	}
	user, _ := strconv.ParseInt(string(f[11]), 10, 64)
	system, _ := strconv.ParseInt(string(f[12]), 10, 64)
	return time.Duration(user+system) * time.Second / clockTicks
}
