package clustertest

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

// A supervisor is a master of its own under Run, for what the test process cannot be: the
// receiver of signals, a service, PID 1. It prints what happens.

const supervisorEnv = "CLUSTER_TEST_SUPERVISOR"

// Supervision are the Options that a test sets, as they fit into the environment.
type Supervision struct {
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

// Supervisor is a master under Run, with the options of its environment.
var Supervisor = Program("supervisor", func() {
	var s Supervision
	Must(json.Unmarshal([]byte(os.Getenv(supervisorEnv)), &s))
	Must(cluster.SetupMaster(cluster.Options{
		Workers: s.Workers, Env: append([]string{ProgramEnv + "=" + s.Program}, s.Env...), Backoff: s.Backoff,
		Watchdog: s.Watchdog, Recycle: s.Recycle, MinReady: s.MinReady, NoSignals: s.NoSignals, MaxBootFailures: s.MaxBootFailures,
	}))
	if s.Quiet {
		slog.SetDefault(slog.New(slog.DiscardHandler))
	}
	// Events of two workers may come in any order, so what must hold for all workers together
	// is looked at when each event comes.
	census := func(event string, pid int) {
		workers, ready := cluster.Workers(), 0
		for _, w := range workers {
			if w.State() == cluster.Ready {
				ready++
			}
		}
		fmt.Println("census", event, pid, len(workers), ready)
	}
	cluster.OnFork(func(w *cluster.Process) {
		fmt.Println("fork", w.Slot(), w.PID())
		census("fork", w.PID())
	})
	cluster.OnError(func(w *cluster.Process, err error) { fmt.Println("error", w.Slot(), err) })
	cluster.OnDeath(func(w *cluster.Process, e cluster.Exit) {
		fmt.Println("dead", w.Slot(), w.PID(), e.Reason, e.Code)
		census("dead", w.PID())
	})
	cluster.OnReload(func(r cluster.ReloadResult) { fmt.Println("reload", r.Replaced, r.Generation, r.Err) })
	cluster.Handle("up", func(w *cluster.Process, u Up) {
		fmt.Println("up", w.Slot(), w.PID(), strings.TrimPrefix(u.Address, "127.0.0.1:"), u.Exe)
	})
	// What the program does itself with a signal.
	own := make(chan os.Signal, 10)
	Notify(own)
	if s.NoSignals {
		signal.Notify(own, syscall.SIGHUP)
	}
	go func() {
		for sig := range own {
			if sig == SigPoke {
				b, err := json.Marshal(cluster.Stats())
				Must(err)
				fmt.Println("stats", string(b))
				continue
			}
			fmt.Println("own", sig)
		}
	}()
	err := cluster.Run(context.Background())
	fmt.Println("run", err)
	Must(err)
})

// Up is the message of a troublemaker that listens.
type Up struct {
	Cmd     string `json:"cmd"`
	Address string
	Exe     string
}

// Troublemaker is a worker that serves HTTP. At SIGUSR1 it gets into the kind of trouble that
// its environment names.
var Troublemaker = Program("troublemaker", func() {
	if failure := os.Getenv("FAIL"); failure != "" {
		if _, err := os.Stat(failure); err == nil {
			fmt.Fprintln(os.Stderr, "no database")
			os.Exit(3)
		}
	}
	trouble := make(chan os.Signal, 1)
	Notify(trouble)
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
			Must(exec.Command("/bin/sh", "-c", "sleep 1000 & exit 0").Run())
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
	Must(err)
	exe, _ := os.Readlink("/proc/self/exe")
	Must(cluster.Worker.Send(Up{Cmd: "up", Address: ln.Addr().String(), Exe: exe}))
	Must(cluster.Serve(ln, &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		io.WriteString(w, strconv.Itoa(os.Getpid()))
	})}))
})

//lint:ignore U1000 it is there to be held
var hoard []byte

// beBusy leaves the worker no idle moment: more goroutines compute than it has cores, and a
// large heap of pointers is collected all the time.
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

// Supervise starts a supervisor of troublemakers, and waits until all are up.
func Supervise(t *testing.T, s Supervision, env ...string) (p *Proc, ups []Event) {
	t.Helper()
	p = Start(t, Supervisor, SuperviseEnv(t, &s, env)...)
	return p, p.Ups(s.Workers)
}

// SuperviseEnv returns the environment of a Supervisor.
func SuperviseEnv(t *testing.T, s *Supervision, env []string) []string {
	if s.Program == "" {
		s.Program = Troublemaker
	}
	b, err := json.Marshal(s)
	require.NoError(t, err)
	return append(env, supervisorEnv+"="+string(b))
}

// Event is a line of a supervisor.
type Event struct {
	Slot, PID int
	Rest      []string
}

// ParseEvent reads the slot, the pid and the rest of a line.
func ParseEvent(line string) (e Event) {
	f := strings.Fields(line)
	if len(f) > 1 {
		e = Event{Atoi(f[0]), Atoi(f[1]), f[2:]}
	}
	return e
}

// Died returns the line that a supervisor prints at a death.
func Died(w Event, reason cluster.Reason) string {
	return fmt.Sprintf("dead %d %d %s", w.Slot, w.PID, reason)
}

// Tick is an interval that is short for a test.
const Tick = 100 * time.Millisecond
