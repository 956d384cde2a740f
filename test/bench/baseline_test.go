//go:build unix

package bench_test

// What the benchmarks compare with: programs as one would write them without
// this package, and node.

import (
	"bufio"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/go-cluster/cluster/internal/clustertest"
	"github.com/stretchr/testify/require"
)

// baseProcess prepares the test binary as a program with files from descriptor
// 3 on, and as many cores as a worker has by default. Its output comes on out.
func baseProcess(b *testing.B, program string, files ...*os.File) (c *exec.Cmd, out *os.File) {
	b.Helper()
	out, w, err := os.Pipe()
	require.NoError(b, err)
	c = exec.Command(os.Args[0])
	c.Env = append(os.Environ(), clustertest.ProgramEnv+"="+program, "GOMAXPROCS=1")
	c.Stdout, c.Stderr, c.ExtraFiles = w, os.Stderr, files
	return c, out
}

// startBase starts such a program, which runs until the end of the benchmark.
func startBase(b *testing.B, program string, files ...*os.File) (out *os.File) {
	b.Helper()
	c, out := baseProcess(b, program, files...)
	require.NoError(b, c.Start())
	c.Stdout.(*os.File).Close()
	b.Cleanup(func() {
		c.Process.Kill()
		c.Wait()
		out.Close()
	})
	return out
}

// basePeer starts a program with one end of a socketpair at descriptor 3 and
// returns the other.
func basePeer(b *testing.B, program string) *os.File {
	b.Helper()
	fds, err := syscall.Socketpair(syscall.AF_UNIX, syscall.SOCK_STREAM, 0)
	require.NoError(b, err)
	syscall.CloseOnExec(fds[0])
	syscall.CloseOnExec(fds[1])
	theirs := os.NewFile(uintptr(fds[1]), "peer")
	startBase(b, program, theirs)
	theirs.Close()
	ours := pollable(fds[0])
	b.Cleanup(func() { ours.Close() })
	return ours
}

// pollable makes a file on the runtime's poller.
func pollable(fd int) *os.File {
	syscall.SetNonblock(fd, true)
	return os.NewFile(uintptr(fd), "peer")
}

// ---- messages

// benchLines is the loop that one would write by hand, in both directions.
type benchLines struct {
	r   *bufio.Reader
	w   *bufio.Writer
	enc *json.Encoder
}

func newBenchLines(f *os.File) *benchLines {
	l := &benchLines{r: bufio.NewReader(f), w: bufio.NewWriter(f)}
	l.enc = json.NewEncoder(l.w)
	return l
}

func (l *benchLines) send(c count) error { return l.enc.Encode(c) }

func (l *benchLines) receive() (c count, err error) {
	line, err := l.r.ReadSlice('\n')
	if err != nil {
		return c, err
	}
	return c, json.Unmarshal(line, &c)
}

func (l *benchLines) sendAll(n int) error {
	for i := range n {
		if err := l.send(benchCount(i)); err != nil {
			return err
		}
	}
	return l.w.Flush()
}

// baseLines does what benchPeer does.
var baseLines = clustertest.Program("base lines", func() {
	l := newBenchLines(pollable(3))
	last := 0
	for {
		c, err := l.receive()
		if err == io.EOF {
			return
		}
		clustertest.Must(err)
		switch {
		case c.Cmd == "send":
			clustertest.Must(l.sendAll(c.N))
		case c.Cmd == "last":
			last = c.N
		case c.N == last:
			clustertest.Must(l.send(count{"done", 0}))
			clustertest.Must(l.w.Flush())
		}
	}
})

