package handles_test

import (
	"crypto/tls"
	"errors"
	"io"
	"net"
	"os"
	"strconv"
	"testing"
	"time"

	"github.com/go-cluster/cluster"
	"github.com/go-cluster/cluster/internal/clustertest"
	"github.com/stretchr/testify/require"
)

// TestSendConnection: a worker serves a connection that the master has read a part
// of. The master's own stays open until it closes it, and works.
func TestSendConnection(t *testing.T) {
	for _, network := range networks {
		t.Run(network, func(t *testing.T) {
			workers, outcomes := takers(t, 1, cluster.Options{})
			server, client := pair(t, network)
			_, err := client.Write([]byte("first second"))
			require.NoError(t, err)
			_, err = io.ReadFull(server, make([]byte, len("first ")))
			require.NoError(t, err)
			received := make(chan error, 1)
			require.NoError(t, workers[0].SendHandle(parcel{Cmd: "conn", Text: "first"}, server, func(err error) { received <- err }))
			require.NoError(t, clustertest.Await(t, received, "receipt"))
			o := clustertest.Await(t, outcomes, "outcome")
			require.Empty(t, o.Errors)
			require.Equal(t, []bool{true, false}, o.Has)
			read := func(want string) {
				t.Helper()
				b := make([]byte, len(want))
				_, err := io.ReadFull(client, b)
				require.NoError(t, err)
				require.Equal(t, want, string(b))
			}
			read("worker " + strconv.Itoa(workers[0].ID()) + " first\nsecond")
			_, err = server.Write([]byte("of the master"))
			require.NoError(t, err)
			read("of the master")
			require.NoError(t, server.Close())
			_, err = client.Write([]byte("echo"))
			require.NoError(t, err)
			read("echo")
			require.NoError(t, client.(interface{ CloseWrite() error }).CloseWrite())
			requireEnd(t, client)
		})
	}
}

// TestSendListener: a worker accepts on a listener that the master opened before it
// forked, and on one of a Listen after that. It does not get ready by it.
func TestSendListener(t *testing.T) {
	early, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer early.Close()
	workers, outcomes := takers(t, 1, cluster.Options{})
	all := []net.Listener{early}
	for _, network := range networks {
		late, err := cluster.Listen(network, addressOf(t, network))
		require.NoError(t, err)
		all = append(all, late)
	}
	for _, ln := range all {
		require.NoError(t, workers[0].SendHandle(parcel{Cmd: "listener"}, ln))
		o := clustertest.Await(t, outcomes, "outcome")
		require.Empty(t, o.Errors)
		require.Equal(t, ln.Addr().String(), o.Text)
		id, _ := clustertest.GreetingFrom(t, ln.Addr().Network(), ln.Addr().String())
		require.Equal(t, workers[0].ID(), id)
		require.Equal(t, cluster.Online, workers[0].State())
		require.NoError(t, ln.Close())
		id, _ = clustertest.GreetingFrom(t, "tcp", early.Addr().String())
		require.Equal(t, workers[0].ID(), id)
	}
	require.ErrorIs(t, workers[0].SendHandle(1, all[1]), net.ErrClosed)
}

// TestTaking: what nobody takes is closed; taking twice is an error; taking as
// something else is one, and leaves it; so is taking what did not come.
func TestTaking(t *testing.T) {
	workers, outcomes := takers(t, 1, cluster.Options{})
	w := workers[0]
	send := func(cmd string) (client net.Conn) {
		t.Helper()
		server, client := pair(t, "tcp")
		require.NoError(t, w.SendHandle(parcel{Cmd: cmd}, server))
		require.NoError(t, server.Close())
		return client
	}
	client := send("leave")
	o := clustertest.Await(t, outcomes, "outcome")
	require.Equal(t, []bool{true, true}, o.Has)
	requireEnd(t, client)

	client = send("wrong")
	o = clustertest.Await(t, outcomes, "outcome")
	require.Equal(t, []bool{true, true, false}, o.Has)
	require.Len(t, o.Errors, 4)
	for i, method := range []string{"Listener", "PacketConn", "File"} {
		require.Contains(t, o.Errors[i], "Message."+method+": what came is a connection: take it with Conn")
	}
	require.Contains(t, o.Errors[3], "taken already")
	requireEnd(t, client)

	require.NoError(t, w.Send(parcel{Cmd: "plain"}))
	o = clustertest.Await(t, outcomes, "outcome")
	require.Equal(t, []bool{false, false}, o.Has)
	require.Contains(t, o.Errors[0], "no handle came with this message")

	client = send("late")
	require.Empty(t, clustertest.Await(t, outcomes, "outcome").Errors)
	o = clustertest.Await(t, outcomes, "outcome")
	require.Contains(t, o.Errors[0], "no callback took the handle")
	require.True(t, o.Closed)
	requireEnd(t, client)
}

