package share

import (
	"io"
	"testing"
	"time"

	"github.com/go-cluster/cluster/internal/roomtest"
	"github.com/stretchr/testify/require"
)

// A lone worker that refuses every connection is not offered the same one in a
// loop, and when it takes connections again it gets it.
func TestRefusal(t *testing.T) {
	d, dial := newDispatcherFor(t)
	worker := newCommandWorker()
	close(worker.may)
	d.add(worker)
	client := dial()

	const span = 500 * time.Millisecond
	time.Sleep(span) // the span is the measure, and a slow machine offers less
	// 5 + 10 + 20 + ... ms: seven fit. A loop would make thousands.
	require.LessOrEqual(t, worker.offers.Load(), int32(10))
	require.GreaterOrEqual(t, worker.offers.Load(), int32(2))

	worker.take.Store(true)
	roomtest.Await(t, worker.taken, "connection").Release()
	_, err := client.Read(make([]byte, 1))
	require.ErrorIs(t, err, io.EOF, "the master has closed its copy as well")
	require.Eventually(t, func() bool { return worker.took.Load() == 1 }, roomtest.Patience, time.Millisecond) // it is told after the close
}

// A worker that has closed its listener with a connection on its way to it may
// still take that one, and gets no other.
func TestTakesItsLast(t *testing.T) {
	d, dial := newDispatcherFor(t)
	worker := newCommandWorker()
	worker.take.Store(true)
	d.add(worker)
	client := dial()
	h := roomtest.Await(t, worker.taken, "connection")
	d.remove(worker)
	close(worker.may)
	h.Release()
	_, err := client.Read(make([]byte, 1))
	require.ErrorIs(t, err, io.EOF, "the master has closed its copy as well")
	d.mu.Lock()
	defer d.mu.Unlock()
	require.Empty(t, d.free)
}

// A connection that a worker has died with is another worker's next one.
func TestDeadWorkersConnection(t *testing.T) {
	d, dial := newDispatcherFor(t)
	dead, heir := newCommandWorker(), newCommandWorker()
	dead.dead.Store(true)
	close(heir.may)
	heir.take.Store(true)
	d.add(dead)
	client := dial()
	require.Eventually(t, func() bool { return dead.offers.Load() == 1 }, roomtest.Patience, time.Millisecond)
	d.add(heir)
	d.remove(dead)
	close(dead.may)
	h := roomtest.Await(t, heir.taken, "connection")
	h.Release()
	_, err := client.Read(make([]byte, 1))
	require.ErrorIs(t, err, io.EOF)
	require.EqualValues(t, 1, dead.offers.Load())
}

// Workers have connections in turn, each only one at a time.
func TestInTurn(t *testing.T) {
	d, dial := newDispatcherFor(t)
	var workers []*commandWorker
	for range 3 {
		w := newCommandWorker()
		w.take.Store(true)
		workers = append(workers, w)
		d.add(w)
	}
	for range 4 {
		dial()
	}
	for _, w := range workers {
		roomtest.Await(t, w.taken, "connection").Release()
	}
	for _, w := range workers {
		require.EqualValues(t, 1, w.offers.Load(), "it has not answered")
	}
	close(workers[1].may)
	roomtest.Await(t, workers[1].taken, "connection").Release()
}
