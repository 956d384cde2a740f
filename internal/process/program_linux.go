package process

import (
	"cmp"
	"debug/buildinfo"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime/debug"
	"slices"
	"strings"
	"sync"

	"golang.org/x/sys/unix"
)

// Program is a program to execute, held open: what is started later is the same
// file, whatever lies at its path by then.
type Program struct {
	path  string // what is executed if no file is held
	name  string // what errors call it
	argv0 string
	info  os.FileInfo // of the held file; nil if it is not held

	mu     sync.Mutex
	f      *os.File // nil for a script, whose interpreter opens the path itself
	closed bool
}

// ErrClosed is why nothing can be started from a Program that is closed: what
// lies at its path may be another version.
var ErrClosed = errors.New("the program is closed")

const selfExe = "/proc/self/exe"

// findStartPath is the path by which this program was started, symbolic links
// and all: a deployment may move "current" to another release. It is "" if that
// did not lead to this program.
func findStartPath(path, dir string) string {
	if !strings.ContainsRune(path, filepath.Separator) {
		found, err := exec.LookPath(path)
		if err != nil {
			return ""
		}
		path = found
	}
	if !filepath.IsAbs(path) {
		path = filepath.Join(dir, path)
	}
	if self, err := os.Stat(selfExe); err == nil {
		if named, err := os.Stat(path); err != nil || !os.SameFile(self, named) {
			return ""
		}
		return path
	}
	// Without /proc nothing tells more than that this can be executed.
	if _, err := exec.LookPath(path); err != nil {
		return ""
	}
	return path
}

// running is the program that this process runs. Where /proc is missing, as in a
// chroot, it is whatever lies at its path.
func (s *Self) running() (*Program, error) {
	if _, err := os.Stat(selfExe); err == nil {
		return &Program{path: selfExe, name: s.Executable, argv0: s.argv0}, nil
	}
	if s.Executable == "" {
		return nil, fmt.Errorf("program: without /proc nothing tells which file this program is, and %q, by which it was started, leads to none: mount /proc, or set Options.Exec: %w", s.argv0, os.ErrNotExist)
	}
	if _, err := os.Stat(s.Executable); err != nil {
		return nil, fmt.Errorf("program: /proc is missing, and so is the file by which this program was started: mount /proc, or set Options.Exec: %w", err)
	}
	return &Program{path: s.Executable, name: s.Executable, argv0: s.argv0}, nil
}

// Open finds the program at path: this one if path is "". For a reload that is
// the file which lies now where this program was started from.
func (s *Self) Open(path string, reload bool) (*Program, error) {
	argv0 := path
	if path == "" {
		argv0 = s.argv0
		if !reload || s.path == "" {
			return s.running()
		}
		path = s.path
	}
	// A FIFO would be waited for, until somebody writes to it: never, as a rule.
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		if os.IsPermission(err) { // it may be executed all the same
			return &Program{path: path, name: path, argv0: argv0}, nil
		}
		return nil, fmt.Errorf("program: %w", err)
	}
	info, err := f.Stat()
	if err != nil || !info.Mode().IsRegular() {
		f.Close()
		if err == nil {
			err = fmt.Errorf("%s is no regular file: %w", path, unix.EACCES) // as execve has it
		}
		return nil, fmt.Errorf("program: %w", err)
	}
	var magic [2]byte
	if n, _ := f.ReadAt(magic[:], 0); n == 2 && string(magic[:]) == "#!" {
		f.Close()
		return &Program{path: path, name: path, argv0: argv0}, nil
	}
	return &Program{path: path, name: path, argv0: argv0, info: info, f: f}, nil
}

// State returns the Program as data, for the program that replaces this one in the same
// process. If the Program is this very program, its file is held from now on: soon
// /proc/self/exe is the other one.
func (p *Program) State() (ProgramState, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	s := ProgramState{p.path, p.name, p.argv0, -1}
	switch {
	case p.closed:
		return s, ErrClosed
	case p.f == nil && p.path == selfExe:
		f, err := os.Open(selfExe)
		if err != nil {
			return s, fmt.Errorf("program: %w", err)
		}
		if p.info, err = f.Stat(); err != nil {
			f.Close()
			return s, fmt.Errorf("program: %w", err)
		}
		p.f, p.path = f, p.name
		s.Path = p.path
	}
	if p.f != nil {
		s.FD = int(p.f.Fd())
	}
	return s, nil
}