// TestHandleWaitsForAHandler, with its message; one that nobody takes until the
// worker is gone is closed.
func TestHandleWaitsForAHandler(t *testing.T) {
	workers, _ := takers(t, 1, cluster.Options{})
	w := workers[0]
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer ln.Close()
	var got []net.Conn
	for range 2 {
		clustertest.Request(t, w, sending{"send", "conn", ln.Addr().String()}, nil)
		c, err := ln.Accept()
		require.NoError(t, err)
		defer c.Close()
		got = append(got, c)
	}
	taken := make(chan net.Conn, 2)
	stop := w.OnMessage(func(_ *cluster.Process, m cluster.Message) {
		c, err := m.Conn()
		clustertest.Must(err)
		taken <- c
	})
	for _, c := range got {
		mine := clustertest.Await(t, taken, "connection")
		_, err := mine.Write([]byte("x"))
		require.NoError(t, err)
		require.NoError(t, mine.Close())
		b, err := io.ReadAll(c)
		require.NoError(t, err)
		require.Equal(t, "x", string(b))
	}
	stop()
	clustertest.Request(t, w, sending{"send", "conn", ln.Addr().String()}, nil)
	c, err := ln.Accept()
	require.NoError(t, err)
	defer c.Close()
	clustertest.KillAndWait(t, w)
	requireEnd(t, c)
}

// listenersFrom returns the listeners that w sends.
func listenersFrom(t *testing.T, w *cluster.Process) <-chan net.Listener {
	got := make(chan net.Listener, 1)
	t.Cleanup(w.OnMessage(func(_ *cluster.Process, m cluster.Message) {
		if m.HasHandle() {
			ln, err := m.Listener()
			clustertest.Must(err)
			got <- ln
		}
	}))
	return got
}

// requireAccepts connects to ln, which accepts the connection and closes it.
func requireAccepts(t *testing.T, ln net.Listener) {
	t.Helper()
	client, err := net.Dial("tcp", ln.Addr().String())
	require.NoError(t, err)
	c, err := ln.Accept()
	require.NoError(t, err)
	require.NoError(t, c.Close())
	requireEnd(t, client)
	require.NoError(t, client.Close())
}

// TestSendListenerOfAWorker: its own, and its share of a common one; that of a
// RoundRobin or LeastConnections address is not its own.
func TestSendListenerOfAWorker(t *testing.T) {
	workers, _ := takers(t, 1, cluster.Options{})
	w := workers[0]
	got := listenersFrom(t, w)
	for _, kind := range []string{"listener", "shared"} {
		clustertest.Request(t, w, sending{"send", kind, "127.0.0.1:0"}, nil)
		ln := clustertest.Await(t, got, "listener")
		requireAccepts(t, ln)
		require.NoError(t, ln.Close())
	}
	for _, kind := range []string{"robin", "least"} {
		err := w.Request(t.Context(), sending{"send", kind, "127.0.0.1:0"}, nil)
		require.ErrorContains(t, err, "a RoundRobin or LeastConnections listener's socket is the master's")
	}
}

