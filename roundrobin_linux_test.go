package cluster_test

import (
	"io"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/go-cluster/cluster"
	"github.com/go-cluster/cluster/internal/clustertest"
	"github.com/stretchr/testify/require"
)

const (
	cloggedEnv = "CLUSTER_TEST_CLOGGED" // what the clogged worker does with its connection
	tellEnv    = "CLUSTER_TEST_TELL"    // where it connects to when it has
)

// clogged is a worker that says more than its master takes, and what it says
// about the connection that it has then accepted stays behind that. Without its
// variables it is a worker that answers as puppets do.
var clogged = clustertest.Program("clogged", func() {
	ln, err := cluster.Listen("tcp", "127.0.0.1:0")
	clustertest.Must(err)
	serve := cloggedConns[os.Getenv(cloggedEnv)]
	if serve == nil {
		clustertest.AnswerConns(ln)
		select {}
	}
	begin := make(chan bool)
	cluster.Handle("begin", func(*cluster.Process, clustertest.Order) { close(begin) })
	<-begin
	text := map[string]string{"cmd": "clog", "text": strings.Repeat("x", 64<<10)}
	for n := 0; n < clogSize; {
		if cluster.Worker.Send(text) == nil {
			n += len(text["text"])
			continue
		}
		time.Sleep(time.Millisecond)
	}
	c, err := ln.Accept()
	clustertest.Must(err)
	clustertest.Must(serve(c))
	tell, err := net.Dial("tcp", os.Getenv(tellEnv))
	clustertest.Must(err)
	tell.Close()
	select {}
})

const (
	clogQueue = 1 << 20
	// clogSize is more than the master takes while it delivers nothing, and less
	// than that and the queue of the worker hold.
	clogSize = clogQueue + clogQueue/2
)

var cloggedConns = map[string]func(c net.Conn) error{
	"reads": func(c net.Conn) error {
		_, err := io.ReadFull(c, make([]byte, 1))
		return err
	},
	"writes": func(c net.Conn) error {
		_, err := c.Write([]byte("x"))
		return err
	},
	"does not": func(net.Conn) error { return nil },
}

// A connection that a worker had begun to serve ends with the worker, even if
// the master never heard that it was accepted: to another worker it would be
// one whose request does not come.
func TestRoundRobinUsedConnection(t *testing.T) {
	for does := range cloggedConns {
		for _, end := range []string{"", " and the client has shut down"} {
			t.Run(does+end, func(t *testing.T) { testUsedConnection(t, does, end != "") })
		}
	}
}

func testUsedConnection(t *testing.T, does string, shutDown bool) {
	clustertest.WithMaster(t, clogged, cluster.Options{Scheduling: cluster.RoundRobin, MaxQueue: clogQueue})
	listening := make(chan string, 1)
	t.Cleanup(cluster.OnListening(func(_ *cluster.Process, a net.Addr) { listening <- a.String() }))
	told, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer told.Close()
	told.(*net.TCPListener).SetDeadline(time.Now().Add(clustertest.Patience))
	w, err := cluster.Fork(cloggedEnv+"="+does, tellEnv+"="+told.Addr().String())
	require.NoError(t, err)
	addr := clustertest.Await(t, listening, "address")
	delivers := make(chan bool)
	t.Cleanup(func() { close(delivers) })
	t.Cleanup(w.OnMessage(func(*cluster.Process, cluster.Message) { <-delivers }))

	client, err := net.Dial("tcp", addr)
	require.NoError(t, err)
	defer client.Close()
	_, err = client.Write([]byte("12345\n"))
	require.NoError(t, err)
	if shutDown {
		require.NoError(t, client.(*net.TCPConn).CloseWrite())
	}
	other := clustertest.Fork(t)
	clustertest.Await(t, listening, "other worker")
	require.NoError(t, w.Send(clustertest.Order{Cmd: "begin"}))
	c, err := told.Accept()
	require.NoError(t, err)
	c.Close()
	require.NoError(t, w.Kill())

	client.SetReadDeadline(time.Now().Add(clustertest.Patience))
	if does == "does not" {
		id, _ := clustertest.Greeting(t, client)
		require.Equal(t, other.ID(), id)
		return
	}
	answer, err := io.ReadAll(client)
	require.NotErrorIs(t, err, os.ErrDeadlineExceeded)
	require.Equal(t, map[string]string{"writes": "x"}[does], string(answer))
}
