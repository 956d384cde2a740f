package upgrade_test

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/signal"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/go-cluster/cluster"
	"github.com/go-cluster/cluster/internal/clustertest"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// A program may keep its main thread to itself.
func init() {
	if os.Getenv("MAIN_THREAD") != "" {
		runtime.LockOSThread()
	}
}

// stranger is a program that uses nothing of the package: it finds its sockets as systemd
// passes them.
var stranger = clustertest.Program("upgrade stranger", func() {
	term := make(chan os.Signal, 1)
	signal.Notify(term, syscall.SIGTERM)
	ln, err := net.FileListener(os.NewFile(3, "socket"))
	clustertest.Must(err)
	http.HandleFunc("/say", func(w http.ResponseWriter, r *http.Request) { tell(r.FormValue("text")) })
	hangs := make(chan bool)
	http.HandleFunc("/hang", func(w http.ResponseWriter, r *http.Request) { close(hangs) })
	http.HandleFunc("/echo", func(w http.ResponseWriter, r *http.Request) { echo(w) })
	http.HandleFunc("/blocking", func(w http.ResponseWriter, r *http.Request) {
		flags, err := unix.FcntlInt(3, unix.F_GETFL, 0)
		clustertest.Must(err)
		fmt.Fprint(w, flags&unix.O_NONBLOCK == 0)
	})
	srv := &http.Server{}
	go srv.Serve(ln)
	fmt.Println("address", ln.Addr())
	if os.Getenv("UNREADY") == "" {
		tell("READY=1")
	}
	if os.Getenv("BEATS") != "" {
		go beat(hangs)
	}
	<-term
	fmt.Println("terminated", os.Getpid())
	ln.Close()
	time.Sleep(300 * time.Millisecond) // what is on its way comes yet
	ctx, cancel := context.WithTimeout(context.Background(), clustertest.Patience)
	defer cancel()
	srv.Shutdown(ctx)
})

// tell is sd_notify.
func tell(text string) {
	c, err := net.Dial("unixgram", os.Getenv("NOTIFY_SOCKET"))
	clustertest.Must(err)
	defer c.Close()
	_, err = io.WriteString(c, text)
	clustertest.Must(err)
}

// beat answers the watchdog until the program hangs.
func beat(hangs <-chan bool) {
	for {
		tell("WATCHDOG=1")
		select {
		case <-hangs:
			return
		case <-time.After(pace):
		}
	}
}

// strangers is a master of such programs.
var strangers = clustertest.Program("upgrade strangers", func() {
	fmt.Println("main", version, os.Getpid())
	was, err := cluster.Upgraded("", nil)
	clustertest.Must(err)
	if version == "hangs" && !cluster.Checking() {
		select {} // until it is rolled back
	}
	var held *os.File
	cluster.OnUpgrade("address", func() (state any, err error) {
		switch os.Getenv("TROUBLE") {
		case "hangs":
			if !was { // the check is over: only who hangs must be quick
				o := strangeOptions()
				o.StartTimeout = hangFor
				err = cluster.SetupMaster(o)
			}
		case "busy":
			if held == nil && version == "one" {
				held, err = os.OpenFile(os.Args[0], os.O_RDWR, 0)
			}
		}
		return cluster.Stats().Listeners[0].Address, err
	})
	cluster.OnUpgraded(func(err error) {
		held.Close()
		if err != nil {
			clustertest.Must(cluster.SetupMaster(strangeOptions()))
		}
	})
	if says := os.Getenv("SAYS"); was && says != "" { // while nobody hears it
		var address string
		_, err := cluster.Upgraded("address", &address)
		clustertest.Must(err)
		_, err = clustertest.Get("http://" + address + "/say?text=" + says)
		clustertest.Must(err)
	}
	printEvents()
	poke()
	clustertest.Must(cluster.SetupMaster(strangeOptions()))
	clustertest.Must(cluster.Run(context.Background()))
})

func strangeOptions() cluster.Options {
	o := options()
	o.Foreign, o.Exec, o.Args, o.Env = true, os.Getenv("STRANGER"), []string{}, []string{clustertest.ProgramEnv + "=" + stranger}
	o.Sockets = []cluster.Socket{{Network: "tcp", Address: "127.0.0.1:0", Name: "web"}}
	o.ManualReady = true
	o.Watchdog = cluster.Watchdog{Interval: 100 * time.Millisecond, Timeout: 4 * time.Second}
	return o
}

// strange starts a master of two strangers.
func strange(t *testing.T, env ...string) (s *site, p *clustertest.Proc, address string, pids []string) {
	t.Helper()
	guest := newSite(t)
	guest.deploy("guest")
	s = newSite(t)
	s.deploy("one")
	p = s.start(strangers, append(env, "STRANGER="+guest.path)...)
	rests := p.All("address ", "ready 0 ", "ready 1 ")
	return s, p, rests[0], rests[1:]
}

// endWithMaster kills the master, and waits for the end of its strangers, which the system
// asks for.
func endWithMaster(t *testing.T, p *clustertest.Proc, pids ...string) {
	t.Helper()
	p.Signal(syscall.SIGKILL)
	for _, pid := range pids {
		clustertest.Eventually(t, func() bool { return strings.Contains(p.Output(), "terminated "+pid+"\n") }, "the end of "+pid)
	}
}