// RestoreProgram makes a Program of its state, and takes over its descriptor.
func RestoreProgram(s ProgramState) (*Program, error) {
	p := &Program{path: s.Path, name: s.Name, argv0: s.Argv0}
	if s.FD < 0 {
		return p, nil
	}
	p.f = os.NewFile(uintptr(s.FD), s.Path)
	var err error
	if p.info, err = p.f.Stat(); err != nil {
		return nil, fmt.Errorf("program: %w", err)
	}
	return p, nil
}

// Path is the path by which this program would be started anew. A symbolic link in it may
// lead elsewhere by now.
func (s *Self) Path() string { return cmp.Or(s.path, s.Executable) }

// start executes the program as cmd says.
func (p *Program) start(cmd *exec.Cmd) (*os.Process, error) {
	path, done, err := p.forExec(highest(cmd))
	if err != nil {
		return nil, err
	}
	defer done()
	if proc := p.startByName(cmd, path); proc != nil {
		return proc, nil
	}
	cmd.Path = path
	err = cmd.Start()
	if failed, ok := errors.AsType[*os.PathError](err); ok && failed.Path == path {
		failed.Path = p.name
	}
	return cmd.Process, err
}

// startByName executes a held program by a path that leads to it, if there is one.
// The system shows a process by the last element of the path that was executed: by
// that of a descriptor it would be a number.
func (p *Program) startByName(cmd *exec.Cmd, held string) *os.Process {
	if p.info == nil {
		return nil
	}
	resolved, _ := os.Readlink(held)
	for _, name := range []string{p.path, resolved} {
		if !p.liesAt(name) {
			continue
		}
		named := *cmd
		named.Path = name
		if named.Start() != nil {
			return nil // the user of the process may not come there
		}
		if p.liesAt(name) {
			return named.Process
		}
		// Another file was put there just now, and may be what was executed.
		named.Process.Kill()
		named.Process.Wait()
	}
	return nil
}

// liesAt reports whether the path leads to the held file.
func (p *Program) liesAt(path string) bool {
	info, err := os.Stat(path)
	return err == nil && os.SameFile(info, p.info)
}

// Imports reports whether it is a Go program of which the module is a part.
func (p *Program) Imports(module string) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.f == nil {
		return false
	}
	info, err := buildinfo.Read(p.f)
	return err == nil && (info.Main.Path == module || slices.ContainsFunc(info.Deps, func(m *debug.Module) bool { return m.Path == module }))
}

// forExec returns the path to execute, and a function to call after that. above is the
// highest descriptor that the new process gets: the held file gets a number well above it,
// since the runtime moves the process's descriptors about before the exec.
func (p *Program) forExec(above int) (path string, done func(), err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return "", nil, ErrClosed
	}
	if p.f == nil {
		return p.path, func() {}, nil
	}
	if _, err := os.Stat(selfExe); err != nil {
		return p.path, func() {}, nil // no path leads to a descriptor
	}
	fd, err := unix.FcntlInt(p.f.Fd(), unix.F_DUPFD_CLOEXEC, above+16)
	if err != nil {
		return "", nil, os.NewSyscallError("fcntl", err)
	}
	return fmt.Sprintf("/proc/self/fd/%d", fd), func() { unix.Close(fd) }, nil
}

// highest is the highest descriptor that cmd hands to the new process.
func highest(cmd *exec.Cmd) (fd int) {
	files := append([]*os.File(nil), cmd.ExtraFiles...)
	for _, s := range []any{cmd.Stdin, cmd.Stdout, cmd.Stderr} {
		if f, ok := s.(*os.File); ok && f != nil {
			files = append(files, f)
		}
	}
	for _, f := range files {
		if rc, err := f.SyscallConn(); err == nil { // Fd would make it blocking
			rc.Control(func(n uintptr) { fd = max(fd, int(n)) })
		}
	}
	return fd
}

// Close lets go of the file. Nothing can be started from the program any more.
func (p *Program) Close() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.closed = true
	if p.f != nil {
		p.f.Close()
		p.f = nil
	}
}
