//go:build unix

package bench_test

// What the package costs, each figure against a baseline that is measured in
// the same run. BENCHMARKS.md says what the ratios mean.

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/go-cluster/cluster"
	"github.com/go-cluster/cluster/internal/clustertest"
	"github.com/stretchr/testify/require"
)

// rounds calls fn for as long as -benchtime says, and at least the given number of times. With
// -short it calls fn once, to see whether it works.
func rounds(b *testing.B, least int, fn func()) {
	if testing.Short() {
		least = 1
	}
	n := 0
	for b.Loop() {
		fn()
		n++
	}
	for ; n < least; n++ {
		fn()
	}
	b.ReportMetric(0, "ns/op") // the time of a round says nothing
}

// compare measures a figure and its baseline in turn, so that both meet the same noise. It
// reports the medians of both, and the median of the ratios of the pairs.
func compare(b *testing.B, unit string, figure, base func() float64) {
	b.Helper()
	compareOf(b, 15, unit, figure, base)
}

// compareOf is compare of so many pairs at least.
func compareOf(b *testing.B, least int, unit string, figure, base func() float64) {
	b.Helper()
	var figures, bases, ratios []float64
	figure() // so that the figures do not contain what is done only once
	base()
	rounds(b, least, func() {
		f, g := figure(), base()
		figures, bases, ratios = append(figures, f), append(bases, g), append(ratios, f/g)
	})
	b.ReportMetric(median(figures), unit)
	b.ReportMetric(median(bases), "base-"+unit)
	b.ReportMetric(median(ratios), "ratio")
}

func median(v []float64) float64 {
	v = slices.Sorted(slices.Values(v))
	return (v[(len(v)-1)/2] + v[len(v)/2]) / 2
}

// count is the message of the benchmarks: 30 bytes of JSON.
type count struct {
	Cmd string `json:"cmd"`
	N   int    `json:"n"`
}

const firstCount = 1_000_000_000 // so that all have ten digits

// benchCount is the n-th message.
func benchCount(n int) count { return count{"count", firstCount + n} }

// forkBench starts a single worker and waits until it is online.
func forkBench(b *testing.B, program string, env ...string) *cluster.Process {
	b.Helper()
	clustertest.WithMaster(b, program, cluster.Options{})
	online := make(chan struct{}, 1)
	b.Cleanup(cluster.OnOnline(func(*cluster.Process) { online <- struct{}{} }))
	w, err := cluster.Fork(env...)
	require.NoError(b, err)
	clustertest.Await(b, online, "online")
	return w
}

// ---- messages

// messagesPerRound of 30 bytes are some 3 MB: many times what the kernel's
// buffers hold.
const messagesPerRound = 100_000

const benchOnMessage = "CLUSTER_BENCH_ON_MESSAGE"

// benchPeer is a worker that sends and takes messages: "send" asks for n of
// them, and "last" says which one is to be answered with "done".
var benchPeer = clustertest.Program("bench peer", func() {
	send := func(n int) {
		for i := range n {
			clustertest.Must(cluster.Worker.Send(benchCount(i)))
		}
	}
	last := 0
	take := func(n int) {
		if n == last {
			clustertest.Must(cluster.Worker.Send(count{"done", 0}))
		}
	}
	if os.Getenv(benchOnMessage) == "" {
		cluster.Handle("send", func(_ *cluster.Process, c count) { send(c.N) })
		cluster.Handle("last", func(_ *cluster.Process, c count) { last = c.N })
		cluster.Handle("count", func(_ *cluster.Process, c count) { take(c.N) })
	} else {
		cluster.OnMessage(func(_ *cluster.Process, m cluster.Message) {
			var c count
			clustertest.Must(m.Decode(&c))
			switch c.Cmd {
			case "send":
				send(c.N)
			case "last":
				last = c.N
			case "count":
				take(c.N)
			}
		})
	}
	cluster.Respond("count", func(_ *cluster.Process, c count) (count, error) { return c, nil })
	<-cluster.Context().Done()
	select {}
})

