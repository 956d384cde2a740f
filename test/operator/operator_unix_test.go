//go:build unix

// Package operator_test tests what the core gives to package admin: streams, orders
// for one slot, and what is observed.
package operator_test

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"runtime"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/go-cluster/cluster"
	"github.com/go-cluster/cluster/internal/clustertest"
	"github.com/go-cluster/cluster/internal/operator"
	"github.com/stretchr/testify/require"
)

func TestMain(m *testing.M) { clustertest.Main(m) }

func core() operator.Core { return cluster.Context().Value(operator.Key{}).(operator.Core) }

// echo is a worker that sends back what comes on a stream, with its pid before.
var echo = clustertest.Program("echo", func() {
	core().OnStream(func(c net.Conn) {
		defer c.Close()
		fmt.Fprintln(c, os.Getpid())
		io.Copy(c, c)
	})
	clustertest.Must(cluster.Worker.Send(map[string]any{"cmd": "number", "V": "none"}))
	serve()
})

// silent is one that takes no stream.
var silent = clustertest.Program("silent", serve)

func serve() {
	clustertest.Must(cluster.ListenAndServe("127.0.0.1:0", http.NotFoundHandler()))
}

// readies returns the workers that get ready from now on.
func readies(t *testing.T) <-chan *cluster.Process {
	c := make(chan *cluster.Process, 1000)
	t.Cleanup(cluster.OnReady(func(w *cluster.Process) { c <- w }))
	return c
}

// begin makes a cluster, and returns its workers by slot when all are ready.
func begin(t *testing.T, program string, n int) (bySlot []*cluster.Process, ready <-chan *cluster.Process) {
	clustertest.WithMaster(t, program, cluster.Options{Workers: n, ReadyFor: -1})
	ready = readies(t)
	require.NoError(t, cluster.AutoFork())
	bySlot = make([]*cluster.Process, n)
	for range n {
		w := clustertest.Await(t, ready, "worker")
		bySlot[w.Slot()] = w
	}
	return bySlot, ready
}

// TestStream: what is said on a stream is said to that worker, both ways, and much of
// it; and no message is held up.
func TestStream(t *testing.T) {
	all, _ := begin(t, echo, 2)
	var wait sync.WaitGroup
	for _, w := range all {
		for range 4 {
			wait.Go(func() {
				c, err := core().OpenStream(w.ID())
				require.NoError(t, err)
				defer c.Close()
				require.NoError(t, c.SetDeadline(time.Now().Add(clustertest.Patience)))
				r := bufio.NewReader(c)
				var pid int
				fmt.Fscanln(r, &pid)
				require.Equal(t, w.PID(), pid)
				const size = 1 << 20
				go func() {
					io.CopyN(c, zeros{}, size)
					c.(interface{ CloseWrite() error }).CloseWrite()
				}()
				n, err := io.Copy(io.Discard, r)
				require.NoError(t, err)
				require.EqualValues(t, size, n)
			})
		}
	}
	wait.Wait()
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) { return len(p), nil }

// TestTotals: what a worker has said stays counted when it is gone.
func TestTotals(t *testing.T) {
	_, ready := begin(t, echo, 2)
	before := core().Totals() // each has said a message before it was ready
	require.GreaterOrEqual(t, before.MessagesIn, int64(2))
	require.NoError(t, core().Respawn(t.Context(), 0))
	clustertest.Await(t, ready, "successor")
	after := core().Totals()
	require.GreaterOrEqual(t, after.MessagesIn, before.MessagesIn+1)
	require.GreaterOrEqual(t, after.MessagesOut, before.MessagesOut)
}

// TestStreamThatNothingTakes: a worker that registers nothing closes it.
func TestStreamThatNothingTakes(t *testing.T) {
	all, _ := begin(t, silent, 1)
	c, err := core().OpenStream(all[0].ID())
	require.NoError(t, err)
	defer c.Close()
	_, err = c.Read(make([]byte, 1))
	require.Equal(t, io.EOF, err)
}

