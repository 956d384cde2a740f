//go:build unix

package upgrade_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/go-cluster/cluster"
	"github.com/go-cluster/cluster/internal/clustertest"
	"github.com/stretchr/testify/require"
)

func TestMain(m *testing.M) { clustertest.Main(m) }

// mark is before the version, behind the end of the executable file.
const mark = "\nversion of this copy: "

// version is that of this copy of the test binary.
var version = findVersion()

func findVersion() string {
	path := "/proc/self/exe"
	if _, err := os.Stat(path); err != nil {
		path = os.Args[0]
	}
	f, err := os.Open(path)
	if err != nil {
		return ""
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return ""
	}
	end := make([]byte, 200)
	n, _ := f.ReadAt(end, info.Size()-int64(len(end)))
	i := bytes.LastIndex(end[:n], []byte(mark))
	if i < 0 {
		return ""
	}
	return string(end[i+len(mark) : n])
}

// site is a directory in which a program is deployed.
type site struct {
	t    *testing.T
	path string
}

func newSite(t *testing.T) *site { return &site{t, filepath.Join(t.TempDir(), "server")} }

// deploy puts a version there, as deployments should: by a rename.
func (s *site) deploy(version string) {
	s.t.Helper()
	b, err := os.ReadFile(os.Args[0])
	require.NoError(s.t, err)
	s.put(append(b, mark+version...))
}

// put puts a file there. What this process forks must not have it open for writing: the
// system would not execute it.
func (s *site) put(text []byte) {
	s.t.Helper()
	syscall.ForkLock.RLock()
	err := os.WriteFile(s.path+".new", text, 0o755)
	syscall.ForkLock.RUnlock()
	require.NoError(s.t, err)
	require.NoError(s.t, os.Rename(s.path+".new", s.path))
}

// start starts the program.
func (s *site) start(program string, env ...string) *clustertest.Proc {
	s.t.Helper()
	return clustertest.StartCmd(s.t, exec.Command(s.path), program, env...)
}

// printEvents prints what happens in a master.
func printEvents() {
	cluster.OnUpgraded(func(err error) { fmt.Println("upgraded", err) })
	cluster.OnAdopt(func(w *cluster.Process) { fmt.Println("adopted", w.Slot(), w.PID(), w.State()) })
	cluster.OnFork(func(w *cluster.Process) { fmt.Println("fork", w.Slot(), w.PID()) })
	cluster.OnReady(func(w *cluster.Process) { fmt.Println("ready", w.Slot(), w.PID()) })
	cluster.OnDeath(func(w *cluster.Process, e cluster.Exit) { fmt.Println("dead", w.Slot(), w.PID(), e.Reason, e.Code) })
	cluster.OnReload(func(r cluster.ReloadResult) { fmt.Println("reload", r.Replaced, r.Err) })
	cluster.OnError(func(w *cluster.Process, err error) { fmt.Println("error", err) })
}

// poke makes SIGUSR1 an Upgrade alone.
func poke() {
	c := make(chan os.Signal, 10)
	clustertest.Notify(c)
	go func() {
		for range c {
			go cluster.Upgrade(context.Background()) // whose error OnUpgraded prints
		}
	}()
}

// options are those of all masters here.
func options() cluster.Options {
	o := cluster.Options{Workers: 2, ReadyFor: -1, ShutdownTimeout: clustertest.Patience, StartTimeout: clustertest.Patience}
	switch os.Getenv("SCHEDULING") {
	case "robin":
		o.Scheduling = cluster.RoundRobin
	case "sharded":
		o.Scheduling = cluster.Sharded
	case "byclient":
		o.Scheduling = cluster.ByClient
	}
	return o
}

// hangFor is how long a program may hang before it is rolled back.
const hangFor = 2 * time.Second

