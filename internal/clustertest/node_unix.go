//go:build unix

package clustertest

// The tests' tools for real node processes: as workers of the test process, and
// as primaries whose workers are the test binary. Both run JavaScript that the
// tests send them; the scripts are in test/node/testdata.

import (
	"encoding/json"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/go-cluster/cluster"
	"github.com/stretchr/testify/require"
)

// NodeBinary returns the node to test with: the one that CLUSTER_TEST_NODE names, or the one in
// PATH. If there is none, the test is skipped, or fails if CI is set.
func NodeBinary(t testing.TB) string {
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

// NodeMajor returns the major version of the node to test with.
func NodeMajor(t testing.TB) int {
	t.Helper()
	out, err := exec.Command(NodeBinary(t), "-p", "process.versions.node").Output()
	require.NoError(t, err)
	major, _, _ := strings.Cut(string(out), ".")
	return Atoi(major)
}

// NodeScript returns the path of a script for node.
func NodeScript(t testing.TB, name string) string {
	t.Helper()
	return Path("test", "node", "testdata", name)
}

// JSOrder is code for node to run.
type JSOrder struct {
	ID   int    `json:"id"`
	Code string `json:"code"`
	Args any    `json:"args"`
}

// JSAnswer is the outcome of a JSOrder.
type JSAnswer struct {
	ID    int
	Value JSValue
	Error *JSError
}

// JSError is an Error of node.
type JSError struct {
	Message, Code, Syscall, Address string
	Errno, Port                     int
}

func (e *JSError) Error() string { return e.Message }

// JSValue is a value of node as JSON. The String of a string is its text without quotes.
type JSValue []byte

func (v *JSValue) UnmarshalJSON(b []byte) error {
	*v = append(JSValue(nil), b...)
	return nil
}

func (v JSValue) String() string {
	var s string
	if json.Unmarshal(v, &s) == nil {
		return s
	}
	return string(v)
}

// Decode stores the value as json.Unmarshal does.
func (v JSValue) Decode(t testing.TB, to any) {
	t.Helper()
	require.NoError(t, json.Unmarshal(v, to), "%s", []byte(v))
}

// answers takes the answers that orders wait for.
type answers struct {
	mu   sync.Mutex
	last int
	wait map[int]chan JSAnswer
}

func (a *answers) expect() (id int, c chan JSAnswer) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.wait == nil {
		a.wait = make(map[int]chan JSAnswer)
	}
	a.last++
	c = make(chan JSAnswer, 1)
	a.wait[a.last] = c
	return a.last, c
}