// TestSendPreopened: a listener of a Listen before the fork can be sent as it is, and so
// can the share of it that a worker has. Each goes on without the other.
func TestSendPreopened(t *testing.T) {
	down, err := cluster.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer down.Close()
	up, err := cluster.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer up.Close()
	workers, outcomes := takers(t, 1, cluster.Options{})
	w := workers[0]

	require.NoError(t, w.SendHandle(parcel{Cmd: "listener"}, down))
	o := clustertest.Await(t, outcomes, "outcome")
	require.Empty(t, o.Errors)
	require.Equal(t, down.Addr().String(), o.Text)
	require.NoError(t, down.Close())
	id, _ := clustertest.GreetingFrom(t, "tcp", o.Text)
	require.Equal(t, w.ID(), id)

	got := listenersFrom(t, w)
	clustertest.Request(t, w, sending{"send", "shared", up.Addr().String()}, nil)
	ln := clustertest.Await(t, got, "listener")
	require.Equal(t, up.Addr().String(), ln.Addr().String())
	for _, ln := range []net.Listener{ln, up} { // it is one socket, the master's own
		requireAccepts(t, ln)
		require.NoError(t, ln.Close())
	}
	_, err = net.Dial("tcp", up.Addr().String())
	require.Error(t, err, "nobody has it any more")
}

