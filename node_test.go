//go:build unix

package cluster_test

// The tests' tools for real node processes: as workers of the test process, and
// as primaries whose workers are the test binary. Both run JavaScript that the
// tests send them; the scripts are in test/node/testdata.

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/go-cluster/cluster"
	"github.com/stretchr/testify/require"
)

// nodeBinary returns the node to test with: what CLUSTER_TEST_NODE names, or
// the one in PATH. Without one the test is skipped, but not where CI is set.
func nodeBinary(t testing.TB) string {
	t.Helper()
	name, given := os.LookupEnv("CLUSTER_TEST_NODE")
	if !given {
		name = "node"
	}
	path, err := exec.LookPath(name)
	if err == nil {
		path, err = filepath.Abs(path)
	}
	switch {
	case err == nil:
		return path
	case given || os.Getenv("CI") != "":
		t.Fatalf("node is needed: %v", err)
	}
	t.Skipf("no node to test with: %v (set CLUSTER_TEST_NODE to its path)", err)
	return ""
}

func nodeScript(t testing.TB, name string) string {
	t.Helper()
	return inModule("test", "node", "testdata", name)
}

// jsOrder is code to run, and jsAnswer what came of it.
type jsOrder struct {
	ID   int    `json:"id"`
	Code string `json:"code"`
	Args any    `json:"args"`
}

type jsAnswer struct {
	ID    int
	Value jsValue
	Error *jsError
}

// jsError is an Error of node.
type jsError struct {
	Message, Code, Syscall, Address string
	Errno, Port                     int
}

func (e *jsError) Error() string { return e.Message }

// jsValue is a value of node as JSON; its String is a string's own text.
type jsValue []byte

func (v *jsValue) UnmarshalJSON(b []byte) error {
	*v = append(jsValue(nil), b...)
	return nil
}

func (v jsValue) String() string {
	var s string
	if json.Unmarshal(v, &s) == nil {
		return s
	}
	return string(v)
}

func (v jsValue) decode(t testing.TB, to any) {
	t.Helper()
	require.NoError(t, json.Unmarshal(v, to), "%s", []byte(v))
}

// answers are what orders wait for.
type answers struct {
	mu   sync.Mutex
	last int
	wait map[int]chan jsAnswer
}

func (a *answers) expect() (id int, c chan jsAnswer) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.wait == nil {
		a.wait = make(map[int]chan jsAnswer)
	}
	a.last++
	c = make(chan jsAnswer, 1)
	a.wait[a.last] = c
	return a.last, c
}

// take reports whether b is an answer.
func (a *answers) take(b []byte) bool {
	var r jsAnswer
	if json.Unmarshal(b, &r) != nil || r.ID == 0 {
		return false
	}
	a.mu.Lock()
	c := a.wait[r.ID]
	delete(a.wait, r.ID)
	a.mu.Unlock()
	if c != nil {
		c <- r
	}
	return c != nil
}

// find waits for a line that has the prefix, unless it has come already.
func (r *recorder) find(t testing.TB, prefix string) string {
	t.Helper()
	for {
		for _, line := range r.all() {
			if strings.HasPrefix(line, prefix) {
				return line
			}
		}
		await(t, r.ch, "line "+prefix)
	}
}

// count returns how many lines have the prefix.
func (r *recorder) count(prefix string) (n int) {
	for _, line := range r.all() {
		if strings.HasPrefix(line, prefix) {
			n++
		}
	}
	return n
}

// ---- node workers of the test process

// nodeCluster is the test process as the master of node workers. Its recorder
// has all events but the answers to orders.
type nodeCluster struct {
	*recorder
	t       testing.TB
	answers answers
}

func newNodeCluster(t testing.TB, o cluster.Options) *nodeCluster {
	t.Helper()
	c := &nodeCluster{recorder: newRecorder(), t: t}
	o.Exec, o.Args = nodeBinary(t), append([]string{nodeScript(t, "worker.js")}, o.Args...)
	withMaster(t, "", o)
	t.Cleanup(cluster.OnFork(func(w *cluster.Process) { c.add("fork %d %v", w.ID(), w.State()) }))
	t.Cleanup(cluster.OnOnline(func(w *cluster.Process) { c.add("online %d", w.ID()) }))
	t.Cleanup(cluster.OnListening(func(w *cluster.Process, a net.Addr) { c.add("listening %d %s %s", w.ID(), a.Network(), a) }))
	t.Cleanup(cluster.OnDisconnect(func(w *cluster.Process) {
		c.add("disconnect %d %v %v", w.ID(), w.ExitedAfterDisconnect(), w.IsConnected())
	}))
	t.Cleanup(cluster.OnDeath(func(w *cluster.Process, e cluster.Exit) {
		c.add("death %d %d %v %v %v", w.ID(), e.Code, e.Signal, e.Voluntary, w.IsDead())
	}))
	t.Cleanup(cluster.OnError(func(w *cluster.Process, err error) { c.add("error %d %v", w.ID(), err) }))
	t.Cleanup(cluster.OnMessage(func(w *cluster.Process, m cluster.Message) {
		if !c.answers.take(m.Bytes()) {
			c.add("message %d %s", w.ID(), m)
		}
	}))
	return c
}

