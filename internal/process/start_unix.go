//go:build unix

package process

import (
	"os"
	"os/exec"
	"strconv"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// CanSwitchUser reports whether a process can run as another user.
const CanSwitchUser = true

// ChannelFD is the descriptor at which a process finds its channel: the first
// after its standard files, as under node.
const ChannelFD = 3

// ChannelEnd is the end of a channel that a process is given.
type ChannelEnd = *os.File

// ChannelNumber is the number under which a process finds its end.
func ChannelNumber(ChannelEnd) int { return ChannelFD }

// shared is what the processes of a Launcher share.
type shared struct {
	seal  sync.Once
	files fileLimit
}

// prepare sets what is particular to the system. Both ends of the channel are
// close-on-exec here; only the new process gets one, at a number of its own.
func (l *Launcher) prepare(cmd *exec.Cmd, spec *Spec) {
	// The process that started this one may have left descriptors open, and so may a
	// library. No worker needs them.
	l.seal.Do(sealDescriptors)
	// Package time opens the zone's file without close-on-exec when somebody first asks
	// for the local time, so a process that begins meanwhile inherits it. Here it is read
	// before the first one.
	_, _ = time.Now().Zone()
	if spec.Foreign == nil {
		cmd.ExtraFiles = []*os.File{spec.Channel}
	}
	as(cmd, spec.User)
}

// as makes cmd run as u.
func as(cmd *exec.Cmd, u *User) {
	if u != nil {
		// Without a user there are no attributes: with any, package os leaves it to the
		// child to find that Dir is missing, and names the program in the error.
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: u.UID, Gid: u.GID, Groups: u.Groups}}
	}
}

// startError is err, which says enough here.
func startError(err error, _ *exec.Cmd) error { return err }

// bind: nothing ends a process with its parent. It sees the end of its channel.
func (*Launcher) bind(*os.Process) error { return nil }

// LetDrain does nothing: a process whose master was killed lives on anyway.
func (*Process) LetDrain() {}

// SignalOf is the signal that ended a process, or nil.
func SignalOf(state *os.ProcessState) os.Signal {
	if ws, ok := state.Sys().(syscall.WaitStatus); ok && ws.Signaled() {
		return ws.Signal()
	}
	return nil
}

// EnvName returns the name of a variable as it is compared.
func EnvName(name string) string { return name }

// isOpen reports whether f, one of the standard files, is there to be inherited.
func isOpen(f *os.File) bool {
	_, err := f.Stat()
	return err == nil
}

// openMax bounds the loop over descriptors where no system call does it.
const openMax = 1 << 16

// sealDescriptors marks every descriptor above 2 close-on-exec.
func sealDescriptors() {
	if closeRangeCloexec() {
		return
	}
	dir, err := os.Open("/dev/fd")
	if err == nil {
		defer dir.Close()
		names, _ := dir.Readdirnames(-1)
		for _, name := range names {
			if fd, err := strconv.Atoi(name); err == nil && fd > 2 {
				unix.CloseOnExec(fd)
			}
		}
		return
	}
	for fd := 3; fd < openMax; fd++ {
		unix.CloseOnExec(fd)
	}
}
