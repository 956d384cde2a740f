//go:build unix

package upgrade

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Start is how this process was started.
type Start struct{ Env []string }

// Started returns how this process was started, without what an upgrade has added.
func Started() Start {
	return Start{slices.DeleteFunc(environ(), func(kv string) bool {
		name, _, _ := strings.Cut(kv, "=")
		return name == envState || name == envCheck
	})}
}

// Check runs a new program as a child, up to the point where it would adopt.
type Check struct {
	Path    string
	Args    []string // the first is the program's name
	Env     []string
	Dir     string
	Timeout time.Duration
}

// report is what the program says at that point.
type report struct {
	Version int // the version of the state that it writes
	Oldest  int // the oldest version that it reads
}

// managers are the variables of a service manager, which are for this process alone.
var managers = []string{"NOTIFY_SOCKET", "LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES", "WATCHDOG_PID", "WATCHDOG_USEC"}

// Run runs the check. If the program does not come to that point, the error has the end of
// its output.
func (c Check) Run(ctx context.Context) error {
	fds, err := pair()
	if err != nil {
		return err
	}
	unix.SetNonblock(fds[0], true)
	ours, theirs := os.NewFile(uintptr(fds[0]), "upgrade-check"), os.NewFile(uintptr(fds[1]), "upgrade-check")
	defer ours.Close()
	words := new(lastWords)
	cmd := &exec.Cmd{Path: c.Path, Args: c.Args, Dir: c.Dir, Stdout: words, Stderr: words, ExtraFiles: []*os.File{theirs}, WaitDelay: time.Second}
	for _, kv := range c.Env {
		if name, _, _ := strings.Cut(kv, "="); !slices.Contains(managers, name) {
			cmd.Env = append(cmd.Env, kv)
		}
	}
	cmd.Env = append(cmd.Env, envCheck+"=3")
	err = cmd.Start()
	theirs.Close()
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, c.Timeout)
	defer cancel()
	defer context.AfterFunc(ctx, func() { ours.SetReadDeadline(time.Unix(1, 0)) })()
	var said report
	line, err := bufio.NewReader(ours).ReadBytes('\n')
	if err == nil {
		err = json.Unmarshal(line, &said)
	}
	if err == nil || ctx.Err() != nil {
		cmd.Process.Kill()
	}
	end := cmd.Wait()
	switch {
	case err == nil && (said.Oldest > Version || said.Version < Version-1):
		return fmt.Errorf("the new program reads the state of versions %d to %d, and this one writes %d", said.Oldest, said.Version, Version)
	case err == nil:
		return nil
	case errors.Is(ctx.Err(), context.DeadlineExceeded):
		return fmt.Errorf("the new program did not come to AutoFork, Run or Fork within %v (StartTimeout): %w%s", c.Timeout, ctx.Err(), words)
	case ctx.Err() != nil:
		return ctx.Err()
	}
	how := "exit status 0"
	if end != nil {
		how = end.Error()
	}
	return fmt.Errorf("the new program ended before it came to AutoFork, Run or Fork: %s%s", how, words)
}

// pair makes a channel to the check. No worker that is started meanwhile may inherit it,
// since this process sees the end of the check by the channel's end.
func pair() (fds [2]int, err error) {
	syscall.ForkLock.RLock()
	defer syscall.ForkLock.RUnlock()
	fds, err = unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM, 0)
	if err != nil {
		return fds, os.NewSyscallError("socketpair", err)
	}
	for _, fd := range fds {
		unix.CloseOnExec(fd)
	}
	return fds, nil
}

// lastWords is a writer that keeps the end of what is written to it.
type lastWords struct {
	mu   sync.Mutex
	text []byte
}

const lastWordsSize = 4 << 10

func (w *lastWords) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.text = append(w.text, p...)
	w.text = w.text[max(0, len(w.text)-lastWordsSize):]
	return len(p), nil
}

func (w *lastWords) String() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.text) == 0 {
		return ""
	}
	return fmt.Sprintf("; its last words: %q", w.text)
}

// Child is this process as the check of an upgrade.
type Child struct{ f *os.File }

// BeginCheck returns the Child, or nil if this process is not the check of an upgrade. A
// check ends when the process ends that has started it. BeginCheck is for package
// initialisation.
func BeginCheck() *Child {
	fd, err := strconv.Atoi(os.Getenv(envCheck))
	os.Unsetenv(envCheck)
	if err != nil || fd < 3 {
		return nil
	}
	if _, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_TYPE); err != nil {
		return nil
	}
	unix.CloseOnExec(fd)
	c := &Child{os.NewFile(uintptr(fd), "upgrade-check")}
	go func() {
		io.Copy(io.Discard, c.f)
		os.Exit(1)
	}()
	return c
}

// Report says that the program has come to the point where it would adopt, and ends this
// process.
func (c *Child) Report() {
	line, _ := json.Marshal(report{Version: Version, Oldest: max(1, Version-1)})
	c.f.Write(append(line, '\n'))
	os.Exit(0)
}

// File is a program that was looked at.
type File struct {
	Path string
	info os.FileInfo
}

// Look looks at the program at path. The error says why that cannot replace this one.
func Look(path string) (File, error) {
	info, err := os.Stat(path)
	if err != nil {
		return File{}, err
	}
	if !info.Mode().IsRegular() {
		return File{}, fmt.Errorf("%s is no regular file", path)
	}
	if err := unix.Access(path, unix.X_OK); err != nil {
		return File{}, fmt.Errorf("%s cannot be executed: %w", path, err)
	}
	f, err := os.Open(path)
	if err != nil {
		return File{path, info}, nil // it may be executed all the same
	}
	defer f.Close()
	var magic [2]byte
	if n, _ := f.ReadAt(magic[:], 0); n == 2 && string(magic[:]) == "#!" {
		return File{}, fmt.Errorf("%s is a script: put the program there itself, or let the script end with exec and upgrade that path", path)
	}
	return File{path, info}, nil
}

// Same reports whether the path still leads to the same file, unchanged.
func (f File) Same() bool {
	now, err := os.Stat(f.Path)
	return err == nil && os.SameFile(now, f.info) && now.Size() == f.info.Size() && now.ModTime().Equal(f.info.ModTime())
}