// benchTaken counts messages in the master, and tells when the last of a round came.
type benchTaken struct{ done chan struct{} }

func newBenchTaken(b *testing.B, onMessage bool) *benchTaken {
	t := &benchTaken{done: make(chan struct{}, 1)}
	if onMessage {
		b.Cleanup(cluster.OnMessage(func(_ *cluster.Process, m cluster.Message) {
			var c count
			if err := m.Decode(&c); err != nil {
				b.Error(err)
			}
			t.take(c)
		}))
		return t
	}
	b.Cleanup(cluster.Handle("count", func(_ *cluster.Process, c count) { t.take(c) }))
	b.Cleanup(cluster.Handle("done", func(_ *cluster.Process, c count) { t.take(c) }))
	return t
}

func (t *benchTaken) take(c count) {
	if c.Cmd == "done" || c.N == benchCount(messagesPerRound-1).N {
		t.done <- struct{}{}
	}
}

// BenchmarkMessages is messages per second one way, 30-byte objects, decoded
// into a struct by Handle or by OnMessage and Decode. The baseline is what one
// would write by hand: bufio and encoding/json over the same kind of socketpair
// to the same kind of process. The ratio is the part of that rate which is left when receipts,
// order, bounds and descriptors are taken care of: 0.85 at least.
func BenchmarkMessages(b *testing.B) {
	for _, take := range []string{"Handle", "OnMessage"} {
		env := ""
		if take == "OnMessage" {
			env = "1"
		}
		b.Run("ToMaster/"+take, func(b *testing.B) {
			compare(b, "msg/s", sendToMaster(b, env), baseToParent(b))
		})
		b.Run("ToWorker/"+take, func(b *testing.B) {
			compare(b, "msg/s", sendToWorker(b, env), baseToChild(b))
		})
	}
}

// sendToMaster returns a measurement of a worker that sends.
func sendToMaster(b *testing.B, onMessage string) func() float64 {
	w := forkBench(b, benchPeer, benchOnMessage+"="+onMessage)
	t := newBenchTaken(b, onMessage != "")
	return func() float64 {
		return perSecond(messagesPerRound, func() {
			require.NoError(b, w.Send(count{"send", messagesPerRound}))
			clustertest.Await(b, t.done, "last message")
		})
	}
}

// sendToWorker returns a measurement of a master that sends.
func sendToWorker(b *testing.B, onMessage string) func() float64 {
	w := forkBench(b, benchPeer, benchOnMessage+"="+onMessage)
	t := newBenchTaken(b, onMessage != "")
	require.NoError(b, w.Send(count{"last", benchCount(messagesPerRound - 1).N}))
	return func() float64 {
		return perSecond(messagesPerRound, func() {
			for i := range messagesPerRound {
				if err := w.Send(benchCount(i)); err != nil {
					b.Fatal(err)
				}
			}
			clustertest.Await(b, t.done, "last message")
		})
	}
}

func perSecond(n int, fn func()) float64 {
	begun := time.Now()
	fn()
	return float64(n) / time.Since(begun).Seconds()
}

// BenchmarkMessagesNode compares the same rate with process.send in a node
// worker and its primary. The ratio is how many times faster this package is: 4
// at least.
func BenchmarkMessagesNode(b *testing.B) {
	n := startNode(b, "bench_messages.js")
	compare(b, "msg/s", sendToMaster(b, ""), func() float64 {
		fmt.Fprintln(n.in, messagesPerRound)
		ns, err := strconv.ParseFloat(n.line(), 64)
		require.NoError(b, err)
		return messagesPerRound / (ns / 1e9)
	})
}

// ---- fork

// benchHello is a worker that does nothing. As a plain process it writes a byte when its main
// runs.
var benchHello = clustertest.Program("bench hello", func() {
	if cluster.IsMaster() {
		os.Stdout.Write([]byte("!"))
		return
	}
	<-cluster.Context().Done()
	select {}
})

