//go:build unix

package node_test

// Peers that speak node's protocol badly.

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/go-cluster/cluster"
	"github.com/go-cluster/cluster/internal/clustertest"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// rawPeer is one end of a channel, without the package's help.
type rawPeer struct {
	c   *net.UnixConn
	in  []byte
	fds []int
}

func newRawPeer(fd int) *rawPeer {
	f := os.NewFile(uintptr(fd), "raw peer")
	defer f.Close()
	c, err := net.FileConn(f)
	clustertest.Must(err)
	return &rawPeer{c: c.(*net.UnixConn)}
}

// send writes text in one message, with the descriptors.
func (p *rawPeer) send(text string, fds ...int) {
	_, _, err := p.c.WriteMsgUnix([]byte(text), unix.UnixRights(fds...), nil)
	clustertest.Must(err)
}

// line returns the next line, without a look at the descriptors. It is empty at
// the end of the channel.
func (p *rawPeer) line() string {
	for {
		if l, rest, ok := bytes.Cut(p.in, []byte("\n")); ok {
			p.in = rest
			return string(l)
		}
		b, oob := make([]byte, 64<<10), make([]byte, unix.CmsgSpace(64*4))
		n, oobn, _, _, err := p.c.ReadMsgUnix(b, oob)
		if err != nil || n == 0 {
			return ""
		}
		p.in = append(p.in, b[:n]...)
		messages, err := unix.ParseSocketControlMessage(oob[:oobn])
		clustertest.Must(err)
		for i := range messages {
			fds, err := unix.ParseUnixRights(&messages[i])
			clustertest.Must(err)
			p.fds = append(p.fds, fds...)
		}
	}
}

// until returns the next line that contains text.
func (p *rawPeer) until(text string) string {
	for {
		if l := p.line(); l == "" || strings.Contains(l, text) {
			return l
		}
	}
}

// socketPair returns the ends of a new channel.
func socketPair() (ours, theirs int) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM, 0)
	clustertest.Must(err)
	unix.CloseOnExec(fds[0])
	unix.CloseOnExec(fds[1])
	return fds[0], fds[1]
}

func nodeHandle(message string) string {
	return `{"cmd":"NODE_HANDLE","type":"net.Socket","msg":` + message + "}\n"
}

const queryFree = `{"cmd":"NODE_CLUSTER","act":"queryServer","index":0,"data":null,"address":"127.0.0.1","port":%d,"addressType":4,"flags":0,"backlog":0,"seq":%d}` + "\n"

// forkRaw forks a worker that runs the program as a process outside the cluster
// which has the channel at descriptor 3.
func forkRaw(t testing.TB, programName string, env ...string) *cluster.Process {
	t.Helper()
	o := cluster.Settings()
	node := o
	o.Exec, o.Args = "/bin/sh", []string{"-c", `unset NODE_WORKER_ID NODE_UNIQUE_ID NODE_CHANNEL_FD; exec "$0"`, os.Args[0]}
	require.NoError(t, cluster.SetupMaster(o))
	w, err := cluster.Fork(append(env, clustertest.ProgramEnv+"="+programName)...)
	require.NoError(t, err)
	require.NoError(t, cluster.SetupMaster(node))
	return w
}

// rawSilent listens like node, takes what it is sent, and answers nothing.
var rawSilent = clustertest.Program("raw-silent", func() {
	p := newRawPeer(3)
	p.send(`{"cmd":"NODE_CLUSTER","act":"online","seq":0}` + "\n")
	p.send(fmt.Sprintf(queryFree, clustertest.Atoi(os.Getenv("PORT")), 1))
	p.until(`"ack":1`)
	p.send(`{"listening":true}` + "\n")
	p.until(`"newconn"`)
	p.send(`{"got":"newconn"}` + "\n")
	p.until(`"go on"`)
	p.send(`{"got":"message"}` + "\n")
	p.until(`"exit"`)
})