// server is a master that prints what happens, and its workers. What it does besides
// follows from its version.
var server = clustertest.Program("upgrade server", func() {
	if cluster.IsWorker() {
		serve()
		return
	}
	if version == "panics" {
		panic("no configuration")
	}
	if version == "exits" {
		return
	}
	fmt.Println("main", version, os.Getpid())
	fmt.Println("arguments", os.Args[1:])
	os.Args = os.Args[:1] // as programs with subcommands do
	var counter struct{ N, Victim int }
	was, err := cluster.Upgraded("counter", &counter)
	clustertest.Must(err)
	counter.N++
	fmt.Println("counter", counter.N, was)
	if version == "hangs" && !cluster.Checking() {
		select {} // until it is rolled back
	}
	hangs := os.Getenv("HANGS") != ""
	if hangs && was && version == "one" {
		time.Sleep(hangFor + time.Second) // the program before has all the time that it needs
	}
	if version == "kills" && !cluster.Checking() {
		clustertest.Must(syscall.Kill(counter.Victim, syscall.SIGKILL)) // nobody is there to see it
	}
	if os.Getenv("CHILD") != "" && !was && !cluster.Checking() {
		child := exec.Command("sleep", "1000")
		clustertest.Must(child.Start())
		fmt.Println("child", child.Process.Pid)
		go child.Wait() // as long as there is this program
	}
	cluster.OnUpgrade("counter", func() (any, error) {
		counter.Victim = cluster.Workers()[0].PID()
		if hangs && !was { // the check is over: only who hangs must be quick
			o := options()
			o.StartTimeout = hangFor
			clustertest.Must(cluster.SetupMaster(o))
		}
		return counter, nil
	})
	cluster.OnUpgraded(func(err error) {
		if err != nil {
			clustertest.Must(cluster.SetupMaster(options()))
		}
		for _, l := range cluster.Stats().Listeners {
			fmt.Println("listener", l.Scheduling, l.Sockets)
		}
	})
	blocked := make(chan struct{})
	cluster.OnMessage(func(*cluster.Process, cluster.Message) {
		fmt.Println("blocked")
		<-blocked
	})
	printEvents()
	poke()
	clustertest.Must(cluster.SetupMaster(options()))
	fmt.Println("run", cluster.Run(context.Background()))
})

func serve() {
	ln, err := cluster.Listen("tcp", "127.0.0.1:0")
	clustertest.Must(err)
	fmt.Println("address", ln.Addr())
	clustertest.Must(cluster.Serve(ln, &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/block" {
			clustertest.Must(cluster.Worker.Send("a message whose callback does not return"))
		}
		if r.URL.Path == "/echo" {
			echo(w)
			return
		}
		if r.URL.Path == "/files" {
			var own syscall.Rlimit
			clustertest.Must(syscall.Getrlimit(syscall.RLIMIT_NOFILE, &own))
			child, err := exec.Command("/bin/sh", "-c", "ulimit -Sn").Output()
			clustertest.Must(err)
			fmt.Fprintf(w, "%d %s", own.Cur, child)
			return
		}
		io.WriteString(w, version)
	})}))
}

// echo says what the client says, on a connection that is no HTTP any more: what websockets
// are to a server.
func echo(w http.ResponseWriter) {
	c, rw, err := http.NewResponseController(w).Hijack()
	clustertest.Must(err)
	defer c.Close()
	fmt.Fprint(rw, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n")
	rw.Flush()
	io.Copy(c, rw)
}

// begin starts version one, and returns its address.
func (s *site) begin(program string, env ...string) (p *clustertest.Proc, address string) {
	s.t.Helper()
	s.deploy("one")
	p = s.start(program, env...)
	return p, p.All("address ", "ready ", "ready ")[0]
}

// upgrade asks for an upgrade, and returns what comes of it. One that was called off since
// this machine was slow has changed nothing, and is asked for again.
func upgrade(p *clustertest.Proc, sig os.Signal) (outcome string) {
	for range 5 {
		p.Signal(sig)
		if outcome = p.Expect("upgraded "); !strings.Contains(outcome, "not within 5s") {
			break
		}
	}
	return outcome
}

// printed waits for a line of the program that has come last, and returns the rest of it.
// Lines about several workers, and those about the cluster, come in any order: Expect, which
// drops what comes before, would miss some.
func printed(t *testing.T, p *clustertest.Proc, prefix string) (rest string) {
	t.Helper()
	clustertest.Eventually(t, func() (found bool) {
		text := p.Output()
		_, rest, found = strings.Cut(text[strings.LastIndex(text, "main "):], "\n"+prefix)
		rest, _, _ = strings.Cut(rest, "\n")
		return found
	}, "a line "+prefix)
	return rest
}

// serves is the version that answers.
func serves(t *testing.T, address string) string {
	t.Helper()
	c := http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: clustertest.Patience}
	r, err := c.Get("http://" + address)
	require.NoError(t, err)
	defer r.Body.Close()
	b, err := io.ReadAll(r.Body)
	require.NoError(t, err)
	return string(b)
}

// TestUpgradeAndReload: SIGUSR2 replaces the master, which keeps its workers, and then
// these.
func TestUpgradeAndReload(t *testing.T) {
	s := newSite(t)
	p, address := s.begin(server)
	require.Equal(t, "one", serves(t, address))
	s.deploy("two")
	require.Equal(t, "<nil>", upgrade(p, syscall.SIGUSR2))
	require.Equal(t, "2 <nil>", p.Expect("reload "))
	require.Contains(t, p.Output(), fmt.Sprint("main two ", p.Cmd.Process.Pid, "\n"))
	require.Contains(t, p.Output(), "counter 2 true\n")
	require.Equal(t, "two", serves(t, address))
	p.Terminate()
}