func baseToParent(b *testing.B) func() float64 {
	l := newBenchLines(basePeer(b, baseLines))
	return func() float64 {
		return perSecond(messagesPerRound, func() {
			require.NoError(b, l.send(count{"send", messagesPerRound}))
			require.NoError(b, l.w.Flush())
			for range messagesPerRound {
				if _, err := l.receive(); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func baseToChild(b *testing.B) func() float64 {
	l := newBenchLines(basePeer(b, baseLines))
	require.NoError(b, l.send(count{"last", benchCount(messagesPerRound - 1).N}))
	return func() float64 {
		return perSecond(messagesPerRound, func() {
			require.NoError(b, l.sendAll(messagesPerRound))
			_, err := l.receive()
			require.NoError(b, err)
		})
	}
}

// ping and pong are a request and its reply as they go over the wire.
const (
	ping = `{"cmd":"NODE_GO_CLUSTER","act":"request","id":1000,"msg":{"cmd":"count","n":1000000000}}` + "\n"
	pong = `{"cmd":"NODE_GO_CLUSTER","act":"reply","id":1000,"msg":{"cmd":"count","n":1000000000}}` + "\n"
)

var basePong = clustertest.Program("base pong", func() {
	f := pollable(3)
	buf := make([]byte, len(ping))
	for {
		if _, err := io.ReadFull(f, buf); err != nil {
			return
		}
		_, err := f.WriteString(pong)
		clustertest.Must(err)
	}
})

func basePingPong(b *testing.B, trips int) func() float64 {
	f := basePeer(b, basePong)
	buf := make([]byte, len(pong))
	return func() float64 {
		begun := time.Now()
		for range trips {
			if _, err := f.WriteString(ping); err != nil {
				b.Fatal(err)
			}
			if _, err := io.ReadFull(f, buf); err != nil {
				b.Fatal(err)
			}
		}
		return time.Since(begun).Seconds() * 1e6 / float64(trips)
	}
}

// baseEchoes answers each message with itself.
var baseEchoes = clustertest.Program("base echoes", func() {
	l := newBenchLines(pollable(3))
	for {
		c, err := l.receive()
		if err == io.EOF {
			return
		}
		clustertest.Must(err)
		clustertest.Must(l.send(c))
		clustertest.Must(l.w.Flush())
	}
})

func baseEcho(b *testing.B, trips int) func() float64 {
	l := newBenchLines(basePeer(b, baseEchoes))
	return benchEach(trips, func(i int) {
		require.NoError(b, l.send(benchCount(i)))
		require.NoError(b, l.w.Flush())
		if c, err := l.receive(); err != nil || c != benchCount(i) {
			b.Fatal(c, err)
		}
	})
}

var baseReader = clustertest.Program("base reader", func() {
	f := pollable(3)
	buf := make([]byte, 4096)
	for {
		if _, err := f.Read(buf); err != nil {
			return
		}
	}
})

// baseWriteAll returns a func that writes the benchmarks' message to n
// processes.
func baseWriteAll(b *testing.B, n int) func() {
	line, err := json.Marshal(benchCount(0))
	require.NoError(b, err)
	line = append(line, '\n')
	var files []*os.File
	for range n {
		files = append(files, basePeer(b, baseReader))
	}
	return func() {
		for _, f := range files {
			if _, err := f.Write(line); err != nil {
				b.Fatal(err)
			}
		}
	}
}

// ---- listeners

var baseHTTP = clustertest.Program("base http", func() {
	ln, err := net.FileListener(os.NewFile(3, "listener"))
	clustertest.Must(err)
	os.Stdout.WriteString("!")
	clustertest.Must(http.Serve(ln, benchHandler))
})

var baseAccept = clustertest.Program("base accept", func() {
	ln, err := net.FileListener(os.NewFile(3, "listener"))
	clustertest.Must(err)
	os.Stdout.WriteString("!")
	greet(ln)
})

// basePair starts two processes on one listener and returns its address.
func basePair(b *testing.B, program string) string {
	b.Helper()
	ln, err := net.Listen("tcp4", "127.0.0.1:0")
	require.NoError(b, err)
	defer ln.Close()
	f, err := ln.(*net.TCPListener).File()
	require.NoError(b, err)
	defer f.Close()
	for range 2 {
		out := startBase(b, program, f)
		_, err := io.ReadFull(out, make([]byte, 1))
		require.NoError(b, err)
	}
	return ln.Addr().String()
}

// ---- node

type nodeProcess struct {
	b   *testing.B
	in  io.Writer
	out *bufio.Reader
}

// startNode runs a script of testdata until the end of the benchmark.
func startNode(b *testing.B, script string) *nodeProcess {
	b.Helper()
	c := exec.Command(benchNode(b), filepath.Join("testdata", script))
	c.Stderr = os.Stderr
	in, err := c.StdinPipe()
	require.NoError(b, err)
	out, err := c.StdoutPipe()
	require.NoError(b, err)
	require.NoError(b, c.Start())
	b.Cleanup(func() {
		in.Close() // its workers end with it
		c.Process.Kill()
		c.Wait()
	})
	return &nodeProcess{b, in, bufio.NewReader(out)}
}

func (n *nodeProcess) line() string {
	n.b.Helper()
	line, err := n.out.ReadString('\n')
	require.NoError(n.b, err)
	return strings.TrimSpace(line)
}
