//go:build unix

package drain

import "golang.org/x/sys/unix"

// readNow is one read(2) that does not wait: the descriptor is non-blocking.
func readNow(fd uintptr, p []byte) (int, error) { return unix.Read(int(fd), p) }