// fork starts a worker and waits until it is online.
func (c *nodeCluster) fork(env ...string) *cluster.Process {
	c.t.Helper()
	w, err := cluster.Fork(env...)
	require.NoError(c.t, err)
	c.find(c.t, "online "+strconv.Itoa(w.ID()))
	return w
}

func (c *nodeCluster) forkN(n int) (workers []*cluster.Process) {
	c.t.Helper()
	for range n {
		workers = append(workers, c.fork())
	}
	return workers
}

// order lets w run code and returns what will have the answer.
func (c *nodeCluster) order(w *cluster.Process, code string, args ...any) <-chan jsAnswer {
	c.t.Helper()
	id, answer := c.answers.expect()
	require.NoError(c.t, w.Send(jsOrder{id, code, args}))
	return answer
}

// try runs code in w.
func (c *nodeCluster) try(w *cluster.Process, code string, args ...any) (jsValue, *jsError) {
	c.t.Helper()
	r := await(c.t, c.order(w, code, args...), "answer of worker "+strconv.Itoa(w.ID()))
	return r.Value, r.Error
}

// run is try for code that must not fail.
func (c *nodeCluster) run(w *cluster.Process, code string, args ...any) jsValue {
	c.t.Helper()
	v, err := c.try(w, code, args...)
	require.Nil(c.t, err, "%v", err)
	return v
}

// web lets w serve HTTP on a free port, or on the one given, of 127.0.0.1, and
// returns the address.
func (c *nodeCluster) web(w *cluster.Process, port ...int) string {
	c.t.Helper()
	return "127.0.0.1:" + c.run(w, `
		const server = web();
		(state.servers ??= []).push(server);
		return (await listen(server, args[0] ?? 0, '127.0.0.1')).port`, anys(port)...).String()
}

// death waits for the end of w.
func (c *nodeCluster) death(w *cluster.Process) string {
	c.t.Helper()
	prefix := fmt.Sprintf("death %d ", w.ID())
	return strings.TrimPrefix(c.find(c.t, prefix), prefix)
}

func anys[T any](list []T) (all []any) {
	for _, v := range list {
		all = append(all, v)
	}
	return all
}

// schedulings runs a test under both.
func schedulings(t *testing.T, test func(t *testing.T, s cluster.Scheduling)) {
	for _, s := range []cluster.Scheduling{cluster.Shared, cluster.RoundRobin} {
		t.Run(s.String(), func(t *testing.T) { test(t, s) })
	}
}

// ---- node primaries of Go workers

// nodePrimary is a node process whose workers are the test binary as guests.
type nodePrimary struct {
	*recorder
	p       *proc
	t       testing.TB
	stdin   io.WriteCloser
	answers answers
}

func newNodePrimary(t testing.TB, env ...string) *nodePrimary {
	t.Helper()
	return startPrimary(t, exec.Command(nodeBinary(t), nodeScript(t, "primary.js")), env...)
}

func startPrimary(t testing.TB, cmd *exec.Cmd, env ...string) *nodePrimary {
	t.Helper()
	stdin, err := cmd.StdinPipe()
	require.NoError(t, err)
	n := &nodePrimary{recorder: newRecorder(), p: startCmd(t, cmd, "node primary", append(env, "GO_PROGRAM="+os.Args[0])...), t: t, stdin: stdin}
	go n.read()
	n.find(t, "up")
	return n
}

func (n *nodePrimary) read() {
	for {
		select {
		case line := <-n.p.lines:
			if answer, ok := strings.CutPrefix(line, "@"); !ok || !n.answers.take([]byte(answer)) {
				n.add("%s", line)
			}
		case <-n.p.done:
			return
		}
	}
}

func (n *nodePrimary) order(code string, args ...any) <-chan jsAnswer {
	n.t.Helper()
	id, answer := n.answers.expect()
	require.NoError(n.t, json.NewEncoder(n.stdin).Encode(jsOrder{id, code, args}))
	return answer
}

func (n *nodePrimary) try(code string, args ...any) (jsValue, *jsError) {
	n.t.Helper()
	r := await(n.t, n.order(code, args...), "answer of the primary")
	return r.Value, r.Error
}

func (n *nodePrimary) run(code string, args ...any) jsValue {
	n.t.Helper()
	v, err := n.try(code, args...)
	require.Nil(n.t, err, "%v", err)
	return v
}

