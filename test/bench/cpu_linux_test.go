package bench_test

// CPU time for a connection, of a master and its workers together. On a machine that does
// other things as well it says more than a rate does.

import (
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/go-cluster/cluster"
	"github.com/go-cluster/cluster/internal/clustertest"
	"github.com/stretchr/testify/require"
)

// BenchmarkConnectionCPU is the CPU time of all processes of a server for a connection that
// is accepted, greeted with a byte and reset by the client, in microseconds, and that of a
// baseline: what one would write by hand for the same, another scheduling, or node.
func BenchmarkConnectionCPU(b *testing.B) {
	own := func(s cluster.Scheduling, n int) *server {
		return startServer(b, cpuCluster, fmt.Sprintf("SCHED=%d", s), fmt.Sprintf("WORKERS=%d", n))
	}
	for _, n := range []int{2, 8} {
		for name, base := range map[string]func() *server{
			"Reuseport": func() *server { return startServer(b, cpuReuse, fmt.Sprintf("WORKERS=%d", n)) },
			"Shared":    func() *server { return own(cluster.Shared, n) },
		} {
			b.Run(fmt.Sprintf("Sharded/%d%s", n, name), func(b *testing.B) { compareCPU(b, own(cluster.Sharded, n), base()) })
		}
	}
	b.Run("RoundRobin/HandOver", func(b *testing.B) { compareCPU(b, own(cluster.RoundRobin, 2), startServer(b, cpuHandOver)) })
	b.Run("RoundRobin/Node", func(b *testing.B) {
		node := benchNode(b)
		script, err := filepath.Abs("testdata/bench_connections.js")
		require.NoError(b, err)
		compareCPU(b, own(cluster.RoundRobin, 2), startServer(b, cpuNode, "NODE="+node, "SCRIPT="+script))
	})
}

func compareCPU(b *testing.B, figure, base *server) {
	compare(b, "us-cpu/conn", func() float64 { return figure.perConnection(b) }, func() float64 { return base.perConnection(b) })
}

// BenchmarkMessageCPU is the CPU time of both processes for a message of BenchmarkMessages, in
// nanoseconds, and that of the loop by hand.
func BenchmarkMessageCPU(b *testing.B) {
	for _, take := range []string{"Handle", "OnMessage"} {
		env := ""
		if take == "OnMessage" {
			env = "1"
		}
		b.Run("ToMaster/"+take, func(b *testing.B) {
			compare(b, "ns-cpu/msg", cpuOf(b, messagesPerRound, sendToMaster(b, env)), cpuOf(b, messagesPerRound, baseToParent(b)))
		})
		b.Run("ToWorker/"+take, func(b *testing.B) {
			compare(b, "ns-cpu/msg", cpuOf(b, messagesPerRound, sendToWorker(b, env)), cpuOf(b, messagesPerRound, baseToChild(b)))
		})
	}
}

// BenchmarkTripCPU is the CPU time of both processes for a Request and its answer, in
// nanoseconds, and that of the same exchange by hand, or of raw bytes.
func BenchmarkTripCPU(b *testing.B) {
	const trips = 3000
	for name, base := range map[string]func(*testing.B, int) func() float64{"ByHand": baseEcho, "Raw": basePingPong} {
		b.Run(name, func(b *testing.B) {
			compare(b, "ns-cpu/trip", cpuOf(b, trips, benchTrips(b, forkBench(b, benchPeer), trips)), cpuOf(b, trips, base(b, trips)))
		})
	}
}

// cpuOf returns how long this process and its children run for do, in nanoseconds for each
// of n.
func cpuOf(b *testing.B, n int, do func() float64) func() float64 {
	own := &server{pid: os.Getpid()}
	return func() float64 {
		before := own.cpu(b)
		do()
		return float64(own.cpu(b)-before) / float64(n)
	}
}

// server is a process with children that accept at an address.
type server struct {
	pid  int
	addr string
}

func startServer(b *testing.B, program string, env ...string) *server {
	b.Helper()
	p := clustertest.Start(b, program, env...)
	return &server{p.Cmd.Process.Pid, "127.0.0.1:" + strings.TrimSpace(p.Expect("port "))}
}

// perConnection lets clients connect for a round and returns the CPU time of all processes,
// in microseconds for each connection.
func (s *server) perConnection(b *testing.B) float64 {
	var n atomic.Int64
	before := s.cpu(b)
	rate(8, func(_ *atomic.Int64, end time.Time) error {
		buf := make([]byte, 1)
		for time.Now().Before(end) {
			c, err := net.Dial("tcp", s.addr)
			if err != nil {
				return err
			}
			if _, err := c.Read(buf); err != nil {
				return err
			}
			c.(*net.TCPConn).SetLinger(0)
			c.Close()
			n.Add(1)
		}
		return nil
	}, b)
	return float64(s.cpu(b)-before) / 1e3 / float64(n.Load())
}

// cpu is how many nanoseconds the process and its descendants have run.
func (s *server) cpu(b *testing.B) (ns int64) {
	children := make(map[int][]int)
	all, err := filepath.Glob("/proc/[0-9]*/stat")
	require.NoError(b, err)
	for _, path := range all {
		line, err := os.ReadFile(path)
		if err != nil {
			continue // it has ended
		}
		fields := strings.Fields(string(line[strings.LastIndexByte(string(line), ')')+1:]))
		pid, _ := strconv.Atoi(filepath.Base(filepath.Dir(path)))
		children[clustertest.Atoi(fields[1])] = append(children[clustertest.Atoi(fields[1])], pid)
	}
	for tree := []int{s.pid}; len(tree) > 0; tree = tree[1:] {
		tree = append(tree, children[tree[0]]...)
		tasks, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/schedstat", tree[0]))
		require.NoError(b, err)
		for _, path := range tasks {
			line, _ := os.ReadFile(path)
			ran, _, _ := strings.Cut(string(line), " ")
			n, _ := strconv.ParseInt(ran, 10, 64)
			ns += n
		}
	}
	return ns
}