// TestNodePeerWithoutAck: a worker that acknowledges no handle gets one
// connection and no more; messages still reach it; with its end the connection
// goes to another worker.
func TestNodePeerWithoutAck(t *testing.T) {
	c := clustertest.NewNodeCluster(t, cluster.Options{Scheduling: cluster.RoundRobin})
	port := clustertest.FreePort(t)
	raw := forkRaw(t, rawSilent, "PORT="+strconv.Itoa(port))
	c.Find(t, fmt.Sprintf(`message %d {"listening"`, raw.ID()))
	held := getLater("http://127.0.0.1:" + strconv.Itoa(port))
	c.Find(t, fmt.Sprintf(`message %d {"got":"newconn"`, raw.ID()))
	w := c.Fork()
	c.Web(w, port)
	for range 5 {
		requireServedBy(t, "127.0.0.1:"+strconv.Itoa(port), w)
	}
	require.NoError(t, raw.Send("go on"))
	c.Find(t, fmt.Sprintf(`message %d {"got":"message"`, raw.ID()))
	require.NoError(t, raw.Send("exit"))
	require.Equal(t, "node "+strconv.Itoa(w.ID()), clustertest.Await(t, held, "answer"))
}

// rawBurst sends many handles without waiting, and splits frames around them.
var rawBurst = clustertest.Program("raw-burst", func() {
	p := newRawPeer(3)
	p.send(`{"cmd":"NODE_CLUSTER","act":"online","seq":0}` + "\n")
	ours, theirs := socketPair()
	defer unix.Close(theirs)
	for i := range 100 {
		p.send(nodeHandle(fmt.Sprintf(`{"n":%d}`, i)), ours)
	}
	for i := range 100 {
		if l := p.until("NODE_HANDLE_"); l != `{"cmd":"NODE_HANDLE_ACK"}` {
			clustertest.Must(fmt.Errorf("handle %d: %s", i, l))
		}
	}
	message := nodeHandle(`{"split":"first"}`)
	p.send(message[:30], ours)
	p.send(message[30:] + `{"plain":1}` + "\n")
	message = nodeHandle(`{"split":"last"}`)
	p.send(`{"plain":2}` + "\n" + message[:30])
	p.send(message[30:], ours)
	p.send(nodeHandle(`{"without":true}`)) // no descriptor at all
	for _, want := range []string{"ACK", "ACK", "NACK"} {
		if l := p.until("NODE_HANDLE_"); !strings.Contains(l, "_"+want) {
			clustertest.Must(fmt.Errorf("%s instead of %s", l, want))
		}
	}
	p.send(`{"plain":3}`+"\n", ours, ours) // two too many
	unix.Close(ours)
	p.send(`{"done":true}` + "\n")
	p.until(`"exit"`)
})

// TestNodePeerHandles: handles in a burst and frames split around a descriptor
// are taken as they are meant: each is acknowledged, its message arrives in
// order, all descriptors are closed.
func TestNodePeerHandles(t *testing.T) {
	c := clustertest.NewNodeCluster(t, cluster.Options{})
	raw := forkRaw(t, rawBurst)
	c.Find(t, fmt.Sprintf(`message %d {"done"`, raw.ID()))
	var got []string
	for _, l := range c.All() {
		if m, ok := strings.CutPrefix(l, fmt.Sprintf("message %d ", raw.ID())); ok {
			got = append(got, m)
		}
	}
	var want []string
	for i := range 100 {
		want = append(want, fmt.Sprintf(`{"n":%d}`, i))
	}
	want = append(want, `{"split":"first"}`, `{"plain":1}`, `{"plain":2}`, `{"split":"last"}`, `{"plain":3}`, `{"done":true}`)
	require.Equal(t, want, got)
	all := strings.Join(c.All(), "\n")
	require.Contains(t, all, "a handle message came without its descriptor")
	require.Contains(t, all, "2 descriptors came with no message that takes them; closed")
	require.NoError(t, raw.Send("exit"))
	c.Death(raw)
}

// rawQueries asks for the same address again and again.
var rawQueries = clustertest.Program("raw-queries", func() {
	p := newRawPeer(3)
	p.send(`{"cmd":"NODE_CLUSTER","act":"online","seq":0}` + "\n")
	port := clustertest.Atoi(os.Getenv("PORT"))
	for seq := 1; seq <= 3; seq++ {
		p.send(fmt.Sprintf(queryFree, port, seq))
		var answer struct{ Errno *int }
		clustertest.Must(json.Unmarshal([]byte(p.until(fmt.Sprintf(`"ack":%d`, seq))), &answer))
		if refused := answer.Errno != nil && *answer.Errno == -int(syscall.EADDRINUSE); refused != (seq > 1) {
			clustertest.Must(fmt.Errorf("query %d: errno %v", seq, answer.Errno))
		}
	}
	p.send(`{"done":true}` + "\n")
	p.until(`"exit"`)
})