// fork starts a guest, waits until it is online and returns its id.
func (n *nodePrimary) fork(env ...any) (id int) {
	n.t.Helper()
	n.run(`const w = fork(args[0]); await until(w, 'online'); return w.id`, env...).decode(n.t, &id)
	return id
}

// do lets guest w do something and returns its answer.
func (n *nodePrimary) do(w int, what guestOrder) (r guestAnswer) {
	n.t.Helper()
	n.run(`return await ask(workers[args[0]], args[1])`, w, what).decode(n.t, &r)
	return r
}

// tell is do without the wait.
func (n *nodePrimary) tell(w int, what guestOrder) {
	n.t.Helper()
	n.run(`ask(workers[args[0]], args[1])`, w, what)
}

// listen lets guest w serve HTTP, and returns the address.
func (n *nodePrimary) listen(w int, network, address string) string {
	n.t.Helper()
	r := n.do(w, guestOrder{Do: "listen", Network: network, Address: address})
	require.Empty(n.t, r.Err)
	return r.Addr
}

// exit waits for the end of guest w.
func (n *nodePrimary) exit(w int) string {
	n.t.Helper()
	prefix := fmt.Sprintf("exit %d ", w)
	return strings.TrimPrefix(n.find(n.t, prefix), prefix)
}

// disconnect waits until guest w has disconnected, which node tells before the exit
// or after it: the channel and the process end apart.
func (n *nodePrimary) disconnect(w int) string {
	n.t.Helper()
	prefix := fmt.Sprintf("disconnect %d ", w)
	flags := strings.TrimPrefix(n.find(n.t, prefix), prefix)
	require.Equal(n.t, 1, n.count(prefix))
	return flags
}

// end lets the primary disconnect all and exit: it must succeed, and nothing be left.
func (n *nodePrimary) end() {
	n.t.Helper()
	n.run(`await new Promise((resolve) => cluster.disconnect(resolve))`)
	n.stdin.Close()
	require.Equal(n.t, 0, n.p.exit())
	n.p.groupEmpty()
}

// policies runs a test under both of node's, each with a primary of its own.
func policies(t *testing.T, test func(t *testing.T, n *nodePrimary), env ...string) {
	t.Parallel()
	for name, policy := range map[string]string{"None": "none", "RoundRobin": "rr"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			n := newNodePrimary(t, append(env, "NODE_CLUSTER_SCHED_POLICY="+policy)...)
			test(t, n)
			n.end()
		})
	}
}

// ---- the Go worker that a node primary forks

// guestOrder is what a guest is to do.
type guestOrder struct {
	ID      int    `json:"id"`
	Do      string `json:"do"`
	Network string `json:"network,omitempty"`
	Address string `json:"address,omitempty"`
	N       int    `json:"n,omitempty"`
	Text    string `json:"text,omitempty"`

	Config cluster.ListenConfig `json:"config"`
}

// guestAnswer is what came of it.
type guestAnswer struct {
	N                   int // the number of a socket
	Addr, Text, Err     string
	InUse, Denied, Gone bool // what errors.Is says of Err
}

func guestError(err error) guestAnswer {
	if err == nil {
		return guestAnswer{}
	}
	return guestAnswer{
		Err: err.Error(), InUse: errors.Is(err, syscall.EADDRINUSE),
		Denied: errors.Is(err, syscall.EACCES), Gone: errors.Is(err, cluster.ErrClosed),
	}
}

// guest does what a node primary tells it. Its web server tells who answers;
// /slow reports that it has begun and ends after "release".
var guest = program("guest", func() {
	g := &guestState{released: make(chan struct{}, 100)}
	http.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) { fmt.Fprintf(w, "go %d", cluster.Worker.ID()) })
	http.HandleFunc("/slow", func(w http.ResponseWriter, r *http.Request) {
		die(cluster.Worker.Send(map[string]string{"event": "slow"}))
		<-g.released
		fmt.Fprintf(w, "go %d", cluster.Worker.ID())
	})
	cluster.OnError(func(_ *cluster.Process, err error) {
		cluster.Worker.Send(map[string]string{"error": err.Error()})
	})
	cluster.Handle("do", func(_ *cluster.Process, o guestOrder) {
		go func() {
			answer := g.do(o)
			cluster.Worker.Send(map[string]any{"re": o.ID, "value": answer})
		}()
	})
	<-cluster.Context().Done()
	select {}
})

type guestState struct {
	released chan struct{}
	mu       sync.Mutex
	sockets  []io.Closer
}

func (g *guestState) keep(s io.Closer, addr net.Addr) guestAnswer {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.sockets = append(g.sockets, s)
	return guestAnswer{N: len(g.sockets) - 1, Addr: addr.String()}
}

