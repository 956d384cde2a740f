package process

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// SetName sets the name by which ps, top and pgrep show this process, which is
// otherwise the last element of the path that was executed: of a program that is
// held open the number of a descriptor. It is for package initialisation, which
// runs on the thread that gives the process its name.
func SetName(name string) {
	b, err := unix.BytePtrFromString(name)
	if err == nil {
		unix.Prctl(unix.PR_SET_NAME, uintptr(unsafe.Pointer(b)), 0, 0, 0)
	}
}
