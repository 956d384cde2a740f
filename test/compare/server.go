package main

import (
	"context"
	"fmt"
	"io"
	"log"
	"net/http"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"sync"
	"syscall"

	"github.com/go-cluster/cluster"
	"github.com/valyala/fasthttp"
	"github.com/valyala/fasthttp/prefork"
)

// The settings of a server are in its environment, which its workers inherit.
const (
	serverEnv    = "COMPARE_SERVER"
	addressEnv   = "COMPARE_ADDRESS"
	processesEnv = "COMPARE_PROCESSES"
	procsEnv     = "COMPARE_PROCS"
	heapEnv      = "COMPARE_HEAP"
	holdEnv      = "COMPARE_HOLD"
)

// server is one of those compared.
type server struct {
	name      string
	kind      string // plain, prefork or cluster
	procs     int    // GOMAXPROCS of each process that serves
	processes int    // how many processes serve
	heap      int    // bytes that each of them holds
	hold      int    // steps that each request takes under the lock
}

// start runs the server in a process of its own. It does not wait until that is ready.
func (s server) start(address string) (*exec.Cmd, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	c := exec.Command(self)
	c.Stdout, c.Stderr = os.Stderr, os.Stderr
	c.Env = append(os.Environ(), serverEnv+"="+s.kind, addressEnv+"="+address,
		processesEnv+"="+itoa(s.processes), procsEnv+"="+itoa(s.procs), heapEnv+"="+itoa(s.heap), holdEnv+"="+itoa(s.hold),
		"GOMAXPROCS="+itoa(runtime.NumCPU()))
	return c, c.Start()
}

// stop ends the process and all processes that it has started.
func stop(c *exec.Cmd) {
	c.Process.Signal(syscall.SIGTERM)
	c.Wait() // a signal ends the plain process: that is no error
}

// serve is what the processes of a server do.
func serve(kind string) error {
	address := os.Getenv(addressEnv)
	w := &work{hold: number(holdEnv)}
	handler := http.HandlerFunc(func(rw http.ResponseWriter, _ *http.Request) {
		w.do()
		rw.Write(w.answer)
	})
	switch kind {
	case "plain":
		w.prepare()
		return http.ListenAndServe(address, handler)
	case "prefork":
		if prefork.IsChild() {
			w.prepare()
		}
		p := prefork.New(&fasthttp.Server{Handler: func(ctx *fasthttp.RequestCtx) {
			w.do()
			ctx.Write(w.answer)
		}})
		p.Logger = log.New(io.Discard, "", 0) // it would log the end of its master
		p.OnMasterDeath = func() { os.Exit(0) }
		return p.ListenAndServe(address)
	case "cluster":
		o := cluster.Options{Workers: number(processesEnv), MaxProcs: number(procsEnv)}
		if err := cluster.SetupMaster(o); err != nil {
			return err
		}
		if cluster.IsMaster() {
			err := cluster.Run(context.Background())
			if err == nil {
				os.Exit(0)
			}
			return err
		}
		w.prepare()
		err := cluster.ListenAndServe(address, handler)
		if err == nil {
			os.Exit(0)
		}
		return err
	}
	return fmt.Errorf("no such server: %s", kind)
}

// replaced is how many objects a request replaces: 64 KB.
const replaced = 1000

// object has 64 bytes, and a pointer that the collector follows.
type object struct {
	next *object
	_    [7]uint64
}

// work is what a request makes a process do.
type work struct {
	hold   int // steps under the lock
	answer []byte

	mu     sync.Mutex // guards all below
	heap   []*object
	oldest int
	state  uint64
}

// prepare fills the heap. An object points to the one before it.
func (w *work) prepare() {
	w.answer = fmt.Appendf(nil, "%d %s", os.Getpid(), ending)
	w.heap = make([]*object, number(heapEnv)/64)
	var last *object
	for i := range w.heap {
		if i%64 == 0 {
			last = nil // short chains: else nothing would ever be garbage
		}
		last = &object{next: last}
		w.heap[i] = last
	}
	runtime.GC()
}

// do replaces some objects and takes some steps, if this is a heap or a lock to
// be measured.
func (w *work) do() {
	if len(w.heap) > 0 {
		fresh := make([]*object, replaced)
		var last *object
		for i := range fresh {
			last = &object{next: last}
			fresh[i] = last
		}
		w.mu.Lock()
		w.oldest = (w.oldest + copy(w.heap[w.oldest:], fresh)) % len(w.heap)
		w.mu.Unlock()
	}
	if w.hold > 0 {
		w.mu.Lock()
		for range w.hold {
			w.state = w.state*6364136223846793005 + 1442695040888963407
		}
		w.mu.Unlock()
	}
}

func itoa(n int) string { return strconv.Itoa(n) }

// number reads a number that start has put into the environment.
func number(name string) int {
	n, err := strconv.Atoi(os.Getenv(name))
	if err != nil {
		panic(name + ": " + err.Error())
	}
	return n
}