func (g *guestState) do(o guestOrder) guestAnswer {
	switch o.Do {
	case "listen":
		return g.listen(o)
	case "packet":
		return g.packet(o)
	case "close":
		g.mu.Lock()
		s := g.sockets[o.N]
		g.mu.Unlock()
		return guestError(s.Close())
	case "release":
		g.released <- struct{}{}
	case "disconnect":
		return guestError(cluster.Worker.Disconnect(context.Background()))
	case "disconnected":
		cluster.OnDisconnect(func(*cluster.Process) { os.Exit(o.N) })
	case "kill":
		return guestError(cluster.Worker.Kill())
	case "exit":
		os.Exit(o.N)
	case "panic":
		panic(o.Text)
	case "spin":
		//lint:ignore SA5002 it is to hang
		for {
		}
	case "env":
		return guestAnswer{Text: os.Getenv(o.Text)}
	case "args":
		return guestAnswer{Text: strings.Join(os.Args[1:], " ")}
	case "dir":
		dir, err := os.Getwd()
		die(err)
		return guestAnswer{Text: dir}
	case "write":
		_, err := io.WriteString(os.NewFile(uintptr(o.N), "extra"), o.Text)
		return guestError(err)
	case "echo":
		echo := func(how string) func(*cluster.Process, cluster.Message) {
			return func(_ *cluster.Process, m cluster.Message) {
				if m.Cmd() != "do" {
					cluster.Worker.Send(map[string]any{how: m})
				}
			}
		}
		cluster.OnMessage(echo("cluster"))
		cluster.Worker.OnMessage(echo("worker"))
	case "send":
		return guestError(cluster.Worker.Send(o.Text))
	case "request":
		return guestError(cluster.Worker.Request(context.Background(), o.Text, nil))
	case "descriptors":
		return guestAnswer{N: census().fds}
	default:
		return guestAnswer{Err: "unknown order " + o.Do}
	}
	return guestAnswer{}
}

// listen serves HTTP. If N is given it waits for the primary's answer that many
// milliseconds.
func (g *guestState) listen(o guestOrder) guestAnswer {
	ctx := context.Background()
	if o.N > 0 {
		brief, cancel := context.WithTimeout(ctx, time.Duration(o.N)*time.Millisecond)
		defer cancel()
		ctx = brief
	}
	ln, err := o.Config.Listen(ctx, o.Network, o.Address)
	if err != nil {
		return guestError(err)
	}
	go func() {
		cluster.Serve(ln, &http.Server{})
		if cluster.Context().Err() != nil {
			os.Exit(0) // drained: nothing is left to wait for
		}
	}()
	return g.keep(ln, ln.Addr())
}

// packet opens a datagram socket that answers with who got it.
func (g *guestState) packet(o guestOrder) guestAnswer {
	c, err := o.Config.ListenPacket(context.Background(), o.Network, o.Address)
	if err != nil {
		return guestError(err)
	}
	go func() {
		b := make([]byte, 1500)
		for {
			_, from, err := c.ReadFrom(b)
			if err != nil {
				return
			}
			fmt.Fprintf(packetWriter{c, from}, "go %d", cluster.Worker.ID())
		}
	}()
	return g.keep(c, c.LocalAddr())
}

type packetWriter struct {
	c  net.PacketConn
	to net.Addr
}

func (w packetWriter) Write(p []byte) (int, error) { return w.c.WriteTo(p, w.to) }

// ---- clients

// getUnix is get over a unix socket.
func getUnix(path, url string) (string, error) {
	tr := &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", path)
	}}
	c := &http.Client{Transport: tr, Timeout: patience}
	resp, err := c.Get(url)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	return string(b), err
}

// getting fetches url on a goroutine of its own.
func getting(url string) <-chan string {
	c := make(chan string, 1)
	go func() {
		body, err := get(url)
		if err != nil {
			body = "error: " + err.Error()
		}
		c <- body
	}()
	return c
}

// askPacket sends a datagram from a socket of its own and returns the answer.
func askPacket(t testing.TB, network, address string) string {
	t.Helper()
	c, err := net.Dial(network, address)
	require.NoError(t, err)
	defer c.Close()
	c.SetDeadline(time.Now().Add(patience))
	_, err = c.Write([]byte("who"))
	require.NoError(t, err)
	b := make([]byte, 1500)
	n, err := c.Read(b)
	require.NoError(t, err)
	return string(b[:n])
}

// closed reports, when the peer has closed c, whether that was all it did.
func closed(t testing.TB, c net.Conn) bool {
	t.Helper()
	c.SetReadDeadline(time.Now().Add(patience))
	n, err := c.Read(make([]byte, 1))
	return n == 0 && (errors.Is(err, io.EOF) || errors.Is(err, syscall.ECONNRESET))
}
