//go:build unix

package main

import (
	"fmt"
	"os"
	"os/signal"
	"syscall"
)

// reopenOnSignal opens the log anew at each SIGUSR1, until end.
func reopenOnSignal(out *output) (end func()) {
	c := make(chan os.Signal, 1)
	signal.Notify(c, syscall.SIGUSR1)
	go func() {
		for range c {
			if err := out.reopen(); err != nil {
				fmt.Fprintf(os.Stderr, "cluster: the log goes on where it was: %s\n", plain(err.Error()))
			}
		}
	}()
	return func() { signal.Stop(c); close(c) }
}

// inode tells one file from another that has its place, size and time.
func inode(st os.FileInfo) uint64 {
	if sys, ok := st.Sys().(*syscall.Stat_t); ok {
		return uint64(sys.Ino)
	}
	return 0
}
