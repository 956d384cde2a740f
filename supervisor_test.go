package cluster_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"os/exec"
	"os/signal"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/go-cluster/cluster"
	"github.com/stretchr/testify/require"
)

// supervisor is a master of its own under Run, for what the test process cannot
// be: the receiver of signals, a service, PID 1. It prints what happens.

const supervisorEnv = "CLUSTER_TEST_SUPERVISOR"

// supervision are the Options that a test sets, as they fit into the environment.
type supervision struct {
	Program         string
	Workers         int
	Env             []string
	Backoff         cluster.Backoff
	Watchdog        cluster.Watchdog
	Recycle         cluster.Recycle
	MinReady        int
	NoSignals       bool
	MaxBootFailures int
	Quiet           bool // it logs nothing
}

var supervisor = program("supervisor", func() {
	var s supervision
	die(json.Unmarshal([]byte(os.Getenv(supervisorEnv)), &s))
	die(cluster.SetupMaster(cluster.Options{
		Workers: s.Workers, Env: append([]string{programEnv + "=" + s.Program}, s.Env...), Backoff: s.Backoff,
		Watchdog: s.Watchdog, Recycle: s.Recycle, MinReady: s.MinReady, NoSignals: s.NoSignals, MaxBootFailures: s.MaxBootFailures,
	}))
	if s.Quiet {
		slog.SetDefault(slog.New(slog.DiscardHandler))
	}
	cluster.OnFork(func(w *cluster.Process) { fmt.Println("fork", w.Slot(), w.PID()) })
	cluster.OnError(func(w *cluster.Process, err error) { fmt.Println("error", w.Slot(), err) })
	cluster.OnDeath(func(w *cluster.Process, e cluster.Exit) { fmt.Println("dead", w.Slot(), w.PID(), e.Reason, e.Code) })
	cluster.OnReload(func(r cluster.ReloadResult) { fmt.Println("reload", r.Replaced, r.Generation, r.Err) })
	cluster.Handle("up", func(w *cluster.Process, u up) {
		fmt.Println("up", w.Slot(), w.PID(), strings.TrimPrefix(u.Address, "127.0.0.1:"), u.Exe)
	})
	// What the program does itself with a signal.
	own := make(chan os.Signal, 10)
	notify(own)
	if s.NoSignals {
		signal.Notify(own, syscall.SIGHUP)
	}
	go func() {
		for sig := range own {
			if sig == sigPoke {
				b, err := json.Marshal(cluster.Stats())
				die(err)
				fmt.Println("stats", string(b))
				continue
			}
			fmt.Println("own", sig)
		}
	}()
	err := cluster.Run(context.Background())
	fmt.Println("run", err)
	die(err)
})

// up is what a troublemaker says when it listens.
type up struct {
	Cmd     string `json:"cmd"`
	Address string
	Exe     string
}

// troublemaker is a worker that serves HTTP, and gets into trouble of the kind
// that the environment says when it gets SIGUSR1.
var troublemaker = program("troublemaker", func() {
	if failure := os.Getenv("FAIL"); failure != "" {
		if _, err := os.Stat(failure); err == nil {
			fmt.Fprintln(os.Stderr, "no database")
			os.Exit(3)
		}
	}
	trouble := make(chan os.Signal, 1)
	notify(trouble)
	begun := make(chan struct{})
	kind := os.Getenv("TROUBLE")
	cluster.OnCheck(func(context.Context) error {
		select {
		case <-begun:
		default:
			return nil
		}
		switch kind {
		case "check blocks":
			blockedCheck()
		case "check fails":
			return fmt.Errorf("the database is down")
		}
		return nil
	})
	go func() {
		<-trouble
		close(begun)
		switch kind {
		case "spin":
			spin()
		case "busy":
			beBusy()
		case "memory":
			hoard = bytes.Repeat([]byte{1}, 256<<20)
		case "orphan":
			die(exec.Command("/bin/sh", "-c", "sleep 1.25 & exit 0").Run())
		}
	}()
	address := os.Getenv("ADDRESS")
	if address == "" {
		address = "127.0.0.1:0"
	}
	network, address, ok := strings.Cut(address, " ")
	if !ok {
		network, address = "tcp", network
	}
	ln, err := cluster.Listen(network, address)
	die(err)
	exe, _ := os.Readlink("/proc/self/exe")
	die(cluster.Worker.Send(up{Cmd: "up", Address: ln.Addr().String(), Exe: exe}))
	die(cluster.Serve(ln, &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		io.WriteString(w, strconv.Itoa(os.Getpid()))
	})}))
})

