package cluster_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
	"unsafe"

	"github.com/go-cluster/cluster"
	"github.com/go-cluster/cluster/internal/clustertest"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/windows"
)

// TestRunStopsOnCtrlBreak as on Ctrl-C: the master orders its workers, which get
// it as well, to drain.
func TestRunStopsOnCtrlBreak(t *testing.T) {
	clustertest.Need(t, "Ctrl-Break")
	p := clustertest.Start(t, runMaster, "RUN_WORKERS="+idle)
	p.Expect("listening")
	p.Expect("listening")
	require.NoError(t, windows.GenerateConsoleCtrlEvent(windows.CTRL_BREAK_EVENT, uint32(p.Cmd.Process.Pid)))
	p.Expect("returned <nil>")
	require.Zero(t, p.Exit())
	require.Equal(t, 2, strings.Count(p.Output(), "death 0 <nil> true\n"))
}

// TestCtrlCIsTheMasters: a worker is in a process group of its own, to which
// Ctrl-C does nothing; that of the master's makes the master stop it.
func TestCtrlCIsTheMasters(t *testing.T) {
	p := clustertest.Start(t, runMaster, "RUN_WORKERS="+idle)
	var pids []int
	for range 2 {
		pids = append(pids, clustertest.Atoi(strings.Fields(p.Expect("listening"))[0]))
	}
	for _, pid := range pids {
		clustertest.Kill(t, pid, syscall.SIGINT)
	}
	p.CtrlC()
	p.Expect("returned <nil>")
	require.Zero(t, p.Exit())
	require.Equal(t, 2, strings.Count(p.Output(), "death 0 <nil> true\n"), "by the master's order")
}

// selfish is a worker that tries to send itself signals.
var selfish = clustertest.Program("selfish", func() {
	for _, sig := range []os.Signal{os.Interrupt, syscall.SIGTERM} {
		err := cluster.Worker.Kill(sig)
		cluster.Worker.Send(fmt.Sprint(errors.Is(err, errors.ErrUnsupported), err))
	}
	select {}
})

// TestSignalsAreUnsupported, and say so: the worker lives on, and its later end
// is no voluntary one.
func TestSignalsAreUnsupported(t *testing.T) {
	clustertest.WithMaster(t, selfish, cluster.Options{})
	said, dead := make(chan string, 10), clustertest.Deaths(t)
	t.Cleanup(cluster.OnMessage(func(_ *cluster.Process, m cluster.Message) { said <- m.String() }))
	w := clustertest.Fork(t)
	for _, name := range []string{"interrupt", "terminated"} {
		require.Equal(t, `"true cluster: Kill: signal `+name+` on Windows: not supported here: unsupported operation; use Disconnect, or Kill without a signal"`,
			clustertest.Await(t, said, "word of the worker"))
	}
	for _, sig := range []os.Signal{os.Interrupt, syscall.SIGTERM, syscall.SIGHUP, syscall.Signal(0)} {
		err := w.Kill(sig)
		require.ErrorIs(t, err, errors.ErrUnsupported)
		require.ErrorContains(t, err, "signal "+sig.String()+" on Windows")
	}
	require.False(t, w.ExitedAfterDisconnect())
	require.NoError(t, w.OSProcess().Kill())
	e := clustertest.Await(t, dead, "death").Exit
	require.False(t, e.Voluntary)
	require.Equal(t, cluster.ReasonCrash, e.Reason)
}

// TestCredentialIsUnsupported, and says so.
func TestCredentialIsUnsupported(t *testing.T) {
	err := cluster.SetupMaster(cluster.Options{Credential: &cluster.Credential{UID: 1}})
	require.ErrorIs(t, err, errors.ErrUnsupported)
	require.ErrorContains(t, err, "Options.Credential on Windows")
}

// sleeping is a process that does not end, and is no worker.
var sleeping = clustertest.Program("sleeping", func() { time.Sleep(time.Hour) })

// parent is a worker that starts such a process. Its drain takes a moment.
var parent = clustertest.Program("parent", func() {
	c := exec.Command(os.Args[0])
	c.Env = append(os.Environ(), clustertest.ProgramEnv+"="+sleeping)
	clustertest.Must(c.Start())
	cluster.OnShutdown(func(context.Context) error {
		fmt.Println("orphan drained")
		return nil
	})
	ln, err := cluster.Listen("tcp", "127.0.0.1:0")
	clustertest.Must(err)
	ln.Accept()
})