// printPort prints the port of a server, on which all of its workers accept now.
func printPort(addr net.Addr) { fmt.Println("port", addr.(*net.TCPAddr).Port) }

// cpuCluster is a master with workers that greet.
var cpuCluster = clustertest.Program("cpu cluster", func() {
	if cluster.IsMaster() {
		n := clustertest.Atoi(os.Getenv("WORKERS"))
		clustertest.Must(cluster.SetupMaster(cluster.Options{Workers: n, Scheduling: cluster.Scheduling(clustertest.Atoi(os.Getenv("SCHED")))}))
		var ready atomic.Int32
		var addr atomic.Value
		cluster.OnListening(func(_ *cluster.Process, a net.Addr) { addr.Store(a) })
		cluster.OnReady(func(*cluster.Process) {
			if int(ready.Add(1)) == n {
				printPort(addr.Load().(net.Addr))
			}
		})
		clustertest.Must(cluster.Run(context.Background()))
		return
	}
	ln, err := cluster.Listen("tcp4", "127.0.0.1:0")
	clustertest.Must(err)
	greet(ln)
})

// startCopies starts n of the test binary as a program, each with the i-th file at 3.
func startCopies(program string, n int, file func(i int) *os.File) {
	for i := range n {
		c := exec.Command(os.Args[0])
		c.Env = append(os.Environ(), clustertest.ProgramEnv+"="+program, "GOMAXPROCS=1")
		c.Stderr, c.ExtraFiles = os.Stderr, []*os.File{file(i)}
		out, err := c.StdoutPipe()
		clustertest.Must(err)
		clustertest.Must(c.Start())
		_, err = io.ReadFull(out, make([]byte, 1))
		clustertest.Must(err)
	}
}

// cpuReuse starts processes with a socket of their own each, of one address.
var cpuReuse = clustertest.Program("cpu reuseport", func() {
	hold, err := reusePort.Listen(context.Background(), "tcp4", "127.0.0.1:0")
	clustertest.Must(err)
	startCopies(baseReuse, clustertest.Atoi(os.Getenv("WORKERS")), func(int) *os.File {
		r, w, err := os.Pipe()
		clustertest.Must(err)
		io.WriteString(w, hold.Addr().String())
		w.Close()
		return r
	})
	addr := hold.Addr()
	clustertest.Must(hold.Close())
	printPort(addr)
	select {}
})

// cpuHandOver is RoundRobin as one writes it by hand: a process accepts, and sends each
// connection over a socketpair to the next worker that is free. A worker is free when it
// has answered with a byte for the last one.
var cpuHandOver = clustertest.Program("cpu hand over", func() {
	ln, err := net.Listen("tcp4", "127.0.0.1:0")
	clustertest.Must(err)
	free := make(chan *net.UnixConn, 2)
	startCopies(handTaker, 2, func(int) *os.File {
		ends, err := syscall.Socketpair(syscall.AF_UNIX, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
		clustertest.Must(err)
		ours := os.NewFile(uintptr(ends[0]), "channel")
		c, err := net.FileConn(ours)
		clustertest.Must(err)
		ours.Close()
		free <- c.(*net.UnixConn)
		return os.NewFile(uintptr(ends[1]), "channel")
	})
	printPort(ln.Addr())
	for {
		c, err := ln.Accept()
		clustertest.Must(err)
		to := <-free
		rc, err := c.(*net.TCPConn).SyscallConn()
		clustertest.Must(err)
		clustertest.Must(rc.Control(func(fd uintptr) { _, _, err = to.WriteMsgUnix([]byte("c"), syscall.UnixRights(int(fd)), nil) }))
		clustertest.Must(err)
		go func() {
			_, err := to.Read(make([]byte, 1))
			clustertest.Must(err)
			c.Close()
			free <- to
		}()
	}
})

// handTaker is a worker of that.
var handTaker = clustertest.Program("hand taker", func() {
	file := os.NewFile(3, "channel")
	conn, err := net.FileConn(file)
	clustertest.Must(err)
	file.Close()
	channel := conn.(*net.UnixConn)
	os.Stdout.WriteString("!")
	b, oob := make([]byte, 1), make([]byte, 64)
	for {
		_, n, _, _, err := channel.ReadMsgUnix(b, oob)
		if err != nil {
			return // the master is gone
		}
		control, err := syscall.ParseSocketControlMessage(oob[:n])
		clustertest.Must(err)
		fds, err := syscall.ParseUnixRights(&control[0])
		clustertest.Must(err)
		f := os.NewFile(uintptr(fds[0]), "connection")
		c, err := net.FileConn(f)
		f.Close()
		if _, writeErr := channel.Write([]byte("t")); writeErr != nil {
			return
		}
		if err != nil {
			continue // the client has reset it
		}
		go func() {
			c.Write([]byte("!"))
			c.Read(make([]byte, 16))
			c.Close()
		}()
	}
})

// cpuNode is a node primary with two workers.
var cpuNode = clustertest.Program("cpu node", func() {
	c := exec.Command(os.Getenv("NODE"), os.Getenv("SCRIPT"))
	c.Stderr = os.Stderr
	out, err := c.StdoutPipe()
	clustertest.Must(err)
	clustertest.Must(c.Start())
	port := make([]byte, 16)
	n, err := out.Read(port)
	clustertest.Must(err)
	fmt.Println("port", strings.TrimSpace(string(port[:n])))
	select {}
})