var hoard []byte

// beBusy leaves the worker no idle moment: more goroutines than it has cores for
// compute, and a large heap of pointers is collected all the time.
func beBusy() {
	heap := make([]*[16]byte, 1<<20)
	for i := range heap {
		heap[i] = new([16]byte)
	}
	for range 4 {
		go spin()
	}
	for {
		runtime.GC()
		runtime.KeepAlive(heap)
	}
}

//go:noinline
func blockedCheck() { select {} }

//go:noinline
func spin() {
	for spun := 0; spun >= 0; spun++ {
	}
}

// supervise starts a supervisor of troublemakers, and waits until all are up.
func supervise(t *testing.T, s supervision, env ...string) (p *proc, ups []event) {
	t.Helper()
	p = start(t, supervisor, supervise1(t, &s, env)...)
	return p, p.ups(s.Workers)
}

func supervise1(t *testing.T, s *supervision, env []string) []string {
	if s.Program == "" {
		s.Program = troublemaker
	}
	b, err := json.Marshal(s)
	require.NoError(t, err)
	return append(env, supervisorEnv+"="+string(b))
}

// event is a line of a supervisor.
type event struct {
	slot, pid int
	rest      []string
}

func parseEvent(line string) (e event) {
	f := strings.Fields(line)
	if len(f) > 1 {
		e = event{atoi(f[0]), atoi(f[1]), f[2:]}
	}
	return e
}

// event waits for the next line of that kind.
func (p *proc) event(kind string) event {
	p.t.Helper()
	return parseEvent(p.expect(kind + " "))
}

// ups waits for n workers to be up, and sorts them by slot.
func (p *proc) ups(n int) []event {
	p.t.Helper()
	all := make([]event, n)
	for range n {
		e := p.event("up")
		all[e.slot] = e
	}
	return all
}

// all waits for a line with each of the prefixes, in whatever order, and returns
// what follows them.
func (p *proc) all(prefixes ...string) []string {
	p.t.Helper()
	rests, missing := make([]string, len(prefixes)), len(prefixes)
	for missing > 0 {
		line := await(p.t, p.lines, "lines "+strings.Join(prefixes, ", "))
		for i, prefix := range prefixes {
			if rest, ok := strings.CutPrefix(line, prefix); ok && rests[i] == "" {
				rests[i] = rest
				missing--
			}
		}
	}
	return rests
}

// died is the line of a death.
func died(w event, reason cluster.Reason) string {
	return fmt.Sprintf("dead %d %d %s", w.slot, w.pid, reason)
}

// dead waits for a death and checks why.
func (p *proc) dead(pid int, reason cluster.Reason) {
	p.t.Helper()
	e := p.event("dead")
	require.Equal(p.t, pid, e.pid)
	require.Equal(p.t, string(reason), e.rest[0])
}

// terminate ends a supervisor as a service manager does.
func (p *proc) terminate() {
	p.t.Helper()
	p.signal(syscall.SIGTERM)
	require.Zero(p.t, p.exit())
	p.groupEmpty()
}

// stats asks a supervisor for its Stats.
func (p *proc) stats() (s cluster.Snapshot) {
	p.t.Helper()
	p.signal(sigPoke)
	require.NoError(p.t, json.Unmarshal([]byte(p.expect("stats ")), &s))
	return s
}

const tick = 100 * time.Millisecond