// TestWhatCannotBeSent says so, and what to send in its place.
func TestWhatCannotBeSent(t *testing.T) {
	workers, _ := takers(t, 1, cluster.Options{})
	server, client := pair(t, "tcp")
	a, b := net.Pipe()
	defer a.Close()
	defer b.Close()
	robin, err := cluster.ListenConfig{Scheduling: cluster.RoundRobin}.Listen(t.Context(), "tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer robin.Close()
	for _, c := range []struct {
		h    any
		says string
	}{
		{tls.Server(server, &tls.Config{}), "send the connection below it before the handshake"},
		{tls.NewListener(robin, &tls.Config{}), "has no descriptor"},
		{a, "has no descriptor"},
		{nil, "the handle is nil"},
		{(*net.TCPConn)(nil), "the handle is a nil *net.TCPConn"},
		{(*os.File)(nil), "the handle is a nil *os.File"},
		{"text", "send a net.Conn, net.Listener, net.PacketConn or *os.File"},
		{robin, "Scheduling: Shared"},
	} {
		err := workers[0].SendHandle(parcel{Cmd: "leave"}, c.h)
		require.ErrorContains(t, err, "cluster: SendHandle: ")
		require.ErrorContains(t, err, c.says)
	}
	require.ErrorIs(t, workers[0].SendHandle(1, robin), errors.ErrUnsupported)
	require.ErrorIs(t, workers[0].SendHandle(1, robin), cluster.ErrNotSupported)
	require.ErrorContains(t, workers[0].SendHandle(func() {}, server), "json")
	require.ErrorContains(t, workers[0].SendHandle(map[string]string{"cmd": "NODE_X"}, server), "NODE_")
	var none *cluster.Process
	require.ErrorIs(t, none.SendHandle(1, server), cluster.ErrNotWorker)
	require.NoError(t, server.Close())
	require.ErrorIs(t, workers[0].SendHandle(1, server), net.ErrClosed)
	requireEnd(t, client)
	clustertest.KillAndWait(t, workers[0])
	require.ErrorIs(t, workers[0].SendHandle(1, client), cluster.ErrClosed)
}

// TestHandlesKeepTheirPlace among plain messages, from the time on when the worker
// was not even online.
func TestHandlesKeepTheirPlace(t *testing.T) {
	workers, outcomes := takers(t, 1, cluster.Options{})
	const many = 300
	var clients []net.Conn
	for i := range many {
		if i%3 > 0 {
			require.NoError(t, workers[0].Send(parcel{"plain", strconv.Itoa(i)}))
			continue
		}
		server, client := pair(t, "tcp")
		require.NoError(t, workers[0].SendHandle(parcel{"leave", strconv.Itoa(i)}, server))
		require.NoError(t, server.Close())
		clients = append(clients, client)
	}
	for i := range many {
		o := clustertest.Await(t, outcomes, "outcome")
		require.Equal(t, strconv.Itoa(i), o.Text)
		require.Equal(t, i%3 == 0, o.Has[0])
	}
	for _, c := range clients {
		requireEnd(t, c)
	}
}

// TestHandlesAreBounded: 256 to a worker that is stopped, then ErrBacklog. When it
// dies all of them are closed.
func TestHandlesAreBounded(t *testing.T) {
	workers, outcomes := takers(t, 2, cluster.Options{})
	w := workers[0]
	require.NoError(t, w.SendContext(t.Context(), parcel{Cmd: "plain"}))
	clustertest.Await(t, outcomes, "outcome")
	clustertest.PauseWorker(t, w)
	server, client := pair(t, "tcp")
	for range 256 {
		require.NoError(t, w.SendHandle(parcel{Cmd: "leave"}, server))
	}
	err := w.SendHandle(parcel{Cmd: "leave"}, server)
	require.ErrorIs(t, err, cluster.ErrBacklog)
	require.ErrorContains(t, err, "256 handles are on their way")
	require.NoError(t, w.Send(parcel{Cmd: "plain"}), "of messages there may be more")
	require.NoError(t, server.Close())
	clustertest.KillAndWait(t, w)
	requireEnd(t, client)

	// One that reads has no bound.
	server, client = pair(t, "tcp")
	for range 1000 {
		clustertest.Eventually(t, func() bool {
			err := workers[1].SendHandle(parcel{Cmd: "leave"}, server)
			return err == nil || !errors.Is(err, cluster.ErrBacklog)
		}, "room")
	}
	require.NoError(t, server.Close())
	for range 1000 {
		clustertest.Await(t, outcomes, "outcome")
	}
	requireEnd(t, client)
}

// TestHandlesOfTheDead: whatever a worker was doing with a handle when it died, its
// copy goes with it, and so does what was still under way.
func TestHandlesOfTheDead(t *testing.T) {
	for _, does := range []string{"exit", "panics", "blocks"} {
		t.Run(does, func(t *testing.T) {
			workers, _ := takers(t, 1, cluster.Options{Output: func(*cluster.Process) (io.Writer, io.Writer) { return io.Discard, io.Discard }})
			dead := make(chan bool, 1)
			t.Cleanup(workers[0].OnExit(func(*cluster.Process, cluster.Exit) { dead <- true }))
			var clients []net.Conn
			for i := range 10 {
				server, client := pair(t, "tcp")
				cmd := does
				if i > 0 {
					cmd = "leave"
				}
				err := workers[0].SendHandle(parcel{Cmd: cmd}, server)
				require.True(t, err == nil || errors.Is(err, cluster.ErrClosed), "%v", err)
				require.NoError(t, server.Close())
				clients = append(clients, client)
			}
			if does == "blocks" {
				require.NoError(t, workers[0].Kill())
			}
			clustertest.Await(t, dead, "death")
			for _, c := range clients {
				requireEnd(t, c)
			}
		})
	}
}

// TestDrainWaitsForWhatWasSent: a connection that was sent to a worker is in flight
// there, and a listener stops.
func TestDrainWaitsForWhatWasSent(t *testing.T) {
	workers, outcomes := takers(t, 1, cluster.Options{})
	for !drainWaits(t, workers[0], outcomes) {
		workers[0] = clustertest.Fork(t)
	}
}

// drainWaits reports whether a client has asked w all the time while it drained: this
// machine may have let it rest for a second, and then its connection is idle.
func drainWaits(t *testing.T, w *cluster.Process, outcomes <-chan outcome) (asked bool) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer ln.Close()
	require.NoError(t, w.SendHandle(parcel{Cmd: "listener"}, ln))
	clustertest.Await(t, outcomes, "outcome")
	server, client := pair(t, "tcp")
	require.NoError(t, w.SendHandle(parcel{Cmd: "conn", Text: "x"}, server))
	require.NoError(t, server.Close())
	last := time.Now()
	clustertest.Greeting(t, client)
	ended := make(chan error, 1)
	go func() { ended <- w.Disconnect(t.Context()) }()
	clustertest.Eventually(t, func() bool { return w.State() == cluster.Draining }, "drain")
	// It is not idle for as long as the client asks.
	for end := time.Now().Add(2500 * time.Millisecond); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
		_, failed := client.Write([]byte("x"))
		rested := time.Since(last) > 500*time.Millisecond
		if failed == nil {
			_, failed = io.ReadFull(client, make([]byte, 1))
		}
		if failed != nil && rested {
			require.NoError(t, clustertest.Await(t, ended, "end of the drain"))
			return false
		}
		require.NoError(t, failed)
		last = time.Now()
	}
	require.Empty(t, ended)
	require.NoError(t, ln.Close())
	_, err = net.Dial("tcp", ln.Addr().String())
	require.Error(t, err, "the worker has closed its copy of the listener")
	require.NoError(t, client.Close())
	require.NoError(t, clustertest.Await(t, ended, "end of the drain"))
	return true
}
