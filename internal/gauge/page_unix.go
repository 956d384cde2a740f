//go:build unix

package gauge

import (
	"fmt"
	"os"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Supported says that workers can have a page on this system.
const Supported = true

// Map makes a Writer of the descriptor that the master has sent. The descriptor stays the
// caller's, and Map does not need it any more. The error says that it is no page, or that
// the system could not map it.
func Map(fd int) (Writer, error) {
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return Writer{}, os.NewSyscallError("fstat", err)
	}
	if st.Mode&unix.S_IFMT != unix.S_IFREG || st.Size != size {
		return Writer{}, fmt.Errorf("gauge: descriptor %d is no page", fd)
	}
	b, err := unix.Mmap(fd, 0, size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return Writer{}, os.NewSyscallError("mmap", err)
	}
	return Writer{wordsOf(b)}, nil
}

func wordsOf(b []byte) *words { return (*words)(unsafe.Pointer(unsafe.SliceData(b))) }