// TestCheckFails: a program that does not start changes nothing, and its last words are
// told.
func TestCheckFails(t *testing.T) {
	s := newSite(t)
	p, address := s.begin(server)
	s.deploy("panics")
	require.Contains(t, upgrade(p, syscall.SIGUSR2), "no configuration")
	s.put([]byte("#!/bin/sh\nexit 0\n"))
	require.Contains(t, upgrade(p, syscall.SIGUSR2), "is a script")
	s.deploy("exits")
	require.Contains(t, upgrade(p, syscall.SIGUSR2), "ended before it came to AutoFork, Run or Fork: exit status 0")
	other, err := os.ReadFile("/bin/sh") // which reads its standard input: there is none
	require.NoError(t, err)
	s.put(other)
	require.Contains(t, upgrade(p, syscall.SIGUSR2), "ended before it came to AutoFork, Run or Fork")
	s.put([]byte("no program"))
	require.Contains(t, upgrade(p, syscall.SIGUSR2), "exec format error")
	require.NoError(t, os.Chmod(s.path, 0o644))
	require.Contains(t, upgrade(p, syscall.SIGUSR2), "cannot be executed")
	require.NoError(t, os.Remove(s.path))
	require.Contains(t, upgrade(p, syscall.SIGUSR2), "no such file")
	require.NoError(t, os.Mkdir(s.path, 0o755))
	require.Contains(t, upgrade(p, syscall.SIGUSR2), "is no regular file")
	require.Equal(t, "one", serves(t, address))
	p.Terminate()
}

// TestRollback: a program that does not adopt gives way to the one before, which goes on
// with the same workers.
func TestRollback(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("no program is held open here")
	}
	t.Parallel()
	s := newSite(t)
	p, address := s.begin(server, "HANGS=1")
	s.deploy("hangs")
	require.Contains(t, upgrade(p, clustertest.SigPoke), "did not come to AutoFork")
	require.Equal(t, 2, strings.Count(p.Output(), "main one "), "the program before has come again")
	require.Equal(t, "one", serves(t, address))
	s.deploy("two")
	require.Equal(t, "<nil>", upgrade(p, clustertest.SigPoke))
	require.Contains(t, p.Output(), "main two ")
	p.Terminate()
}

// TestExecFails: when the file cannot be executed after all, everything is undone.
func TestExecFails(t *testing.T) {
	s := newSite(t)
	p, address := s.begin(holder)
	s.deploy("two")
	require.Contains(t, upgrade(p, clustertest.SigPoke), "text file busy")
	require.Equal(t, "one", serves(t, address))
	require.Equal(t, "<nil>", upgrade(p, clustertest.SigPoke)) // by now it is closed
	p.Terminate()
}

// holder is a server whose first OnUpgrade holds the new program open for writing, so
// that the system does not execute it.
var holder = clustertest.Program("upgrade holder", func() {
	if cluster.IsWorker() {
		serve()
		return
	}
	var held *os.File
	cluster.OnUpgrade("held", func() (any, error) {
		if version != "one" || held != nil {
			return nil, nil
		}
		var err error
		held, err = os.OpenFile(os.Args[0], os.O_RDWR, 0)
		return nil, err
	})
	cluster.OnUpgraded(func(error) { held.Close() })
	printEvents()
	poke()
	clustertest.Must(cluster.SetupMaster(options()))
	clustertest.Must(cluster.Run(context.Background()))
})

// TestBusy: what does not come to rest in time is named, and goes on.
func TestBusy(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	p, address := s.begin(server)
	require.Equal(t, "one", serves(t, address+"/block"))
	p.Expect("blocked")
	s.deploy("two")
	p.Signal(clustertest.SigPoke)
	require.Contains(t, p.Expect("upgraded "), "a callback about worker")
	require.Equal(t, "one", serves(t, address))
	p.Signal(syscall.SIGKILL) // a stop would wait for the callback
}

// TestDeathInTheGap: a worker that dies while nobody is there is a death like any other,
// and is replaced.
func TestDeathInTheGap(t *testing.T) {
	s := newSite(t)
	p, _ := s.begin(server)
	s.deploy("kills")
	require.Equal(t, "<nil>", upgrade(p, clustertest.SigPoke))
	dead := strings.Fields(printed(t, p, "dead ")) // slot, pid and why
	require.Equal(t, []string{"crash", "-1"}, dead[2:])
	require.Equal(t, dead[1], strings.Fields(printed(t, p, "adopted "+dead[0]+" "))[0])
	require.Equal(t, printed(t, p, "fork "+dead[0]+" "), printed(t, p, "ready "+dead[0]+" "))
	p.Terminate()
}
