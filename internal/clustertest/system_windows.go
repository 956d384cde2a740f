package clustertest

import (
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"syscall"
	"testing"
	"unsafe"

	"github.com/go-cluster/cluster"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/windows"
)

var (
	modntdll = windows.NewLazySystemDLL("ntdll.dll")
	kernel32 = windows.NewLazySystemDLL("kernel32.dll")

	procSuspendProcess        = modntdll.NewProc("NtSuspendProcess")
	procResumeProcess         = modntdll.NewProc("NtResumeProcess")
	procAllocConsole          = kernel32.NewProc("AllocConsole")
	procFreeConsole           = kernel32.NewProc("FreeConsole")
	procSetConsoleCtrlHandler = kernel32.NewProc("SetConsoleCtrlHandler")
)

// underWine reports whether this is Wine and not Windows.
func underWine() bool { return modntdll.NewProc("wine_get_version").Find() == nil }

// lacking returns what Windows has and Wine 8 has not, with the reasons.
func lacking() map[string]string {
	if !underWine() {
		return nil
	}
	return map[string]string{
		"UDP":        "Wine has no SIO_UDP_NETRESET, without which package net opens no UDP socket",
		"AF_UNIX":    "Wine has no unix sockets",
		"Ctrl-Break": "Wine's GenerateConsoleCtrlEvent knows no CTRL_BREAK_EVENT",
	}
}

// prepareTests gives the test process a console of its own, so that it can send Ctrl-C.
func prepareTests() {
	in, out, err := windows.Stdin, windows.Stdout, windows.Stderr
	procFreeConsole.Call()
	procAllocConsole.Call()
	// The standard files may be the console's now.
	windows.SetStdHandle(windows.STD_INPUT_HANDLE, in)
	windows.SetStdHandle(windows.STD_OUTPUT_HANDLE, out)
	windows.SetStdHandle(windows.STD_ERROR_HANDLE, err)
}

// prepareProgram makes a master get Ctrl-C, which the first process of a group does not get
// unless it asks for that. Its workers do not get it: each is the first of a group of its own.
func prepareProgram() {
	if cluster.IsMaster() {
		procSetConsoleCtrlHandler.Call(0, 0)
	}
}

// The signals by which tests control processes. They do not exist here; Kill does what they
// would do.
const (
	SigStop = syscall.Signal(0x101)
	SigCont = syscall.Signal(0x102)
	SigPoke = syscall.Signal(0x103) // do what the test is about
)

// pokeName returns the name of the event that stands for SigPoke to a process.
func pokeName(pid int) *uint16 {
	name, _ := windows.UTF16PtrFromString(fmt.Sprintf(`Local\cluster-test-poke-%d`, pid))
	return name
}

// Notify is signal.Notify for SigPoke.
func Notify(c chan<- os.Signal) {
	event, err := windows.CreateEvent(nil, 0, 0, pokeName(os.Getpid()))
	Must(err)
	go func() {
		for {
			windows.WaitForSingleObject(event, windows.INFINITE)
			select {
			case c <- SigPoke:
			default:
			}
		}
	}()
}

// Kill does to a process what the signal does on Unix. SIGINT and SIGTERM are
// Ctrl-C, for a master.
func Kill(t testing.TB, pid int, sig syscall.Signal) {
	t.Helper()
	if sig == SigPoke {
		// The process may not wait for the event yet.
		Eventually(t, func() bool {
			event, err := windows.OpenEvent(windows.EVENT_MODIFY_STATE, false, pokeName(pid))
			if err != nil {
				return false
			}
			defer windows.CloseHandle(event)
			return windows.SetEvent(event) == nil
		}, "the process's event")
		return
	}
	if sig == syscall.SIGINT || sig == syscall.SIGTERM {
		require.NoError(t, windows.GenerateConsoleCtrlEvent(windows.CTRL_C_EVENT, uint32(pid)))
		return
	}
	h, err := windows.OpenProcess(windows.PROCESS_SUSPEND_RESUME|windows.PROCESS_TERMINATE, false, uint32(pid))
	require.NoError(t, err)
	defer windows.CloseHandle(h)
	switch sig {
	case SigStop:
		status, _, _ := procSuspendProcess.Call(uintptr(h))
		require.Zero(t, status)
	case SigCont:
		status, _, _ := procResumeProcess.Call(uintptr(h))
		require.Zero(t, status)
	case syscall.SIGKILL:
		require.NoError(t, windows.TerminateProcess(h, 1))
	default:
		t.Fatalf("signal %v", sig)
	}
}

// spurious reports whether a fork failed for no reason. Wine fails to start one process in some
// thousands.
func spurious(err error) bool { return underWine() && errors.Is(err, windows.ERROR_INTERNAL_ERROR) }

