//go:build unix

package main

import (
	"bytes"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
)

// counts are what must not grow. Without /proc some are 0.
type counts struct {
	FDs, Goroutines, Zombies int
	RSS                      int64 // bytes
}

// within reports whether nothing of c has grown from before: memory by 64 MiB,
// which floods leave to the allocator.
func (c counts) within(before counts) bool {
	return c.FDs <= before.FDs && c.Goroutines <= before.Goroutines && c.Zombies == 0 && c.RSS <= before.RSS+64<<20
}

func census() (c counts) {
	runtime.GC()
	c.Goroutines = runtime.NumGoroutine()
	if fds, err := os.ReadDir("/dev/fd"); err == nil {
		c.FDs = len(fds)
	}
	if b, err := os.ReadFile("/proc/self/statm"); err == nil {
		if f := bytes.Fields(b); len(f) > 1 {
			pages, _ := strconv.ParseInt(string(f[1]), 10, 64)
			c.RSS = pages * int64(os.Getpagesize())
		}
	}
	stats, _ := filepath.Glob("/proc/[0-9]*/stat")
	self := strconv.Itoa(os.Getpid())
	for _, path := range stats {
		b, _ := os.ReadFile(path)
		f := bytes.Fields(b[bytes.LastIndexByte(b, ')')+1:])
		if len(f) > 1 && string(f[0]) == "Z" && string(f[1]) == self {
			c.Zombies++
		}
	}
	return c
}
