//go:build unix

package handle

import "golang.org/x/sys/unix"

func closeFD(fd int) { unix.Close(fd) }
