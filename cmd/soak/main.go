//go:build unix

// Soak runs a cluster under load while everything that can happen to it happens, in an
// order that a seed decides: workers are killed, stopped and continued, crash, write
// garbage to their channel, flood the master, and are told to stop one by one; the cluster
// is reloaded and scaled.
//
// All the time it checks that no request is lost, but those in flight on a worker that was
// killed. Of package coord it checks that no two workers lead or hold a lock at once, and
// that somebody leads when somebody can. At the end the capacity must be back, and nothing
// may have leaked. It prints its seed and a summary, and exits with 1 if something did not
// hold.
//
//	go run ./cmd/soak -time 60s
package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/go-cluster/cluster"
)

func main() {
	length := flag.Duration("time", time.Minute, "how long to run")
	seed := flag.Uint64("seed", uint64(time.Now().UnixNano()), "what the order of events follows from")
	workers := flag.Int("workers", 4, "workers to begin with")
	clients := flag.Int("clients", 8, "clients of each kind: keep-alive and one-shot")
	policy := flag.String("scheduling", "Shared", "how connections reach the workers: Shared, RoundRobin, Sharded, LeastConnections or ByClient")
	robin := flag.Bool("roundrobin", false, "the same as -scheduling RoundRobin")
	most := flag.Int("max", 0, "the MaxConnections of a worker")
	verbose := flag.Bool("v", false, "print every event")
	flag.Parse()
	if cluster.IsWorker() {
		work()
		return
	}
	s := &soak{
		rand: rand.New(rand.NewPCG(*seed, 0)), verbose: *verbose,
		done: make(map[string]int), deaths: deaths{killed: make(map[int]bool)}, pauses: pauses{all: make(map[int]int)}, workers: *workers,
	}
	if *robin {
		*policy = "RoundRobin"
	}
	o := cluster.Options{Scheduling: scheduling(*policy), MaxConnections: *most}
	fmt.Printf("soak: seed %d, %v, %d workers with %d connections at most, %d + %d clients, %v\n", *seed, *length, *workers, *most, *clients, *clients, o.Scheduling)
	if !s.run(*length, *clients, o) {
		fmt.Printf("soak: FAILED; again with -seed %d\n", *seed)
		os.Exit(1)
	}
	fmt.Println("soak: ok")
}

// scheduling is the one of that name.
func scheduling(name string) cluster.Scheduling {
	for _, s := range []cluster.Scheduling{cluster.Shared, cluster.RoundRobin, cluster.Sharded, cluster.LeastConnections, cluster.ByClient} {
		if s.String() == name {
			return s
		}
	}
	fmt.Fprintf(os.Stderr, "soak: there is no scheduling %q\n", name)
	os.Exit(2)
	return 0
}

// order is what the master tells a worker to do to itself.
type order struct {
	Cmd string `json:"cmd"`
	Do  string `json:"do"`
}

// work is a worker: a server whose answers take a moment.
func work() {
	cluster.Handle("order", func(w *cluster.Process, o order) {
		switch o.Do {
		case "crash":
			os.Exit(1)
		case "panic":
			go func() { panic("told to") }()
		case "garbage":
			syscall.Write(3, []byte("}{ garbage\n\n[1,\n"+strings.Repeat("x", rand.IntN(10000))+"\n"))
		case "flood":
			for i := range 20000 {
				if w.Send(map[string]int{"flood": i}) != nil {
					return
				}
			}
		}
	})
	http.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		io.Copy(io.Discard, r.Body)
		time.Sleep(time.Duration(rand.IntN(5)) * time.Millisecond)
		fmt.Fprintf(w, "%d %s", cluster.Worker.PID(), strings.Repeat("x", rand.IntN(4096)))
	})
	a, err := openAccepts(os.Getenv(acceptsEnv))
	check(err)
	witness{os.Getenv(witnessEnv)}.watch()
	ln, err := cluster.Listen("tcp", "127.0.0.1:0")
	check(err)
	check(cluster.Serve(ln, &http.Server{ConnContext: func(ctx context.Context, c net.Conn) context.Context {
		a.note(c.RemoteAddr())
		return ctx
	}}))
}

// soak is one run.
type soak struct {
	rand    *rand.Rand
	verbose bool
	workers int
	address string

	accepts accepts
	deaths  deaths
	witness witness
	pauses  pauses

	mu      sync.Mutex
	done    map[string]int
	lost    []loss
	excused int
	served  int
	errors  int
}