// take reports whether b is an answer.
func (a *answers) take(b []byte) bool {
	var r JSAnswer
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

// ---- node workers of the test process

// NodeCluster is the test process as the master of node workers. Its recorder
// has all events but the answers to orders.
type NodeCluster struct {
	*Recorder
	t       testing.TB
	answers answers
}

// NewNodeCluster makes the test process a master of node workers.
func NewNodeCluster(t testing.TB, o cluster.Options) *NodeCluster {
	t.Helper()
	c := &NodeCluster{Recorder: NewRecorder(), t: t}
	o.Exec, o.Args = NodeBinary(t), append([]string{NodeScript(t, "worker.js")}, o.Args...)
	WithMaster(t, "", o)
	t.Cleanup(cluster.OnFork(func(w *cluster.Process) { c.Add("fork %d %v", w.ID(), w.State()) }))
	t.Cleanup(cluster.OnOnline(func(w *cluster.Process) { c.Add("online %d", w.ID()) }))
	t.Cleanup(cluster.OnListening(func(w *cluster.Process, a net.Addr) { c.Add("listening %d %s %s", w.ID(), a.Network(), a) }))
	t.Cleanup(cluster.OnDisconnect(func(w *cluster.Process) {
		c.Add("disconnect %d %v %v", w.ID(), w.ExitedAfterDisconnect(), w.IsConnected())
	}))
	t.Cleanup(cluster.OnDeath(func(w *cluster.Process, e cluster.Exit) {
		c.Add("death %d %d %v %v %v", w.ID(), e.Code, e.Signal, e.Voluntary, w.IsDead())
	}))
	t.Cleanup(cluster.OnError(func(w *cluster.Process, err error) { c.Add("error %d %v", w.ID(), err) }))
	t.Cleanup(cluster.OnMessage(func(w *cluster.Process, m cluster.Message) {
		if !c.answers.take(m.Bytes()) {
			c.Add("message %d %s", w.ID(), m)
		}
	}))
	return c
}

// Fork starts a worker and waits until it is online.
func (c *NodeCluster) Fork(env ...string) *cluster.Process {
	c.t.Helper()
	w, err := cluster.Fork(env...)
	require.NoError(c.t, err)
	c.Find(c.t, "online "+strconv.Itoa(w.ID()))
	return w
}

// ForkN is Fork, n times.
func (c *NodeCluster) ForkN(n int) (workers []*cluster.Process) {
	c.t.Helper()
	for range n {
		workers = append(workers, c.Fork())
	}
	return workers
}

// Order makes w run code. The answer comes over the channel.
func (c *NodeCluster) Order(w *cluster.Process, code string, args ...any) <-chan JSAnswer {
	c.t.Helper()
	id, answer := c.answers.expect()
	require.NoError(c.t, w.Send(JSOrder{id, code, args}))
	return answer
}

// Try runs code in w.
func (c *NodeCluster) Try(w *cluster.Process, code string, args ...any) (JSValue, *JSError) {
	c.t.Helper()
	r := Await(c.t, c.Order(w, code, args...), "answer of worker "+strconv.Itoa(w.ID()))
	return r.Value, r.Error
}

// Run is Try for code that must not fail.
func (c *NodeCluster) Run(w *cluster.Process, code string, args ...any) JSValue {
	c.t.Helper()
	v, err := c.Try(w, code, args...)
	require.Nil(c.t, err, "%v", err)
	return v
}

// Web makes w serve HTTP on 127.0.0.1, on the given port or a free one, and returns the
// address.
func (c *NodeCluster) Web(w *cluster.Process, port ...int) string {
	c.t.Helper()
	return "127.0.0.1:" + c.Run(w, `
		const server = web();
		(state.servers ??= []).push(server);
		return (await listen(server, args[0] ?? 0, '127.0.0.1')).port`, anys(port)...).String()
}

// Death waits for the end of w.
func (c *NodeCluster) Death(w *cluster.Process) string {
	c.t.Helper()
	prefix := fmt.Sprintf("death %d ", w.ID())
	return strings.TrimPrefix(c.Find(c.t, prefix), prefix)
}

func anys[T any](list []T) (all []any) {
	for _, v := range list {
		all = append(all, v)
	}
	return all
}

// ---- node primaries of Go workers

// NodePrimary is a node process whose workers are the test binary as guests.
type NodePrimary struct {
	*Recorder
	P       *Proc
	t       testing.TB
	stdin   io.WriteCloser
	answers answers
}

// NewNodePrimary starts node as the primary of guests.
func NewNodePrimary(t testing.TB, env ...string) *NodePrimary {
	t.Helper()
	return StartPrimary(t, exec.Command(NodeBinary(t), NodeScript(t, "primary.js")), env...)
}

// StartPrimary is NewNodePrimary with a command of the caller's, which starts node.
func StartPrimary(t testing.TB, cmd *exec.Cmd, env ...string) *NodePrimary {
	t.Helper()
	stdin, err := cmd.StdinPipe()
	require.NoError(t, err)
	n := &NodePrimary{Recorder: NewRecorder(), P: StartCmd(t, cmd, "node primary", append(env, "GO_PROGRAM="+os.Args[0])...), t: t, stdin: stdin}
	go n.read()
	n.Find(t, "up")
	return n
}

func (n *NodePrimary) read() {
	for {
		select {
		case line := <-n.P.lines:
			n.take(line)
		case <-n.P.done: // all that it has printed has been read
			for len(n.P.lines) > 0 {
				n.take(<-n.P.lines)
			}
			return
		}
	}
}

// take takes a line: an answer or an event.
func (n *NodePrimary) take(line string) {
	if answer, ok := strings.CutPrefix(line, "@"); !ok || !n.answers.take([]byte(answer)) {
		n.Add("%s", line)
	}
}

// Order makes the primary run code. The answer comes over the channel.
func (n *NodePrimary) Order(code string, args ...any) <-chan JSAnswer {
	n.t.Helper()
	id, answer := n.answers.expect()
	require.NoError(n.t, json.NewEncoder(n.stdin).Encode(JSOrder{id, code, args}))
	return answer
}

func (n *NodePrimary) try(code string, args ...any) (JSValue, *JSError) {
	n.t.Helper()
	r := Await(n.t, n.Order(code, args...), "answer of the primary")
	return r.Value, r.Error
}

// Run makes the primary run code that must not fail.
func (n *NodePrimary) Run(code string, args ...any) JSValue {
	n.t.Helper()
	v, err := n.try(code, args...)
	require.Nil(n.t, err, "%v", err)
	return v
}

// Fork starts a guest, waits until it is online and returns its id.
func (n *NodePrimary) Fork(env ...any) (id int) {
	n.t.Helper()
	n.Run(`const w = fork(args[0]); await until(w, 'online'); return w.id`, env...).Decode(n.t, &id)
	return id
}

// Do makes guest w do something and returns its answer.
func (n *NodePrimary) Do(w int, what GuestOrder) (r GuestAnswer) {
	n.t.Helper()
	n.Run(`return await ask(workers[args[0]], args[1])`, w, what).Decode(n.t, &r)
	return r
}

// Tell is Do without the wait for the answer.
func (n *NodePrimary) Tell(w int, what GuestOrder) {
	n.t.Helper()
	n.Run(`ask(workers[args[0]], args[1])`, w, what)
}

// Listen makes guest w serve HTTP, and returns the address.
func (n *NodePrimary) Listen(w int, network, address string) string {
	n.t.Helper()
	r := n.Do(w, GuestOrder{Do: "listen", Network: network, Address: address})
	require.Empty(n.t, r.Err)
	return r.Addr
}

// Exit waits for the end of guest w.
func (n *NodePrimary) Exit(w int) string {
	n.t.Helper()
	prefix := fmt.Sprintf("exit %d ", w)
	return strings.TrimPrefix(n.Find(n.t, prefix), prefix)
}

// Disconnect waits until guest w has disconnected. Node may tell that before or after the exit:
// the channel and the process end independently.
func (n *NodePrimary) Disconnect(w int) string {
	n.t.Helper()
	prefix := fmt.Sprintf("disconnect %d ", w)
	flags := strings.TrimPrefix(n.Find(n.t, prefix), prefix)
	require.Equal(n.t, 1, n.Count(prefix))
	return flags
}

// End makes the primary disconnect all guests and exit. That must succeed, and nothing may be
// left.
func (n *NodePrimary) End() {
	n.t.Helper()
	n.Run(`await new Promise((resolve) => cluster.disconnect(resolve))`)
	n.stdin.Close()
	require.Equal(n.t, 0, n.P.Exit())
	n.P.GroupEmpty()
}

// ---- the Go worker that a node primary forks

// ---- clients
