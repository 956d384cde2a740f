package gauge

import (
	"os"

	"golang.org/x/sys/unix"
)

// source is a memfd that is mapped here. Its size is sealed, since a read of mapped memory
// behind the end of a truncated file is a SIGBUS. The descriptor is kept for an upgrade:
// the next program maps it again.
type source struct {
	memory []byte
	fd     int
}

func (s source) read() (Counts, bool) { return wordsOf(s.memory).read() }

func (s source) close() {
	unix.Munmap(s.memory)
	unix.Close(s.fd)
}

func newSource() (s source, worker int, err error) {
	fd, err := unix.MemfdCreate("cluster-gauge", unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING|unix.MFD_NOEXEC_SEAL)
	if err == unix.EINVAL { // before Linux 6.3
		fd, err = unix.MemfdCreate("cluster-gauge", unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING)
	}
	if err != nil {
		return s, -1, os.NewSyscallError("memfd_create", err)
	}
	if s.memory, err = seal(fd); err != nil {
		unix.Close(fd)
		return source{}, -1, err
	}
	if s.fd, err = unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 3); err != nil {
		unix.Munmap(s.memory)
		unix.Close(fd)
		return source{}, -1, os.NewSyscallError("fcntl", err)
	}
	return s, fd, nil
}

// adopt maps the descriptor of a page that was made before, and takes it over.
func adopt(fd int) (s source, err error) {
	s.fd = fd
	s.memory, err = unix.Mmap(fd, 0, size, unix.PROT_READ, unix.MAP_SHARED)
	return s, os.NewSyscallError("mmap", err)
}

func (s source) descriptor() int { return s.fd }

// seal gives the memfd its size for good, and maps it.
func seal(fd int) ([]byte, error) {
	if err := unix.Ftruncate(fd, size); err != nil {
		return nil, os.NewSyscallError("ftruncate", err)
	}
	if _, err := unix.FcntlInt(uintptr(fd), unix.F_ADD_SEALS, unix.F_SEAL_SHRINK|unix.F_SEAL_GROW|unix.F_SEAL_SEAL); err != nil {
		return nil, os.NewSyscallError("fcntl", err)
	}
	memory, err := unix.Mmap(fd, 0, size, unix.PROT_READ, unix.MAP_SHARED)
	return memory, os.NewSyscallError("mmap", err)
}
