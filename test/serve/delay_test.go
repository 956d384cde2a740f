package serve_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/go-cluster/cluster"
	"github.com/go-cluster/cluster/internal/clustertest"
	"github.com/stretchr/testify/require"
)

const (
	delayEnv = "CLUSTER_TEST_DELAY" // Options.ShutdownDelay
	stopEnv  = "CLUSTER_TEST_STOP"  // how the master stops: "disconnect", "context"
)

// delayed serves with a ShutdownDelay, and prints what happens. A poke makes the master stop as
// the environment says. A second poke ends the context of that stop.
var delayed = clustertest.Program("delayed", func() {
	who := fmt.Sprint("worker ", os.Getpid())
	if cluster.IsMaster() {
		who = "master"
	}
	var said sync.WaitGroup
	said.Go(func() {
		<-cluster.Stopping()
		fmt.Println("stopping", who)
	})
	said.Go(func() {
		<-cluster.Context().Done()
		fmt.Println("context", who)
	})
	cluster.OnShutdown(func(context.Context) error { // one with nothing to do ends at once
		said.Wait()
		return nil
	})
	if cluster.IsWorker() {
		clustertest.Must(cluster.ListenAndServe(os.Getenv(addrEnv), http.HandlerFunc(answer)))
		return
	}
	delay, err := time.ParseDuration(os.Getenv(delayEnv))
	clustertest.Must(err)
	clustertest.Must(cluster.SetupMaster(cluster.Options{Workers: 2, ShutdownDelay: delay, ReadyFor: time.Millisecond}))
	cluster.OnListening(func(w *cluster.Process, _ net.Addr) { fmt.Println("listening", w.PID()) })
	cluster.OnDeath(func(w *cluster.Process, e cluster.Exit) { fmt.Println("dead", w.PID(), e.Code) })
	ctx, cancel := context.WithCancel(context.Background())
	poked := make(chan os.Signal, 1)
	clustertest.Notify(poked)
	done := make(chan struct{})
	go func() {
		defer close(done)
		<-poked
		switch os.Getenv(stopEnv) {
		case "reload":
			fmt.Println("reloaded", cluster.Reload(context.Background()))
		case "fork":
			_, err := cluster.Fork()
			fmt.Println("refused", errors.Is(err, cluster.ErrClosed), errors.Is(cluster.Scale(5), cluster.ErrClosed),
				errors.Is(cluster.Reload(context.Background()), cluster.ErrClosed))
		case "context":
			cancel()
		case "disconnect":
			fmt.Println("disconnected", cluster.Disconnect(context.Background()))
		case "disconnect in time":
			short, cancel := context.WithCancel(context.Background())
			go func() {
				<-poked
				cancel()
			}()
			fmt.Println("disconnected", cluster.Disconnect(short))
		}
	}()
	fmt.Println("run", cluster.Run(ctx))
	if strings.HasPrefix(os.Getenv(stopEnv), "disconnect") {
		<-done
	}
})

func startDelayed(t *testing.T, delay time.Duration, stop string) (p *clustertest.Proc, addr string) {
	addr = clustertest.UnusedAddress(t, "tcp", "")
	p = clustertest.Start(t, delayed, addrEnv+"="+addr, delayEnv+"="+delay.String(), stopEnv+"="+stop)
	p.Expect("listening")
	p.Expect("listening")
	return p, addr
}

// stoppingSaid gets an answer on a new connection, and returns who answered and whether
// that process will stop.
func stoppingSaid(t *testing.T, addr string) (pid string, stopping bool) {
	t.Helper()
	c := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: clustertest.Patience}
	resp, err := c.Get("http://" + addr)
	require.NoError(t, err)
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	require.NoError(t, err)
	return string(body), resp.Header.Get("Stopping") != ""
}

// A stop is announced first: everybody knows, all goes on, the dead are replaced, nothing
// new is begun, and a second signal ends that.
func TestShutdownDelay(t *testing.T) {
	t.Parallel()
	p, addr := startDelayed(t, time.Hour, "fork")
	_, stopping := stoppingSaid(t, addr)
	require.False(t, stopping)
	p.Signal(syscall.SIGTERM)
	p.All("stopping master", "context master", "stopping worker", "stopping worker")
	pid, stopping := stoppingSaid(t, addr)
	require.True(t, stopping)
	p.Signal(clustertest.SigPoke)
	require.Equal(t, "true true true", p.Expect("refused "))

	worker, err := os.FindProcess(clustertest.Atoi(pid))
	require.NoError(t, err)
	require.NoError(t, worker.Kill())
	p.Expect("dead " + pid)
	p.All("listening", "stopping worker")
	_, stopping = stoppingSaid(t, addr)
	require.True(t, stopping)
	require.NotContains(t, p.Output(), "context worker")

	p.Signal(syscall.SIGTERM)
	p.All("context worker", "context worker", "run <nil>")
	require.Equal(t, 0, p.Exit())
	p.GroupEmpty()
}

// The delay ends by itself, in whichever way the cluster is stopped. If the context of a
// Disconnect ends, it waits no longer. A reload has no delay.
func TestShutdownDelayEnds(t *testing.T) {
	t.Parallel()
	for stop, delay := range map[string]time.Duration{
		"signal": time.Second, "context": time.Second, "disconnect": time.Second, "disconnect in time": time.Hour,
	} {
		t.Run(stop, func(t *testing.T) {
			t.Parallel()
			p, _ := startDelayed(t, delay, stop)
			if stop == "signal" {
				p.Signal(syscall.SIGTERM)
			} else {
				p.Signal(clustertest.SigPoke)
			}
			p.All("stopping master", "context master", "stopping worker", "stopping worker")
			if stop == "disconnect in time" {
				p.Signal(clustertest.SigPoke) // not before: it kills the workers
			}
			switch stop {
			case "disconnect":
				p.All("run", "disconnected <nil>")
			case "disconnect in time":
				p.All("run", "disconnected context canceled")
			default:
				p.All("run")
			}
			require.Equal(t, 0, p.Exit())
			p.GroupEmpty()
		})
	}
	t.Run("reload", func(t *testing.T) {
		t.Parallel()
		p, addr := startDelayed(t, time.Hour, "reload")
		p.Signal(clustertest.SigPoke)
		require.Equal(t, "<nil>", p.Expect("reloaded "))
		_, stopping := stoppingSaid(t, addr)
		require.False(t, stopping)
		p.Signal(syscall.SIGTERM)
		p.Expect("stopping master")
		p.Signal(syscall.SIGTERM)
		require.Equal(t, 0, p.Exit())
	})
}