// TestNothingSurvivesAKilledMaster: a worker drains, and what it has started ends
// with it.
func TestNothingSurvivesAKilledMaster(t *testing.T) {
	p := clustertest.Start(t, runMaster, "RUN_WORKERS="+parent)
	p.Expect("listening")
	p.Expect("listening")
	p.Signal(syscall.SIGKILL)
	p.Expect("orphan drained")
	p.Expect("orphan drained")
	p.GroupEmpty()
}

// forking is a master that says when its worker exists.
var forking = clustertest.Program("forking", func() {
	clustertest.Must(cluster.SetupMaster(cluster.Options{Workers: 1, Env: []string{"CLUSTER_TEST_HANG=1"}}))
	clustertest.Must(cluster.AutoFork())
	fmt.Println("forked")
	time.Sleep(time.Hour)
})

// TestHungWorkerEndsWithItsMaster: one that never comes so far as to see the end
// of its channel.
func TestHungWorkerEndsWithItsMaster(t *testing.T) {
	p := clustertest.Start(t, forking)
	p.Expect("forked")
	p.Signal(syscall.SIGKILL)
	p.GroupEmpty()
}

// heir is a worker that looks at the handles that it has inherited.
var heir = clustertest.Program("heir", func() {
	cluster.Respond("set", func(_ *cluster.Process, o clustertest.Order) (string, error) {
		h, err := strconv.ParseUint(o.Text, 10, 64)
		if err != nil {
			return "", err
		}
		return fmt.Sprint(windows.SetEvent(windows.Handle(h))), nil
	})
	cluster.Respond("inheritable", func(*cluster.Process, clustertest.Order) (n int, err error) {
		for h := windows.Handle(4); h < 1<<14; h += 4 {
			if h == windows.Stdin || h == windows.Stdout || h == windows.Stderr {
				continue
			}
			var flags uint32
			ok, _, _ := procGetHandleInformation.Call(uintptr(h), uintptr(unsafe.Pointer(&flags)))
			if ok != 0 && flags&windows.HANDLE_FLAG_INHERIT != 0 {
				n++
			}
		}
		return n, nil
	})
	select {}
})

var procGetHandleInformation = windows.NewLazySystemDLL("kernel32.dll").NewProc("GetHandleInformation")

// TestOnlyTheChannelIsInherited: a handle of the master's that any child could
// have is not the worker's, and what the worker has its own children do not get.
func TestOnlyTheChannelIsInherited(t *testing.T) {
	inherit := &windows.SecurityAttributes{InheritHandle: 1}
	inherit.Length = uint32(unsafe.Sizeof(*inherit))
	event, err := windows.CreateEvent(inherit, 1, 0, nil)
	require.NoError(t, err)
	defer windows.CloseHandle(event)
	clustertest.WithMaster(t, heir, cluster.Options{})
	w := clustertest.Fork(t)
	clustertest.Ask[string](t, w, clustertest.Order{Cmd: "set", Text: fmt.Sprint(uintptr(event))})
	set, err := windows.WaitForSingleObject(event, 0)
	require.NoError(t, err)
	require.EqualValues(t, windows.WAIT_TIMEOUT, set)
	require.Zero(t, clustertest.Ask[int](t, w, clustertest.Order{Cmd: "inheritable"}))
}

// TestRoleNeedsALiveChannel: the variables alone, leaked into the environment of
// some other process, make nobody a worker; nor does somebody else's pipe.
func TestRoleNeedsALiveChannel(t *testing.T) {
	var r, w windows.Handle
	inherit := &windows.SecurityAttributes{InheritHandle: 1}
	inherit.Length = uint32(unsafe.Sizeof(*inherit))
	require.NoError(t, windows.CreatePipe(&r, &w, inherit, 0))
	defer windows.CloseHandle(r)
	defer windows.CloseHandle(w)
	for _, fd := range []uintptr{uintptr(r), uintptr(w), 0xbad0, 0} {
		out, err := roleOf(fd, []syscall.Handle{syscall.Handle(r), syscall.Handle(w)})
		require.NoError(t, err)
		require.Equal(t, "master that cannot fork", out, "and no variable is left")
	}
	// Under a node primary it is the number of a descriptor.
	out, err := roleOf(3, nil)
	var exit *exec.ExitError
	require.ErrorAs(t, err, &exit)
	require.Equal(t, 1, exit.ExitCode())
	require.Empty(t, out)
	require.Contains(t, string(exit.Stderr), "worker of a node primary: not supported here")
}

