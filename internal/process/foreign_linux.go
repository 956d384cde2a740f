package process

import (
	"fmt"
	"os"
	"strconv"
	"syscall"

	"golang.org/x/sys/unix"
)

// endWithParent has the process sent a SIGTERM at the end of the thread that forked it.
func endWithParent(attr *syscall.SysProcAttr) { attr.Pdeathsig = syscall.SIGTERM }

// nameToExec is a path that leads to the held program, or "": see startByName.
func (p *Program) nameToExec() string {
	if p.info == nil {
		return ""
	}
	p.mu.Lock()
	resolved := ""
	if p.f != nil {
		resolved, _ = os.Readlink(fmt.Sprintf("/proc/self/fd/%d", p.f.Fd()))
	}
	p.mu.Unlock()
	for _, name := range []string{p.path, resolved} {
		if p.liesAt(name) {
			return name
		}
	}
	return ""
}

// pathToExec is the path by which a process executes the program that it has as the
// descriptor, or 0 if that is not held.
func (p *Program) pathToExec(held int) string {
	if held == 0 {
		return p.path
	}
	return "/proc/self/fd/" + strconv.Itoa(held)
}

// duplicate is a descriptor of the held program, or nil if it is not held.
func (p *Program) duplicate() (*os.File, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case p.closed:
		return nil, ErrClosed
	case p.f == nil:
		return nil, nil
	}
	fd, err := unix.FcntlInt(p.f.Fd(), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return nil, os.NewSyscallError("fcntl", err)
	}
	return os.NewFile(uintptr(fd), p.name), nil
}

// maxDescent bounds the walk from a process to those that started it.
const maxDescent = 100

// Descends reports whether the process pid is from, or descends from it. A process whose
// parent has ended descends from none but PID 1 any more.
func Descends(pid, from int) bool {
	for range maxDescent {
		if pid == from {
			return true
		}
		stat := readStat(pid)
		if stat == nil {
			return false
		}
		if pid, _ = strconv.Atoi(stat[statParent]); pid <= 1 {
			return false
		}
	}
	return false
}
