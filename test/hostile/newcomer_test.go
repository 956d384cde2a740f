package hostile_test

import (
	"log"
	"net"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/go-cluster/cluster"
	"github.com/go-cluster/cluster/internal/clustertest"
	"github.com/stretchr/testify/require"
)

// newcomer is what somebody writes who knows net/http. The address is the master's,
// or as here somebody else's.
var newcomer = clustertest.Program("newcomer", func() {
	clustertest.Must(cluster.SetupMaster(cluster.Options{Workers: 1, Backoff: cluster.Backoff{Min: time.Millisecond, Max: time.Millisecond}}))
	clustertest.Must(cluster.AutoFork())
	if cluster.IsMaster() {
		select {}
	}
	if os.Getenv("SHARED") != "" {
		log.Fatal(cluster.ListenAndServe(os.Getenv("ADDRESS"), nil))
	}
	log.Fatal(http.ListenAndServe(os.Getenv("ADDRESS"), nil))
})

// TestNewcomer: workers that each open the address by package net. The log says what
// is wrong, and the supervision ends, though there is no Run.
func TestNewcomer(t *testing.T) {
	t.Parallel()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer ln.Close()
	p := clustertest.Start(t, newcomer, "ADDRESS="+ln.Addr().String())
	clustertest.Eventually(t, func() bool { return strings.Contains(p.Output(), "giving up") }, "the end of the supervision")
	require.Equal(t, 1, strings.Count(p.Output(), "has not come to Run"), "said once")
	require.Contains(t, p.Output(), "workers share what cluster.Listen")
}

// TestAddressOfAnother: who calls what this package has is not told to call it, when some
// other program has the address.
func TestAddressOfAnother(t *testing.T) {
	t.Parallel()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer ln.Close()
	p := clustertest.Start(t, newcomer, "SHARED=1", "ADDRESS="+ln.Addr().String())
	clustertest.Eventually(t, func() bool { return strings.Contains(p.Output(), "giving up") }, "the end of the supervision")
	require.Contains(t, p.Output(), "cluster: listen tcp")
	require.NotContains(t, p.Output(), "workers share what cluster.Listen")
}

// TestMainReturns: the end of a worker whose main returns too early says so.
func TestMainReturns(t *testing.T) {
	clustertest.WithMaster(t, clustertest.Failing, cluster.Options{Env: []string{"EXIT=0"}})
	deaths := make(chan cluster.Exit, 1)
	t.Cleanup(cluster.OnDeath(func(_ *cluster.Process, e cluster.Exit) { deaths <- e }))
	_, err := cluster.Fork()
	require.NoError(t, err)
	require.Contains(t, clustertest.Await(t, deaths, "its end").String(), "main returned before it listened")
}