// TestNodePeerRepeatedQuery: a queryServer that is repeated is EADDRINUSE, and
// the address can still be had by others.
func TestNodePeerRepeatedQuery(t *testing.T) {
	c := clustertest.NewNodeCluster(t, cluster.Options{Scheduling: cluster.RoundRobin})
	port := clustertest.FreePort(t)
	raw := forkRaw(t, rawQueries, "PORT="+strconv.Itoa(port))
	c.Find(t, fmt.Sprintf(`message %d {"done"`, raw.ID()))
	c.Web(c.Fork(), port)
	require.NoError(t, raw.Send("exit"))
	c.Death(raw)
}

// startRaw runs the guest under the test as a primary of the raw kind.
func startRaw(t testing.TB) (*rawPeer, *clustertest.Proc) {
	t.Helper()
	ours, fd := socketPair()
	theirs := os.NewFile(uintptr(fd), "channel")
	defer theirs.Close()
	p := newRawPeer(ours)
	t.Cleanup(func() { p.c.Close() })
	p.c.SetDeadline(time.Now().Add(clustertest.Patience))
	cmd := exec.Command(os.Args[0])
	cmd.ExtraFiles = []*os.File{theirs}
	worker := clustertest.StartCmd(t, cmd, clustertest.Guest, "NODE_UNIQUE_ID=1", "NODE_CHANNEL_FD=3")
	require.Contains(t, p.line(), `"act":"online"`)
	return p, worker
}

// TestNodePeerPrimaryBurst: a primary that hands over connections without waiting
// for answers, split around their descriptors, to keys that nobody has or with
// no descriptor at all, gets the answer to each: all that came are served.
func TestNodePeerPrimaryBurst(t *testing.T) {
	t.Parallel()
	p, worker := startRaw(t)
	p.send(`{"cmd":"do","id":1,"do":"listen","network":"tcp","address":"127.0.0.1:0"}` + "\n")
	var query struct{ Seq int }
	require.NoError(t, json.Unmarshal([]byte(p.until("queryServer")), &query))
	p.send(fmt.Sprintf(`{"cmd":"NODE_CLUSTER","errno":null,"key":"the key","ack":%d,"sockname":{"address":"127.0.0.1","family":"IPv4","port":4711}}`+"\n", query.Seq))
	require.Contains(t, p.until(`"listening"`), `"port":4711`)
	require.Contains(t, p.until(`"re":1`), `"Addr":"127.0.0.1:4711"`)

	ln, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer ln.Close()
	const many = 20
	var clients []net.Conn
	offer := func(key string, seq int) (string, int) {
		client, line, fd := offer(t, ln, key, seq)
		clients = append(clients, client)
		return line, fd
	}
	for seq := range many {
		line, fd := offer("the key", seq)
		if seq%2 == 0 {
			p.send(line, fd)
		} else {
			p.send(line[:20], fd)
			p.send(line[20:])
		}
		unix.Close(fd)
	}
	acks := 0
	for taken := make(map[int]bool); len(taken) < many; {
		l := p.line()
		require.NotEmpty(t, l)
		var m struct {
			Cmd      string
			Ack      *int
			Accepted bool
		}
		require.NoError(t, json.Unmarshal([]byte(l), &m))
		if m.Cmd == "NODE_HANDLE_ACK" {
			acks++
		} else if m.Ack != nil {
			require.True(t, m.Accepted, l)
			taken[*m.Ack] = true
		}
	}
	require.Equal(t, many, acks)
	for _, c := range clients {
		fmt.Fprintf(c, "GET / HTTP/1.0\r\n\r\n")
		b, err := io.ReadAll(c)
		require.NoError(t, err)
		require.Contains(t, string(b), "go 1")
	}

	line, fd := offer("nobody's key", many)
	p.send(line, fd)
	unix.Close(fd)
	require.Contains(t, p.until(`"ack":20`), `"accepted":false`)
	require.True(t, closed(t, clients[many]))
	line, fd = offer("the key", many+1)
	unix.Close(fd)
	p.send(line)
	require.Equal(t, `{"cmd":"NODE_HANDLE_NACK"}`, p.until("NODE_HANDLE"))

	p.send(`{"cmd":"NODE_CLUSTER","act":"disconnect","seq":9}` + "\n")
	require.Contains(t, p.until(`"act":"close"`), "the key")
	require.Empty(t, p.until("no such line"))
	require.Equal(t, 0, worker.Exit())
}

