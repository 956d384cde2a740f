package upgrade

import (
	"bytes"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

func nameless() (fd int, err error) {
	fd, err = unix.MemfdCreate("cluster-upgrade", unix.MFD_CLOEXEC|unix.MFD_NOEXEC_SEAL)
	if err == unix.EINVAL { // before Linux 6.3
		fd, err = unix.MemfdCreate("cluster-upgrade", unix.MFD_CLOEXEC)
	}
	return fd, os.NewSyscallError("memfd_create", err)
}

// sealAll marks all descriptors close-on-exec. A library may have left some without the
// mark; those of this module have it.
func sealAll() { unix.CloseRange(3, ^uint(0)>>1, unix.CLOSE_RANGE_CLOEXEC) }

// environ returns the environment that the process was started with. The next program gets
// it: variables that this program has set itself, for instance from a file, must not look
// there as if somebody else had set them.
func environ() []string {
	b, err := os.ReadFile("/proc/self/environ")
	if err != nil {
		return os.Environ()
	}
	var env []string
	for kv := range bytes.SplitSeq(b, []byte{0}) {
		if strings.Contains(string(kv), "=") {
			env = append(env, string(kv))
		}
	}
	return env
}

// OpenRunning opens the file of the running program.
func OpenRunning() (fd int, err error) {
	fd, err = unix.Open("/proc/self/exe", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err == unix.EACCES { // this process may not read the file, but may execute it
		fd, err = unix.Open("/proc/self/exe", unix.O_PATH|unix.O_CLOEXEC, 0)
	}
	if err != nil {
		err = &os.PathError{Op: "open", Path: "/proc/self/exe", Err: err}
	}
	return fd, err
}