func roleOf(fd uintptr, handles []syscall.Handle) (string, error) {
	c := exec.Command(os.Args[0])
	c.Env = append(os.Environ(), clustertest.ProgramEnv+"="+sayRole, "NODE_UNIQUE_ID=7", "node_worker_id=7", fmt.Sprint("NODE_CHANNEL_FD=", fd))
	c.SysProcAttr = &syscall.SysProcAttr{AdditionalInheritedHandles: handles}
	out, err := c.Output()
	return strings.TrimSpace(string(out)), err
}

// inUse is a worker that tries to listen where somebody else does.
var inUse = clustertest.Program("in use", func() {
	_, err := cluster.Listen("tcp", os.Getenv("ADDRESS"))
	var errno syscall.Errno
	cluster.Worker.Send(fmt.Sprint(errors.Is(err, windows.WSAEADDRINUSE), errors.Is(err, syscall.EADDRINUSE),
		errors.Is(err, syscall.EACCES), errors.As(err, &errno) && errno == windows.WSAEADDRINUSE))
	select {}
})

// TestErrorNumbersCrossTheBoundary: by both their names.
func TestErrorNumbersCrossTheBoundary(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer ln.Close()
	clustertest.WithMaster(t, inUse, cluster.Options{Env: []string{"ADDRESS=" + ln.Addr().String()}})
	said := make(chan string, 1)
	t.Cleanup(cluster.OnMessage(func(_ *cluster.Process, m cluster.Message) { said <- m.String() }))
	clustertest.Fork(t)
	require.Equal(t, `"true true false true"`, clustertest.Await(t, said, "word of the worker"))
}

// TestRoleVariablesInAnyCase: the environment has one spelling for all.
func TestRoleVariablesInAnyCase(t *testing.T) {
	_, err := cluster.Fork("node_worker_id=9")
	require.ErrorContains(t, err, "set by the master")
}

// TestExitCodes are exact, the large ones too.
func TestExitCodes(t *testing.T) {
	for _, code := range []uint32{0, 7, 255, 0xC0000409} {
		clustertest.WithMaster(t, clustertest.Failing, cluster.Options{Env: []string{fmt.Sprint("EXIT=", int(code))}})
		dead := clustertest.Deaths(t)
		clustertest.Fork(t)
		require.Equal(t, int(code), clustertest.Await(t, dead, "death").Exit.Code)
	}
}

var procGetProcessHandleCount = windows.NewLazySystemDLL("kernel32.dll").NewProc("GetProcessHandleCount")

func handleCount(t *testing.T) int {
	t.Helper()
	var n uint32
	ok, _, err := procGetProcessHandleCount.Call(uintptr(windows.CurrentProcess()), uintptr(unsafe.Pointer(&n)))
	require.NotZero(t, ok, err)
	return int(n)
}

// TestForksLeakNoHandles: fork after fork, whatever the workers end of, with
// messages and output under way, the master has no more handles than before.
func TestForksLeakNoHandles(t *testing.T) {
	clustertest.WithMaster(t, clustertest.CommandWorker, cluster.Options{Output: func(*cluster.Process) (stdout, stderr io.Writer) { return new(logBuffer), nil }})
	online, dead := clustertest.Onlines(t), clustertest.Deaths(t)
	const workers = 8
	round := func() {
		for range workers {
			clustertest.Fork(t)
		}
		for i := range workers {
			w := clustertest.Await(t, online, "online")
			switch i % 3 {
			case 0:
				require.NoError(t, w.Send("hello"))
				require.NoError(t, w.Kill())
			case 1:
				clustertest.Ask[string](t, w, clustertest.Order{Cmd: "listen"})
				require.NoError(t, w.Disconnect(clustertest.Within(t, clustertest.Patience)))
			case 2:
				clustertest.Tell(t, w, clustertest.Order{Cmd: "exit"})
			}
		}
		clustertest.StopAll(t)
		for range workers {
			clustertest.Await(t, dead, "death")
		}
	}
	round() // the threads that it needs stay, and each has handles
	round()
	before := handleCount(t)
	const rounds = 4
	for range rounds {
		round()
	}
	require.Less(t, handleCount(t), before+rounds*workers/2, "after %d workers", rounds*workers)
}