// TestStreamBound: a worker that is stopped gets 8, and no further one until it has
// taken those. A worker that is gone gets none.
func TestStreamBound(t *testing.T) {
	all, _ := begin(t, echo, 1)
	w := all[0]
	clustertest.Pause(t, w.PID())
	var open []net.Conn
	for range 8 {
		c, err := core().OpenStream(w.ID())
		require.NoError(t, err)
		open = append(open, c)
	}
	_, err := core().OpenStream(w.ID())
	require.ErrorIs(t, err, cluster.ErrBacklog)
	require.NoError(t, w.OSProcess().Signal(syscall.SIGCONT))
	for _, c := range open {
		_, err := bufio.NewReader(c).ReadString('\n')
		require.NoError(t, err)
		c.Close()
	}
	clustertest.Eventually(t, func() bool {
		c, err := core().OpenStream(w.ID())
		if err == nil {
			c.Close()
		}
		return err == nil
	}, "room for a stream")
	require.NoError(t, w.Disconnect(t.Context()))
	_, err = core().OpenStream(w.ID())
	require.ErrorIs(t, err, cluster.ErrClosed)
	_, err = core().OpenStream(4711)
	require.ErrorIs(t, err, cluster.ErrClosed)
}

// TestOrders: restart, vacate and respawn of one slot leave the other alone.
func TestOrders(t *testing.T) {
	all, ready := begin(t, echo, 2)
	dead := clustertest.Deaths(t)
	ctx, cancel := context.WithTimeout(t.Context(), clustertest.Patience)
	defer cancel()

	require.NoError(t, core().Restart(ctx, 1))
	d := clustertest.Await(t, dead, "death")
	require.Same(t, all[1], d.Worker)
	require.Equal(t, cluster.ReasonRestart, d.Exit.Reason)
	next := clustertest.Await(t, ready, "its successor")
	require.Equal(t, 1, next.Slot())

	require.NoError(t, core().Respawn(ctx, 1))
	d = clustertest.Await(t, dead, "death")
	require.Same(t, next, d.Worker)
	require.Equal(t, cluster.ReasonKill, d.Exit.Reason)
	next = clustertest.Await(t, ready, "its successor")

	require.NoError(t, core().Vacate(ctx, 1))
	d = clustertest.Await(t, dead, "death")
	require.Same(t, next, d.Worker)
	require.Equal(t, cluster.ReasonDrain, d.Exit.Reason)
	require.Equal(t, "off", cluster.Stats().Workers[1].State)
	require.Equal(t, operator.Health{Up: 1, Need: 2}, core().Health())

	require.NoError(t, core().Restart(ctx, 1))
	clustertest.Await(t, ready, "its successor")
	require.Equal(t, operator.Health{Up: 2, Need: 2}, core().Health())
	require.Same(t, all[0], cluster.Workers()[0])
	require.ErrorIs(t, core().Restart(ctx, 2), cluster.ErrNoWorkers)
	require.ErrorIs(t, core().Vacate(ctx, -1), cluster.ErrNoWorkers)
}

// TestNames: a worker that has its slot is named by it, another one by its id. What
// it was built of it tells itself.
func TestNames(t *testing.T) {
	begin(t, echo, 1)
	alone := clustertest.Fork(t)
	clustertest.Eventually(t, func() bool { return alone.State() == cluster.Ready }, "ready")
	s := cluster.Stats()
	require.Len(t, s.Workers, 2)
	require.Equal(t, fmt.Sprintf("id%d", alone.ID()), s.Workers[0].Name)
	require.Equal(t, "0", s.Workers[1].Name)
	for _, w := range s.Workers {
		require.Equal(t, runtime.Version(), w.GoVersion)
	}
}

// TestObserved: the beginning of a reload comes before its end, a new number of
// workers is told, and trouble too, which goes on being logged or told as before.
func TestObserved(t *testing.T) {
	begin(t, echo, 1)
	rec := clustertest.NewRecorder()
	t.Cleanup(core().OnReloading(func() { rec.Add("reloading") }))
	t.Cleanup(cluster.OnReload(func(r cluster.ReloadResult) { rec.Add("reloaded %v", r.Err) }))
	t.Cleanup(core().OnScale(func(n int) { rec.Add("scale %d", n) }))
	require.NoError(t, cluster.Reload(t.Context()))
	rec.Until(t, "reloaded")
	require.NoError(t, cluster.Scale(2))
	rec.Until(t, "scale")
	require.Equal(t, []string{"reloading", "reloaded <nil>", "scale 2"}, rec.All())

	told := make(chan int, 100)
	t.Cleanup(core().OnTrouble(func(id int, err error) { told <- id }))
	t.Cleanup(cluster.OnError(func(w *cluster.Process, err error) { rec.Add("error %d", w.ID()) }))
	t.Cleanup(cluster.Handle("number", func(*cluster.Process, struct{ V int }) {}))
	id := clustertest.Await(t, told, "trouble")
	require.Positive(t, id)
	rec.Until(t, fmt.Sprintf("error %d", id)) // another worker's may have come before
}
