//go:build unix

package upgrade

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// Supported says that this system can replace the program of a process.
const Supported = true

// write puts h into a file without a name and returns its descriptor, which is
// close-on-exec.
func (h *Handover) write() (fd int, err error) {
	text, err := json.Marshal(h)
	if err != nil {
		return -1, err
	}
	if fd, err = nameless(); err != nil {
		return -1, err
	}
	for at := 0; at < len(text); {
		n, err := unix.Pwrite(fd, text[at:], int64(at))
		if err != nil && err != unix.EINTR {
			unix.Close(fd)
			return -1, os.NewSyscallError("pwrite", err)
		}
		at += max(0, n)
	}
	return fd, nil
}

// NewFile makes a file without a name.
func NewFile() (*os.File, error) {
	fd, err := nameless()
	if err != nil {
		return nil, err
	}
	return os.NewFile(uintptr(fd), "cluster-upgrade"), nil
}

// variable returns the variable that tells the successor the descriptors of the state and of
// the old program.
func variable(state, fallback int) string { return fmt.Sprintf("%s=%d:%d", envState, state, fallback) }

// Take returns the Handover that this process's program before an upgrade has left, or nil if
// there is none. After an error it can only be rolled back. Take is for package
// initialisation: until it has run, a process that this one starts would inherit the
// descriptors.
func Take() (*Handover, error) {
	text := os.Getenv(envState)
	os.Unsetenv(envState)
	first, second, ok := strings.Cut(text, ":")
	state, err := strconv.Atoi(first)
	fallback, err2 := strconv.Atoi(second)
	if !ok || err != nil || err2 != nil || state < 3 {
		return nil, nil
	}
	var st unix.Stat_t
	if unix.Fstat(state, &st) != nil || st.Mode&unix.S_IFMT != unix.S_IFREG || st.Nlink != 0 {
		return nil, nil // the variable was left by somebody else
	}
	h := &Handover{state: state, fallback: fallback}
	body := make([]byte, st.Size)
	for at := 0; at < len(body); {
		n, err := unix.Pread(state, body[at:], int64(at))
		if err == nil && n == 0 {
			err = io.ErrUnexpectedEOF
		}
		if err != nil && err != unix.EINTR {
			return h, fmt.Errorf("the state cannot be read: %w", err)
		}
		at += max(0, n)
	}
	if err := json.Unmarshal(body, h); err != nil {
		return h, fmt.Errorf("the state cannot be read: %w", err)
	}
	if h.PID != os.Getpid() {
		unix.Close(state)
		return nil, nil // the variable is that of the process which started this one
	}
	for _, fd := range h.all() {
		unix.CloseOnExec(fd)
	}
	if !Reads(h.Version) {
		return h, fmt.Errorf("the state has version %d, and this program reads %d", h.Version, Version)
	}
	return h, nil
}

// all returns all descriptors of h.
func (h *Handover) all() []int {
	all := append([]int{h.state}, h.FDs...)
	if h.fallback >= 0 {
		all = append(all, h.fallback)
	}
	return all
}

// Done closes the state and the old program. It is called when all is adopted.
func (h *Handover) Done() {
	unix.Close(h.state)
	if h.fallback >= 0 {
		unix.Close(h.fallback)
	}
}

// Rollback executes the old program again, with the same state. args are its arguments, of
// which the first is the program's name. keep are descriptors that it gets beside those of
// the state. Rollback returns only if it fails.
func (h *Handover) Rollback(why error, args []string, keep []int) error {
	if h.fallback < 0 || h.Failed != "" {
		return fmt.Errorf("there is no other program to go back to: %w", why)
	}
	old := *h
	old.Failed = why.Error()
	e := Exec{
		Path: fmt.Sprintf("/proc/self/fd/%d", h.fallback), Args: args, Env: Started().Env,
		Handover: &old, Fallback: -1, Keep: append(slices.Clone(keep), h.fallback),
	}
	return e.Run(nil)
}