func (s *soak) run(length time.Duration, clients int, o cluster.Options) bool {
	o.Workers, o.ShutdownTimeout, o.Logger = s.workers, 10*time.Second, slog.New(slog.DiscardHandler)
	o.Output = func(*cluster.Process) (io.Writer, io.Writer) { return io.Discard, io.Discard }
	o.Backoff = cluster.Backoff{Max: 250 * time.Millisecond} // a part of maxGap
	dir, err := os.MkdirTemp("", "soak")
	check(err)
	defer os.RemoveAll(dir)
	path := filepath.Join(dir, "accepts")
	s.accepts, err = openAccepts(path)
	check(err)
	defer s.accepts.file.Close()
	s.witness = witness{dir}
	o.Env = []string{acceptsEnv + "=" + path, witnessEnv + "=" + dir}
	addresses := make(chan string, 1)
	cluster.OnListening(listenOnce(addresses))
	cluster.OnMessage(func(*cluster.Process, cluster.Message) {})
	cluster.OnError(func(*cluster.Process, error) { s.count(&s.errors) })
	cluster.OnDeath(func(w *cluster.Process, e cluster.Exit) {
		s.tell("worker %d: %v", w.PID(), e)
		s.deaths.add(w, e)
	})
	check(cluster.SetupMaster(o))
	check(cluster.AutoFork())
	s.address = <-addresses

	// A reload at both ends: its file is held open, once, until the next.
	s.settle()
	check(cluster.Reload(context.Background()))
	before := census()
	ctx, cancel := context.WithCancel(context.Background())
	var all sync.WaitGroup
	for range clients {
		all.Go(func() { s.keepAlive(ctx) })
		all.Go(func() { s.oneShot(ctx) })
	}
	var gap time.Duration
	all.Go(func() { gap = s.watchGap(ctx) })
	for end := time.Now().Add(length); time.Now().Before(end); {
		s.event()
		time.Sleep(time.Duration(s.rand.IntN(300)) * time.Millisecond)
	}
	ok := s.settle()
	cancel()
	all.Wait()
	check(cluster.Reload(context.Background()))
	after := census()
	for end := time.Now().Add(10 * time.Second); !after.within(before) && time.Now().Before(end); after = census() {
		time.Sleep(100 * time.Millisecond) // what was stopped and killed goes
	}
	stats := cluster.Stats()
	stopped := cluster.Disconnect(context.Background())
	return s.report(ok, stopped, before, after, gap, stats)
}

// event lets one thing happen.
func (s *soak) event() {
	all := cluster.Workers()
	if len(all) == 0 {
		time.Sleep(10 * time.Millisecond)
		return
	}
	w := all[s.rand.IntN(len(all))]
	what := [...]string{"kill", "stop", "crash", "panic", "garbage", "flood", "term", "reload", "scale", "request"}[s.rand.IntN(10)]
	s.tell("%s worker %d (slot %d, %v)", what, w.PID(), w.Slot(), w.State())
	s.mu.Lock()
	s.done[what]++
	s.mu.Unlock()
	switch what {
	case "kill":
		w.OSProcess().Signal(syscall.SIGKILL)
	case "stop":
		pause := time.Duration(s.rand.IntN(1500)) * time.Millisecond
		s.pauses.stop(w, pause)
	case "term":
		w.OSProcess().Signal(syscall.SIGTERM)
	case "reload":
		go cluster.Reload(context.Background())
	case "scale":
		if err := cluster.Scale(1 + s.rand.IntN(2*s.workers-1)); err != nil {
			fmt.Println("soak: scale:", err)
		}
	case "request":
		ctx, cancel := context.WithTimeout(context.Background(), time.Millisecond)
		w.Request(ctx, "nobody answers", nil)
		cancel()
	default:
		w.Send(order{"order", what})
	}
}

// tell prints what happens, if it is to.
func (s *soak) tell(format string, args ...any) {
	if s.verbose {
		fmt.Println(time.Now().Format(time.StampMilli), fmt.Sprintf(format, args...))
	}
}

// settle waits until all workers that there should be are ready.
func (s *soak) settle() bool {
	check(cluster.Scale(s.workers))
	for end := time.Now().Add(time.Minute); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		ready := 0
		for _, w := range cluster.Workers() {
			if w.State() != cluster.Ready {
				ready = -1
				break
			}
			ready++
		}
		if ready == s.workers && !cluster.Stats().Reload.Running {
			return true
		}
	}
	return false
}

func (s *soak) count(n *int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	*n++
}

func (s *soak) report(settled bool, stopped error, before, after counts, gap time.Duration, stats cluster.Snapshot) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	fmt.Printf("soak: %d requests, %d lost with a killed worker, %d lost without reason\n", s.served, s.excused, len(s.lost))
	fmt.Printf("soak: events %v, exits %v, %d errors reported, generation %d\n", s.done, stats.Exits, s.errors, stats.Generation)
	fmt.Printf("soak: before %+v, after %+v\n", before, after)
	for i, l := range s.lost {
		if i == 10 {
			break
		}
		fmt.Println("soak: lost:", l)
	}
	ok := s.witness.report(gap) && len(s.lost) == 0 && s.served > 0
	for what, holds := range map[string]bool{
		"the capacity is back": settled,
		"the stop is graceful": stopped == nil,
		"nothing has leaked":   after.within(before),
	} {
		if !holds {
			fmt.Printf("soak: does not hold: %s (%v)\n", what, stopped)
			ok = false
		}
	}
	return ok
}

func check(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, "soak:", err)
		os.Exit(1)
	}
}