// adopts reports whether the program that has come last has adopted each of the workers,
// ready.
func adopts(t *testing.T, p *clustertest.Proc, pids ...string) {
	t.Helper()
	for slot, pid := range pids {
		require.Equal(t, pid+" ready", printed(t, p, fmt.Sprintf("adopted %d ", slot)))
	}
}

// TestForeign: programs that know nothing of the package are kept as well, lose no request,
// and still end with their master: those of before an upgrade, and those of after it.
func TestForeign(t *testing.T) {
	t.Parallel()
	s, p, address, pids := strange(t)
	l := beginLoad(address)
	for _, version := range []string{"two", "three"} {
		s.deploy(version)
		require.Equal(t, "<nil>", upgrade(p, clustertest.SigPoke))
		adopts(t, p, pids...)
	}
	text, err := clustertest.Get("http://" + address + "/blocking")
	require.NoError(t, err)
	require.Equal(t, "false", text)
	l.end(t)
	clustertest.Kill(t, clustertest.Atoi(pids[0]), syscall.SIGKILL)
	pids[0] = printed(t, p, "ready 0 ")
	s.deploy("four")
	require.Equal(t, "<nil>", upgrade(p, clustertest.SigPoke))
	adopts(t, p, pids...)
	endWithMaster(t, p, pids...)
}

// TestForeignReload: SIGUSR2 replaces the master and then the programs.
func TestForeignReload(t *testing.T) {
	t.Parallel()
	s, p, _, old := strange(t)
	var pids []string
	for _, version := range []string{"two", "three"} {
		s.deploy(version)
		require.Equal(t, "<nil>", upgrade(p, syscall.SIGUSR2))
		require.Equal(t, "2 <nil>", printed(t, p, "reload "))
		pids = []string{printed(t, p, "ready 0 "), printed(t, p, "ready 1 ")}
		require.NotContains(t, pids, old[0])
	}
	endWithMaster(t, p, pids...)
}

// TestForeignSays: what a program says while no master hears it is heard by the next.
func TestForeignSays(t *testing.T) {
	t.Parallel()
	guest, s := newSite(t), newSite(t)
	guest.deploy("guest")
	s.deploy("one")
	p := s.start(strangers, "STRANGER="+guest.path, "UNREADY=1", "SAYS=READY%3D1")
	p.All("address ", "address ")
	s.deploy("two")
	require.Equal(t, "<nil>", upgrade(p, clustertest.SigPoke))
	printed(t, p, "ready ")
	p.Terminate()
}

// TestForeignWatchdog: a program that has answered the watchdog before an upgrade has to
// after it.
func TestForeignWatchdog(t *testing.T) {
	t.Parallel()
	s, p, address, pids := strange(t, "BEATS=1")
	s.deploy("two")
	require.Equal(t, "<nil>", upgrade(p, clustertest.SigPoke))
	adopts(t, p, pids...)
	_, err := clustertest.Get("http://" + address + "/hang")
	require.NoError(t, err)
	require.Contains(t, printed(t, p, "dead "), " stall ")
	p.Terminate()
}

// TestForeignExecFails: an exec that fails, and a program that is rolled back, end none.
func TestForeignExecFails(t *testing.T) {
	t.Parallel()
	s, p, address, pids := strange(t, "TROUBLE=busy")
	l := beginLoad(address)
	s.deploy("two")
	require.Contains(t, upgrade(p, clustertest.SigPoke), "text file busy")
	require.Equal(t, "<nil>", upgrade(p, clustertest.SigPoke)) // by now it is closed
	adopts(t, p, pids...)
	l.end(t)
	endWithMaster(t, p, pids...)
}

// TestForeignRollback: the program before goes on with the same ones.
func TestForeignRollback(t *testing.T) {
	t.Parallel()
	s, p, address, pids := strange(t, "TROUBLE=hangs")
	l := beginLoad(address)
	s.deploy("hangs")
	require.Contains(t, upgrade(p, clustertest.SigPoke), "did not come to AutoFork")
	adopts(t, p, pids...)
	s.deploy("two")
	require.Equal(t, "<nil>", upgrade(p, clustertest.SigPoke))
	adopts(t, p, pids...)
	l.end(t)
	endWithMaster(t, p, pids...)
}

// TestForeignMainThread: a program that keeps its main thread to itself can be upgraded once
// with the same workers, and then again when these are from after that.
func TestForeignMainThread(t *testing.T) {
	t.Parallel()
	s, p, _, pids := strange(t, "MAIN_THREAD=1")
	s.deploy("two")
	require.Equal(t, "<nil>", upgrade(p, clustertest.SigPoke))
	adopts(t, p, pids...)
	s.deploy("three")
	require.Contains(t, upgrade(p, clustertest.SigPoke), "main thread is not free")
	require.NotContains(t, p.Output(), "dead")
	p.Signal(syscall.SIGHUP)
	require.Equal(t, "2 <nil>", printed(t, p, "reload "))
	pids = []string{printed(t, p, "ready 0 "), printed(t, p, "ready 1 ")}
	require.Equal(t, "<nil>", upgrade(p, clustertest.SigPoke))
	adopts(t, p, pids...)
	endWithMaster(t, p, pids...)
}
