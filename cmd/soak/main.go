//go:build unix

// Soak runs a cluster under load while everything that can happen to it happens, in an
// order that a seed decides: workers are killed, stopped and continued, crash, write
// garbage to their channel, flood the master, and are told to stop one by one; the cluster
// is reloaded and scaled, and the master is replaced in place.
//
// All the time it checks that no request is lost, except those in flight on a worker that was
// killed. Of package coord it checks that no two workers lead or hold a lock at once, and that a
// worker leads when one can. At the end all workers must be ready again, and nothing may have
// leaked. It prints its seed and a summary, and exits with status 1 if something did not hold.
// The clients are a process of their own, which goes on while the master is replaced.
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
	"os/signal"
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
	if os.Getenv(clientsEnv) != "" {
		beClients(&state{Dir: os.Getenv(witnessEnv)}, *clients)
		return
	}
	s := &soak{verbose: *verbose, pauses: pauses{all: make(map[int]int)}, workers: *workers, clients: *clients, length: *length}
	s.random, s.state = rand.NewPCG(*seed, 0), state{Seed: *seed, Done: make(map[string]int)}
	if *robin {
		*policy = "RoundRobin"
	}
	o := cluster.Options{Scheduling: scheduling(*policy), MaxConnections: *most}
	was := s.succeed()
	if !was && !cluster.Checking() {
		var err error
		s.Dir, err = os.MkdirTemp("", "soak")
		check(err)
		fmt.Printf("soak: seed %d, %v, %d workers with %d connections at most, %d + %d clients, %v\n", s.Seed, *length, *workers, *most, *clients, *clients, o.Scheduling)
	}
	if !s.run(was, o) {
		fmt.Printf("soak: FAILED after %d upgrades; again with -seed %d\n", s.Upgrades, s.Seed)
		os.Exit(1)
	}
	fmt.Printf("soak: ok, with %d upgrades\n", s.Upgrades)
}

// scheduling returns the Scheduling of that name.
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
	verbose bool
	workers int
	clients int // of each kind
	length  time.Duration
	random  *rand.PCG
	rand    *rand.Rand

	deaths  deaths
	witness witness
	pauses  pauses

	mu sync.Mutex
	state
}

// run is the main function of the master. was says that it goes on with the run of the program
// before.
func (s *soak) run(was bool, o cluster.Options) bool {
	s.rand = rand.New(s.random)
	addresses := s.start(o)
	if was {
		s.continueStopped()
	} else {
		// A reload at both ends: its file is held open, once, until the next.
		s.settle()
		check(cluster.Reload(context.Background()))
		c := make(chan os.Signal, 1)
		signal.Notify(c, os.Interrupt) // makes os/signal start its goroutine, which it has after an upgrade too
		signal.Stop(c)
		s.Before = census()
		s.startClients(<-addresses)
		s.End = time.Now().Add(s.length)
	}
	defer os.RemoveAll(s.Dir)
	ctx, cancel := context.WithCancel(context.Background())
	var gap sync.WaitGroup
	gap.Go(func() { s.watchGap(ctx) })
	for time.Now().Before(s.End) {
		s.event()
		time.Sleep(time.Duration(s.rand.IntN(300)) * time.Millisecond)
	}
	ok := s.settle()
	requests := s.stopClients()
	cancel()
	gap.Wait()
	check(cluster.Reload(context.Background()))
	after := census()
	for end := time.Now().Add(10 * time.Second); !after.within(s.Before) && time.Now().Before(end); after = census() {
		time.Sleep(100 * time.Millisecond) // until workers that were stopped and killed are gone
	}
	stats := cluster.Stats()
	stopped := cluster.Disconnect(context.Background())
	return s.report(ok, stopped, requests, after, stats)
}

// start starts the cluster, or goes on with it. The channel gets the address.
func (s *soak) start(o cluster.Options) <-chan string {
	o.Workers, o.ShutdownTimeout, o.Logger = s.workers, 10*time.Second, slog.New(slog.DiscardHandler)
	o.Output = func(*cluster.Process) (io.Writer, io.Writer) { return io.Discard, io.Discard }
	o.Backoff = cluster.Backoff{Max: 250 * time.Millisecond} // a part of maxGap
	if !cluster.Checking() {
		var err error
		s.deaths, err = openDeaths(s.file("deaths"))
		check(err)
	}
	s.witness = witness{s.Dir}
	o.Env = []string{acceptsEnv + "=" + s.file("accepts"), witnessEnv + "=" + s.Dir}
	addresses := make(chan string, 1)
	cluster.OnListening(func(_ *cluster.Process, a net.Addr) {
		select {
		case addresses <- a.String():
		default:
		}
	})
	cluster.OnMessage(func(*cluster.Process, cluster.Message) {})
	cluster.OnError(func(*cluster.Process, error) {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.Errors++
	})
	cluster.OnDeath(func(w *cluster.Process, e cluster.Exit) {
		s.tell("worker %d: %v", w.PID(), e)
		s.deaths.add(w, e)
	})
	check(cluster.SetupMaster(o))
	check(cluster.AutoFork())
	return addresses
}

// event makes one thing happen.
func (s *soak) event() {
	all := cluster.Workers()
	if len(all) == 0 {
		time.Sleep(10 * time.Millisecond)
		return
	}
	w := all[s.rand.IntN(len(all))]
	what := [...]string{"kill", "stop", "crash", "panic", "garbage", "flood", "term", "reload", "scale", "request", "upgrade"}[s.rand.IntN(11)]
	s.tell("%s worker %d (slot %d, %v)", what, w.PID(), w.Slot(), w.State())
	s.mu.Lock()
	s.Done[what]++
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
	case "upgrade": // it returns if it fails; else the next program goes on
		cluster.Upgrade(context.Background())
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

// settle waits until as many workers are ready as there should be.
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

func (s *soak) report(settled bool, stopped error, requests tally, after counts, stats cluster.Snapshot) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	fmt.Printf("soak: %d requests, %d lost with a killed worker, %d lost without reason\n", requests.Served, requests.Excused, len(requests.Lost))
	fmt.Printf("soak: events %v, exits %v, %d errors reported, generation %d\n", s.Done, stats.Exits, s.Errors, stats.Generation)
	fmt.Printf("soak: before %+v, after %+v\n", s.Before, after)
	for _, lost := range requests.Lost[:min(10, len(requests.Lost))] {
		fmt.Println("soak: lost:", lost)
	}
	for _, why := range s.Failed {
		fmt.Println("soak: an upgrade has failed:", why)
	}
	ok := s.witness.report(s.Gap) && len(requests.Lost)+len(s.Failed) == 0 && requests.Served > 0
	for what, holds := range map[string]bool{
		"the capacity is back": settled,
		"the stop is graceful": stopped == nil,
		"nothing has leaked":   after.within(s.Before),
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
