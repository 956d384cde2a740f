//go:build unix

package clustertest

import (
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/go-cluster/cluster"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// Children returns the pids of pid's children, zombies included. Linux only.
func Children(pid int) (pids []string) {
	lists, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", pid))
	for _, l := range lists {
		b, _ := os.ReadFile(l)
		pids = append(pids, strings.Fields(string(b))...)
	}
	return pids
}

// groupRuns reports whether a process of the group runs. Zombies do not count, where they can be
// told from others: their new parent reaps them, and the first process of a container may take
// its time.
func groupRuns(pgid int) bool {
	if syscall.Kill(-pgid, 0) == syscall.ESRCH {
		return false
	}
	stats, _ := filepath.Glob("/proc/[0-9]*/stat")
	for _, path := range stats {
		b, _ := os.ReadFile(path)
		// pid (name) state ppid pgrp …
		f := strings.Fields(string(b[strings.LastIndexByte(string(b), ')')+1:]))
		if len(f) <= 2 || f[2] != strconv.Itoa(pgid) {
			continue
		}
		// The first thread may be gone before others that hold the descriptors.
		threads, _ := os.ReadDir(filepath.Join(filepath.Dir(path), "task"))
		if f[0] != "Z" || len(threads) > 1 {
			return true
		}
	}
	return len(stats) == 0
}

// spurious reports whether a fork failed for no reason. Here none does.
func spurious(error) bool { return false }

// SendSignal sends a signal to a child that may be gone.
func SendSignal(p *os.Process, sig syscall.Signal) error { return p.Signal(sig) }

// Runs reports whether there is a child of this pid.
func Runs(pid int) bool { return syscall.Kill(pid, 0) == nil }

// Pause stops a process, and waits until it has stopped: with several threads that takes a
// moment.
func Pause(t testing.TB, pid int) {
	t.Helper()
	require.NoError(t, syscall.Kill(pid, syscall.SIGSTOP))
	stopped := func() bool {
		stats, _ := filepath.Glob("/proc/" + strconv.Itoa(pid) + "/task/*/stat")
		for _, path := range stats {
			b, _ := os.ReadFile(path)
			if f := strings.Fields(string(b[strings.LastIndexByte(string(b), ')')+1:])); len(f) > 0 && f[0] != "T" {
				return false
			}
		}
		if len(stats) > 0 {
			return true
		}
		out, _ := exec.Command("ps", "-o", "stat=", "-p", strconv.Itoa(pid)).Output() // no /proc
		return strings.HasPrefix(string(out), "T")
	}
	Eventually(t, stopped, "the process to stop")
}

// Descriptors lists this process's descriptors above 2, without those of the Go runtime, as
// "3 socket:[123]".
func Descriptors() (list []string) {
	dir, err := os.Open("/dev/fd")
	Must(err)
	defer dir.Close()
	names, err := dir.Readdirnames(-1)
	Must(err)
	for _, name := range names {
		fd, err := strconv.Atoi(name)
		if err != nil || fd <= 2 || fd == int(dir.Fd()) {
			continue
		}
		target, _ := os.Readlink(filepath.Join("/dev/fd", name))
		if slices.ContainsFunc([]string{"eventpoll", "eventfd", "/sys/fs/cgroup/"}, func(s string) bool { return strings.Contains(target, s) }) {
			continue
		}
		list = append(list, strings.TrimSpace(name+" "+target))
	}
	slices.Sort(list)
	return list
}

// Kill sends a signal to the process.
func Kill(t testing.TB, pid int, sig syscall.Signal) {
	t.Helper()
	require.NoError(t, syscall.Kill(pid, sig))
}

// prepareTests and prepareProgram are for systems on which more has to be done.
func prepareTests()   {}
func prepareProgram() {}

// The signals by which tests control processes, beside SIGTERM, SIGINT and
// SIGKILL.
const (
	SigStop = syscall.SIGSTOP
	SigCont = syscall.SIGCONT
	SigPoke = syscall.SIGUSR1 // do what the test is about
)

// Notify is signal.Notify for SigPoke.
func Notify(c chan<- os.Signal) { signal.Notify(c, SigPoke) }

// openFiles returns how many descriptors this process has.
func openFiles() int {
	dir, err := os.Open("/dev/fd")
	if err != nil {
		return 0
	}
	defer dir.Close()
	names, _ := dir.Readdirnames(-1)
	return len(names) - 1
}

// ownGroup makes a program the first process of a session and of a group of its own, so that it
// does not have the terminal in which the tests run.
func ownGroup(cmd *exec.Cmd) {
	if cmd.SysProcAttr == nil {
		cmd.SysProcAttr = new(syscall.SysProcAttr)
	}
	cmd.SysProcAttr.Setsid = true
}

// processGroup is a program with its workers.
type processGroup int

func groupOf(p *os.Process) processGroup { return processGroup(p.Pid) }

func (g processGroup) kill() { syscall.Kill(-int(g), syscall.SIGKILL) }

func (g processGroup) runs() bool { return groupRuns(int(g)) }

// CtrlC does what the key does: a SIGINT for the whole foreground group.
func (p *Proc) CtrlC() {
	p.t.Helper()
	Kill(p.t, -p.Cmd.Process.Pid, syscall.SIGINT)
}

// lacking returns nothing.
func lacking() map[string]string { return nil }

func inspectSocket(fd uintptr) SocketInfo {
	flags, _ := unix.FcntlInt(fd, unix.F_GETFL, 0)
	return SocketInfo{NonBlock: flags&unix.O_NONBLOCK != 0, Protocol: socketProtocol(fd), Backlog: SocketBacklog(fd)}
}

// StopSelf sends a SIGTERM to this process.
func StopSelf() { syscall.Kill(os.Getpid(), syscall.SIGTERM) }

// Spoilable returns options for workers. After spoil no more workers can be started, until
// repair.
func Spoilable(t *testing.T) (o cluster.Options, spoil, repair func()) {
	dir := filepath.Join(TempDir(t), "dir")
	repair = func() { require.NoError(t, os.Mkdir(dir, 0o755)) }
	repair()
	return cluster.Options{Dir: dir}, func() { os.Remove(dir) }, repair
}

// ErrRefused is the error of a dial to an address on which nothing listens.
var ErrRefused error = syscall.ECONNREFUSED

// What the system says of an address that is in use, and of one that nobody may have.
const (
	ErrInUse  = syscall.EADDRINUSE
	ErrDenied = syscall.EACCES
)