// TestNodePeerPrimarySilent: a primary that answers nothing keeps a Go worker
// neither from talking nor from draining.
func TestNodePeerPrimarySilent(t *testing.T) {
	t.Parallel()
	p, worker := startRaw(t)
	p.send(`{"cmd":"do","id":1,"do":"listen","network":"tcp","address":"127.0.0.1:0"}` + "\n")
	require.NotEmpty(t, p.until("queryServer"))
	p.send(`{"cmd":"do","id":2,"do":"args"}` + "\n")
	require.NotEmpty(t, p.until(`"re":2`))
	p.send(`{"cmd":"NODE_CLUSTER","act":"disconnect"}` + "\n")
	require.Empty(t, p.until("no such line"))
	require.Equal(t, 0, worker.Exit())
}

// offer makes a connection, and what hands its other end over for key.
func offer(t testing.TB, ln net.Listener, key string, seq int) (client net.Conn, line string, fd int) {
	t.Helper()
	client, err := net.Dial("tcp", ln.Addr().String())
	require.NoError(t, err)
	t.Cleanup(func() { client.Close() })
	client.SetDeadline(time.Now().Add(clustertest.Patience))
	conn, err := ln.Accept()
	require.NoError(t, err)
	defer conn.Close()
	fd, err = unix.FcntlInt(uintptr(descriptor(t, conn.(syscall.Conn))), unix.F_DUPFD_CLOEXEC, 0)
	require.NoError(t, err)
	return client, fmt.Sprintf(`{"cmd":"NODE_HANDLE","type":"net.Native","msg":{"cmd":"NODE_CLUSTER","act":"newconn","key":%q,"seq":%d}}`+"\n", key, seq), fd
}

// TestNodePeerPrimaryDrain: a Go worker that drains gives back the connections that
// it is handed, while it finishes the one that it has.
func TestNodePeerPrimaryDrain(t *testing.T) {
	t.Parallel()
	p, worker := startRaw(t)
	p.send(`{"cmd":"do","id":1,"do":"listen","network":"tcp","address":"127.0.0.1:0"}` + "\n")
	var query struct{ Seq int }
	require.NoError(t, json.Unmarshal([]byte(p.until("queryServer")), &query))
	p.send(fmt.Sprintf(`{"cmd":"NODE_CLUSTER","errno":null,"key":"the key","ack":%d}`+"\n", query.Seq))
	require.NotEmpty(t, p.until(`"re":1`))
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer ln.Close()
	hand := func(seq int) net.Conn {
		client, line, fd := offer(t, ln, "the key", seq)
		defer unix.Close(fd)
		p.send(line, fd)
		return client
	}
	slow := hand(1)
	require.Contains(t, p.until(`"ack":1,`), `"accepted":true`)
	fmt.Fprintf(slow, "GET /slow HTTP/1.0\r\n\r\n")
	require.NotEmpty(t, p.until(`"event":"slow"`))
	p.send(`{"cmd":"NODE_CLUSTER","act":"disconnect"}` + "\n")
	require.NotEmpty(t, p.until(`"act":"close"`))
	for seq, refused := 2, 0; refused < 3; seq++ {
		late := hand(seq)
		if strings.Contains(p.until(fmt.Sprintf(`"ack":%d,`, seq)), `"accepted":true`) {
			require.Zero(t, refused)
			fmt.Fprintf(late, "GET / HTTP/1.0\r\n\r\n") // it came before the accepting had stopped
			b, err := io.ReadAll(late)
			require.NoError(t, err)
			require.Contains(t, string(b), "go 1")
			continue
		}
		refused++
		require.True(t, closed(t, late))
	}
	p.send(`{"cmd":"do","id":2,"do":"release"}` + "\n")
	b, err := io.ReadAll(slow)
	require.NoError(t, err)
	require.Contains(t, string(b), "go 1")
	require.Empty(t, p.until("no such line"))
	require.Equal(t, 0, worker.Exit())
}

// TestNodePeerPrimaryVoluntary: a Go worker that kills itself is there until the
// primary knows that its end is voluntary.
func TestNodePeerPrimaryVoluntary(t *testing.T) {
	t.Parallel()
	p, worker := startRaw(t)
	p.send(`{"cmd":"do","id":1,"do":"kill"}` + "\n")
	var said struct{ Seq int }
	require.NoError(t, json.Unmarshal([]byte(p.until("exitedAfterDisconnect")), &said))
	p.send(`{"cmd":"do","id":2,"do":"args"}` + "\n")
	require.NotEmpty(t, p.until(`"re":2`))
	p.send(fmt.Sprintf(`{"cmd":"NODE_CLUSTER","ack":%d}`+"\n", said.Seq))
	require.Empty(t, p.until("no such line"))
	require.Equal(t, 0, worker.Exit())
}