// BenchmarkForkOnline is the time from Fork to the OnOnline callback. The
// baseline executes the same binary until its first byte arrives on a pipe. The
// ratio is what a worker costs beside a process: 1.25 at most.
func BenchmarkForkOnline(b *testing.B) {
	clustertest.WithMaster(b, benchHello, cluster.Options{})
	online, death := make(chan struct{}, 1), make(chan struct{}, 1)
	b.Cleanup(cluster.OnOnline(func(*cluster.Process) { online <- struct{}{} }))
	b.Cleanup(cluster.OnDeath(func(*cluster.Process, cluster.Exit) { death <- struct{}{} }))
	compare(b, "ms", func() float64 {
		begun := time.Now()
		w, err := cluster.Fork()
		require.NoError(b, err)
		clustertest.Await(b, online, "online")
		took := time.Since(begun)
		require.NoError(b, w.Kill())
		clustertest.Await(b, death, "death")
		return took.Seconds() * 1e3
	}, func() float64 {
		begun := time.Now()
		c, out := baseProcess(b, benchHello)
		require.NoError(b, c.Start())
		c.Stdout.(*os.File).Close()
		_, err := io.ReadFull(out, make([]byte, 1))
		took := time.Since(begun)
		require.NoError(b, err)
		out.Close()
		c.Process.Kill()
		c.Wait()
		return took.Seconds() * 1e3
	})
}

// ---- HTTP and connections

var benchHandler = http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "hello\n") })

// benchHTTP is a worker that serves requests.
var benchHTTP = clustertest.Program("bench http", func() {
	ln, err := cluster.Listen("tcp", "127.0.0.1:0")
	clustertest.Must(err)
	clustertest.Must(cluster.Serve(ln, &http.Server{Handler: benchHandler}))
})

// benchAccept is a worker that greets connections with one byte.
var benchAccept = clustertest.Program("bench accept", func() {
	ln, err := cluster.Listen("tcp", "127.0.0.1:0")
	clustertest.Must(err)
	greet(ln)
})

// greet accepts, writes a byte and waits until the client is gone.
func greet(ln net.Listener) {
	for {
		c, err := ln.Accept()
		clustertest.Must(err)
		go func() {
			c.Write([]byte("!"))
			c.Read(make([]byte, 16))
			c.Close()
		}()
	}
}

// listenBench starts two workers and returns where both listen.
func listenBench(b *testing.B, program string, s cluster.Scheduling) string {
	b.Helper()
	clustertest.WithMaster(b, program, cluster.Options{Workers: 2, Scheduling: s})
	addrs := make(chan string, 2)
	b.Cleanup(cluster.OnListening(func(_ *cluster.Process, addr net.Addr) { addrs <- addr.String() }))
	require.NoError(b, cluster.AutoFork())
	clustertest.Await(b, addrs, "first listener")
	return clustertest.Await(b, addrs, "second listener")
}

// roundTime is how long a rate of requests or connections is measured at once.
const roundTime = 200 * time.Millisecond

// BenchmarkKeepAlive is requests per second over 16 keep-alive connections to
// two workers that share a socket. The baseline is two processes started by
// hand that inherit a listener and call http.Serve. The ratio is what serving
// through the package costs: 0.97 at least.
func BenchmarkKeepAlive(b *testing.B) {
	workers := listenBench(b, benchHTTP, cluster.Shared)
	plain := basePair(b, baseHTTP)
	compare(b, "req/s",
		func() float64 { return requestRate(b, workers) },
		func() float64 { return requestRate(b, plain) })
}

// requestRate has as thin a client as possible, since its cost is in both rates.
func requestRate(b *testing.B, addr string) float64 {
	const conns = 16
	request := []byte("GET / HTTP/1.1\r\nHost: bench\r\n\r\n")
	return rate(conns, func(count *atomic.Int64, end time.Time) error {
		c, err := net.Dial("tcp", addr)
		if err != nil {
			return err
		}
		defer c.Close()
		buf := make([]byte, 4096)
		for time.Now().Before(end) {
			if _, err := c.Write(request); err != nil {
				return err
			}
			for n := 0; !strings.HasSuffix(string(buf[max(0, n-6):n]), "hello\n"); {
				m, err := c.Read(buf[n:])
				if err != nil {
					return err
				}
				n += m
			}
			count.Add(1)
		}
		return nil
	}, b)
}