// SendSignal sends a signal to a child that may be gone.
func SendSignal(p *os.Process, sig syscall.Signal) error {
	var err error
	switch sig {
	case SigStop:
		err = p.WithHandle(func(h uintptr) { procSuspendProcess.Call(h) })
	case SigCont:
		err = p.WithHandle(func(h uintptr) { procResumeProcess.Call(h) })
	default:
		err = p.Kill()
	}
	// Access is denied to a process that has ended. One that was waited for has no handle, or
	// an invalid one.
	if errors.Is(err, os.ErrNoHandle) || errors.Is(err, windows.ERROR_ACCESS_DENIED) || errors.Is(err, syscall.EINVAL) {
		return os.ErrProcessDone
	}
	return err
}

// Runs reports whether there is a child of this pid.
func Runs(pid int) bool { return slices.Contains(Children(os.Getpid()), strconv.Itoa(pid)) }

// Pause stops a process.
func Pause(t testing.TB, pid int) {
	t.Helper()
	Kill(t, pid, SigStop)
}

// openFiles returns 0: handles are not only files, and the runtime and the system's thread pool
// have some of their own.
func openFiles() int { return 0 }

// ownGroup makes a program the first process of a group of its own. The program does not run
// before groupOf.
func ownGroup(cmd *exec.Cmd) {
	if cmd.SysProcAttr == nil {
		cmd.SysProcAttr = new(syscall.SysProcAttr)
	}
	cmd.SysProcAttr.CreationFlags |= windows.CREATE_NEW_PROCESS_GROUP | windows.CREATE_SUSPENDED
}

// processGroup is a job with a program and its workers in it.
type processGroup windows.Handle

func groupOf(p *os.Process) processGroup {
	job, err := windows.CreateJobObject(nil, nil)
	Must(err)
	Must(p.WithHandle(func(h uintptr) {
		err = windows.AssignProcessToJobObject(job, windows.Handle(h))
		procResumeProcess.Call(h)
	}))
	Must(err)
	return processGroup(job)
}

func (g processGroup) kill() {
	windows.TerminateJobObject(windows.Handle(g), 1)
	windows.CloseHandle(windows.Handle(g))
}

func (g processGroup) runs() bool {
	var info struct {
		times                             [4]int64
		pageFaults, total, active, failed uint32
	}
	err := windows.QueryInformationJobObject(windows.Handle(g), windows.JobObjectBasicAccountingInformation,
		uintptr(unsafe.Pointer(&info)), uint32(unsafe.Sizeof(info)), nil)
	Must(err)
	return info.active > 0
}

// CtrlC does what the key does, for the processes of the program's group.
func (p *Proc) CtrlC() {
	p.t.Helper()
	Kill(p.t, p.Cmd.Process.Pid, syscall.SIGINT)
}

// Children returns the pids of pid's children that run.
func Children(pid int) (pids []string) {
	snapshot, err := windows.CreateToolhelp32Snapshot(windows.TH32CS_SNAPPROCESS, 0)
	Must(err)
	defer windows.CloseHandle(snapshot)
	e := windows.ProcessEntry32{Size: uint32(unsafe.Sizeof(windows.ProcessEntry32{}))}
	for err = windows.Process32First(snapshot, &e); err == nil; err = windows.Process32Next(snapshot, &e) {
		if int(e.ParentProcessID) == pid {
			pids = append(pids, strconv.Itoa(int(e.ProcessID)))
		}
	}
	return pids
}

// Descriptors returns nothing: handles are not inherited as descriptors are.
func Descriptors() []string { return nil }

// inspectSocket says that the socket is non-blocking: here that is not a property of the socket.
func inspectSocket(uintptr) SocketInfo { return SocketInfo{NonBlock: true} }

func connSettings(net.Conn) string { return "-" }

// StopSelf sends Ctrl-C to this process, which is a master.
func StopSelf() { Must(windows.GenerateConsoleCtrlEvent(windows.CTRL_C_EVENT, uint32(os.Getpid()))) }

// Spoilable returns options for workers. After spoil no more workers can be started, until
// repair: the file of their program gets another name. (Its directory could not be removed, since
// a process runs in it.)
func Spoilable(t *testing.T) (o cluster.Options, spoil, repair func()) {
	path := filepath.Join(TempDir(t), "program.exe")
	CopyBinary(t, path)
	return cluster.Options{Exec: path},
		func() { os.Rename(path, path+".away") }, func() { require.NoError(t, os.Rename(path+".away", path)) }
}

// ErrRefused is the error of a dial to an address on which nothing listens.
var ErrRefused error = windows.WSAECONNREFUSED

// What the system says of an address that is in use, and of one that nobody may have.
const (
	ErrInUse  = windows.WSAEADDRINUSE
	ErrDenied = windows.WSAEACCES
)