// TestNodePeerPrimaryLate: what a primary grants when the Go worker has given up
// waiting for it is given back.
func TestNodePeerPrimaryLate(t *testing.T) {
	t.Parallel()
	p, worker := startRaw(t)
	p.send(`{"cmd":"do","id":1,"do":"listen","network":"tcp","address":"127.0.0.1:0","n":1}` + "\n")
	var query struct{ Seq int }
	require.NoError(t, json.Unmarshal([]byte(p.until("queryServer")), &query))
	require.Contains(t, p.until(`"re":1`), "deadline exceeded")
	p.send(fmt.Sprintf(`{"cmd":"NODE_CLUSTER","errno":null,"key":"the key","ack":%d}`+"\n", query.Seq))
	require.Contains(t, p.until(`"act":"close"`), "the key")
	p.send(`{"cmd":"NODE_CLUSTER","act":"disconnect"}` + "\n")
	require.Empty(t, p.until("no such line"))
	require.Equal(t, 0, worker.Exit())
}

// rawScarce has no descriptor free for the first three messages that come with the page for
// its numbers, nor for any socket.
var rawScarce = clustertest.Program("raw-scarce", func() {
	p := newRawPeer(3)
	p.send(`{"cmd":"NODE_CLUSTER","act":"online","seq":0,"go":{"version":1,"gauge":true}}` + "\n")
	pages, sockets := 0, 0
	for l := p.line(); l != ""; l = p.line() {
		answer := "ACK"
		switch {
		case strings.Contains(l, `"ack":7`) && !strings.Contains(l, "NODE_HANDLE"):
			p.send(fmt.Sprintf(`{"sockets":%d,"answer":%s}`+"\n", sockets, l))
		case !strings.Contains(l, "NODE_HANDLE"):
			continue
		case strings.Contains(l, `"gauge"`):
			if pages++; pages <= 3 {
				answer = "NACK"
			}
		case strings.Contains(l, `"ack":7`):
			sockets++
			answer = "NACK"
		}
		p.send(`{"cmd":"NODE_HANDLE_` + answer + `"}` + "\n")
		if pages == 4 {
			pages++
			p.send(fmt.Sprintf(queryFree, clustertest.Atoi(os.Getenv("PORT")), 7))
		}
	}
})

// TestNodePeerScarce: a worker that has no descriptor free gets the page for its numbers
// later, and of an address that it cannot have it is told so. That has never been in use
// then, and is free.
func TestNodePeerScarce(t *testing.T) {
	c := clustertest.NewNodeCluster(t, cluster.Options{})
	port := clustertest.FreePort(t)
	raw := forkRaw(t, rawScarce, "PORT="+strconv.Itoa(port))
	said := c.Find(t, fmt.Sprintf(`message %d {"sockets":3,`, raw.ID()))
	require.Contains(t, said, fmt.Sprintf(`"errno":%d`, -int(syscall.EMFILE)))
	require.Contains(t, said, "RLIMIT_NOFILE")
	require.Empty(t, cluster.Stats().Listeners)
	require.NoError(t, raw.Kill())
	c.Death(raw)
}

// TestNodePeerPrimaryScarce: a Go worker to which a primary's socket does not come, as often
// as node sends it, does not wait for ever, and gives it back.
func TestNodePeerPrimaryScarce(t *testing.T) {
	t.Parallel()
	p, worker := startRaw(t)
	p.send(`{"cmd":"do","id":1,"do":"listen","network":"tcp","address":"127.0.0.1:0"}` + "\n")
	var query struct{ Seq int }
	require.NoError(t, json.Unmarshal([]byte(p.until("queryServer")), &query))
	for range 4 {
		p.send(fmt.Sprintf(`{"cmd":"NODE_HANDLE","type":"net.Native","msg":{"cmd":"NODE_CLUSTER","errno":null,"key":"the key","ack":%d}}`+"\n", query.Seq))
		require.NotEmpty(t, p.until("NODE_HANDLE_NACK"))
	}
	require.Contains(t, p.until(`"act":"close"`), "the key")
	require.Contains(t, p.until(`"re":1`), "RLIMIT_NOFILE")
	p.send(`{"cmd":"NODE_CLUSTER","act":"disconnect"}` + "\n")
	require.Empty(t, p.until("no such line"))
	require.Equal(t, 0, worker.Exit())
}
