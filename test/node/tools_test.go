//go:build unix

package node_test

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"strconv"
	"syscall"
	"testing"
	"time"

	"github.com/go-cluster/cluster"
	"github.com/go-cluster/cluster/internal/clustertest"
	"github.com/stretchr/testify/require"
)

// requireServedBy requires w, whose script is a web(), to answer a request to the address.
func requireServedBy(t *testing.T, addr string, w *cluster.Process) {
	t.Helper()
	body, err := clustertest.Get("http://" + addr)
	require.NoError(t, err)
	require.Equal(t, "node "+strconv.Itoa(w.ID()), body)
}

// schedulings runs a test under both.
func schedulings(t *testing.T, test func(t *testing.T, s cluster.Scheduling)) {
	for _, s := range []cluster.Scheduling{cluster.Shared, cluster.RoundRobin} {
		t.Run(s.String(), func(t *testing.T) { test(t, s) })
	}
}

// policies runs a test under both of node's, each with a primary of its own.
func policies(t *testing.T, test func(t *testing.T, n *clustertest.NodePrimary), env ...string) {
	t.Parallel()
	eachPolicy(t, (*testing.T).Parallel, test, env...)
}

// policiesInTurn is policies for what two primaries cannot have at once.
func policiesInTurn(t *testing.T, test func(t *testing.T, n *clustertest.NodePrimary)) {
	eachPolicy(t, func(*testing.T) {}, test)
}

func eachPolicy(t *testing.T, begin func(*testing.T), test func(t *testing.T, n *clustertest.NodePrimary), env ...string) {
	for name, policy := range map[string]string{"None": "none", "RoundRobin": "rr"} {
		t.Run(name, func(t *testing.T) {
			begin(t)
			n := clustertest.NewNodePrimary(t, append(env, "NODE_CLUSTER_SCHED_POLICY="+policy)...)
			test(t, n)
			n.End()
		})
	}
}

// getUnix is get over a unix socket.
func getUnix(path, url string) (string, error) {
	tr := &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", path)
	}}
	c := &http.Client{Transport: tr, Timeout: clustertest.Patience}
	resp, err := c.Get(url)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	return string(b), err
}

// getting fetches url on a goroutine of its own.
func getLater(url string) <-chan string {
	c := make(chan string, 1)
	go func() {
		body, err := clustertest.Get(url)
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
	c.SetDeadline(time.Now().Add(clustertest.Patience))
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
	c.SetReadDeadline(time.Now().Add(clustertest.Patience))
	n, err := c.Read(make([]byte, 1))
	return n == 0 && (errors.Is(err, io.EOF) || errors.Is(err, syscall.ECONNRESET))
}