// BenchmarkConnections is new connections per second to two workers, each
// accepted, greeted with a byte and reset by the client. The baseline of Shared,
// of RoundRobin and of LeastConnections is two processes started by hand that inherit a listener;
// that of RoundRobin against node is node's SCHED_RR with two workers. Shared
// is to reach 0.95 of the first, RoundRobin 2 times node.
func BenchmarkConnections(b *testing.B) {
	b.Run("Shared", func(b *testing.B) { benchConnections(b, cluster.Shared, basePair(b, baseAccept)) })
	b.Run("RoundRobin", func(b *testing.B) { benchConnections(b, cluster.RoundRobin, basePair(b, baseAccept)) })
	b.Run("LeastConnections", func(b *testing.B) { benchConnections(b, cluster.LeastConnections, basePair(b, baseAccept)) })
	b.Run("RoundRobinNode", func(b *testing.B) {
		n := startNode(b, "bench_connections.js")
		benchConnections(b, cluster.RoundRobin, "127.0.0.1:"+n.line())
	})
}

func benchConnections(b *testing.B, s cluster.Scheduling, base string) {
	workers := listenBench(b, benchAccept, s)
	compare(b, "conn/s",
		func() float64 { return connectionRate(b, workers) },
		func() float64 { return connectionRate(b, base) })
}

// connectionRate resets its connections: else all ports would soon be in TIME_WAIT.
func connectionRate(b *testing.B, addr string) float64 {
	const clients = 8
	return rate(clients, func(count *atomic.Int64, end time.Time) error {
		buf := make([]byte, 1)
		for time.Now().Before(end) {
			c, err := net.Dial("tcp", addr)
			if err != nil {
				return err
			}
			if _, err := c.Read(buf); err != nil {
				return err
			}
			c.(*net.TCPConn).SetLinger(0)
			c.Close()
			count.Add(1)
		}
		return nil
	}, b)
}

// rate runs n clients for a round and returns what they counted per second.
func rate(n int, client func(count *atomic.Int64, end time.Time) error, b *testing.B) float64 {
	var count atomic.Int64
	var wg sync.WaitGroup
	begun := time.Now()
	for range n {
		wg.Go(func() {
			if err := client(&count, begun.Add(roundTime)); err != nil {
				b.Error(err)
			}
		})
	}
	wg.Wait()
	return float64(count.Load()) / time.Since(begun).Seconds()
}

// ---- many workers

// BenchmarkEachWorkerSend is the time of EachWorker with a Send, over 64
// workers that wait. The baseline writes the same line to 64 processes started
// by hand that wait in a read. The ratio is what the list of workers, JSON and
// the queue add to a write: 2 at most.
func BenchmarkEachWorkerSend(b *testing.B) {
	const workers, times = 64, 10
	clustertest.WithMaster(b, benchPeer, cluster.Options{})
	online := make(chan struct{}, workers)
	b.Cleanup(cluster.OnOnline(func(*cluster.Process) { online <- struct{}{} }))
	for range workers {
		_, err := cluster.Fork()
		require.NoError(b, err)
	}
	for range workers {
		clustertest.Await(b, online, "online")
	}
	write := baseWriteAll(b, workers)
	// Between two measurements the readers come to rest.
	measure := func(one func()) func() float64 {
		return func() float64 {
			var took []float64
			for range times {
				time.Sleep(5 * time.Millisecond)
				begun := time.Now()
				one()
				took = append(took, time.Since(begun).Seconds()*1e6)
			}
			return median(took)
		}
	}
	compare(b, "us", measure(func() {
		cluster.EachWorker(func(w *cluster.Process) {
			if err := w.Send(benchCount(0)); err != nil {
				b.Error(err)
			}
		})
	}), measure(write))
}

func benchNode(b *testing.B) string {
	node, err := exec.LookPath("node")
	if err != nil {
		b.Skip("no node here")
	}
	return node
}
