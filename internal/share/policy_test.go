package share

import (
	"io"
	"testing"
	"testing/synctest"
	"time"

	"github.com/go-cluster/cluster/internal/roomtest"
	"github.com/stretchr/testify/require"
)

// loaded is a worker that has so many connections open, of all that it has ever had.
func loaded(accepted, open int64) *commandWorker {
	w := newCommandWorker()
	w.take.Store(true)
	w.load.Store(&Load{Accepted: accepted, Open: open})
	return w
}

// seatsOf are the seats of workers that are all free.
func seatsOf(workers ...*commandWorker) (free []*seat, all map[Member]*seat) {
	all = make(map[Member]*seat)
	for _, w := range workers {
		s := &seat{member: w}
		free = append(free, s)
		all[w] = s
	}
	return free, all
}

// The worker with the fewest connections gets the next one; workers with equally many take
// turns. An offered connection counts. If a worker that is not free has the fewest, the
// connection waits for it, but not for ever.
func TestLeastOpen(t *testing.T) {
	begun := time.Now()
	workers := []*commandWorker{loaded(9, 3), loaded(9, 1), loaded(9, 1), loaded(9, 2)}
	free, all := seatsOf(workers...)
	next := func(at time.Duration) (int, time.Duration) { return leastOpen{}.next(begun.Add(at), free, all) }
	i, wait := next(0)
	require.Equal(t, []any{1, time.Duration(0)}, []any{i, wait})

	free[1].offered = begun
	free = without(free, 1)
	i, _ = next(0)
	require.Equal(t, 1, i, "the other one with 1: the first has 2 now")
	free[1].offered = begun.Add(30 * time.Millisecond)
	free = without(free, 1)
	i, _ = next(0)
	require.Equal(t, 1, i, "it has 2, and so have those with an offer")

	workers[1].load.Store(&Load{Accepted: 9})
	i, wait = next(60 * time.Millisecond)
	require.Equal(t, []any{-1, 40 * time.Millisecond}, []any{i, wait})
	i, wait = next(100 * time.Millisecond)
	require.Equal(t, []any{1, time.Duration(0)}, []any{i, wait})
}

// A worker that does not tell counts by what it was given, as the others do by what of
// that is open. One that is new does not have everything for long.
func TestLoadOfWhoDoesNotTell(t *testing.T) {
	silent := newCommandWorker()
	free, all := seatsOf(loaded(100, 20), loaded(300, 60), silent)
	free[2].given = 250
	weigh(all)
	require.InDeltaSlice(t, []float64{20, 60, 50}, []float64{free[0].load, free[1].load, free[2].load}, 1e-9)

	other := newCommandWorker()
	free, all = seatsOf(silent, other)
	free[0].given, free[1].given = 5000, 4000
	require.EqualValues(t, 3000, headStart(all))
	weigh(all)
	require.InDeltaSlice(t, []float64{5000, 4000}, []float64{free[0].load, free[1].load}, 1e-9)
	require.Zero(t, headStart(nil))

	lying := loaded(0, 1<<48)
	_, all = seatsOf(lying, silent)
	all[silent].given = 7
	weigh(all)
	require.InDelta(t, 7, all[silent].load, 1e-9)
}

// While the least does not answer, the others are not given what it should have: until
// its time is up, which nobody but a timer tells.
func TestTheLeastIsWaitedFor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := &dispatcher{policy: leastOpen{}, seats: make(map[Member]*seat), lent: true}
		d.changed.L = &d.mu
		least, other := loaded(5, 0), loaded(5, 5)
		for _, w := range []*commandWorker{least, other} {
			d.add(w)
		}
		d.mu.Lock()
		require.True(t, d.hungry())
		d.seats[least].offered = time.Now()
		d.free = without(d.free, 0)
		require.False(t, d.hungry())
		d.dispatch()
		looked := make(chan time.Duration)
		begun := time.Now()
		go func() {
			d.waitFree()
			looked <- time.Since(begun)
		}()
		require.Equal(t, answerTime, <-looked)
		d.mu.Lock()
		require.Nil(t, d.timer)
		d.mu.Unlock()

		// When it has left, there is nothing to wait for.
		d.mu.Lock()
		d.seats[least].offered = time.Now()
		d.mu.Unlock()
		begun = time.Now()
		go func() {
			d.waitFree()
			looked <- time.Since(begun)
		}()
		synctest.Wait()
		d.remove(least)
		require.Zero(t, <-looked)
		d.close()
	})
}

// A worker that says that it is full is offered nothing more until it has room; what it
// was offered goes elsewhere at once.
func TestAFullWorkerIsOfferedNothing(t *testing.T) {
	d, dial := newDispatcherFor(t)
	full, other := newCommandWorker(), newCommandWorker()
	close(full.may)
	close(other.may)
	full.full.Store(true)
	other.take.Store(true)
	d.add(full)
	d.add(other)
	for range 5 {
		client := dial()
		roomtest.Await(t, other.taken, "connection").Release()
		_, err := client.Read(make([]byte, 1))
		require.ErrorIs(t, err, io.EOF)
	}
	require.EqualValues(t, 1, full.offers.Load(), "the first was refused")

	full.full.Store(false)
	full.take.Store(true)
	d.hasRoom(full)
	d.hasRoom(full) // said twice, it is not free twice
	d.mu.Lock()
	free := 0
	for _, s := range d.free {
		if s == d.seats[full] {
			free++
		}
	}
	d.mu.Unlock()
	require.LessOrEqual(t, free, 1)
	d.remove(other)
	dial()
	roomtest.Await(t, full.taken, "connection").Release()
	d.hasRoom(newCommandWorker()) // nobody's
}

// The master hears with the answer that the last place is taken, and once that there is
// one again. What comes meanwhile goes back.
func TestAFullWorkerSaysSo(t *testing.T) {
	l, a, q := newTestQueue(nil)
	a.worker.Go = true
	places := a.worker.Places.(*testPlaces)
	places.most.Store(1)
	a.HasRoom()
	require.Empty(t, l.said, "the master does not think otherwise")
	a.Offered(offered(1), someConn(t))
	c, err := q.Accept()
	require.NoError(t, err)
	defer c.Close()
	require.Contains(t, roomtest.Await(t, l.said, "answer"), `"ack":1,"accepted":true,"full":true`)
	a.Offered(offered(2), someConn(t))
	require.Contains(t, roomtest.Await(t, l.said, "answer"), `"ack":2,"accepted":false,"full":true`)
	a.HasRoom()
	require.Empty(t, l.said, "there is none")
	places.Unreserve()
	a.HasRoom()
	a.HasRoom()
	require.Contains(t, roomtest.Await(t, l.said, "word"), `"act":"room"`)
	require.Empty(t, l.said)
	places.most.Store(2)
	a.Offered(offered(3), someConn(t))
	d, err := q.Accept()
	require.NoError(t, err)
	defer d.Close()
	require.NotContains(t, roomtest.Await(t, l.said, "answer"), "full")

	// A connection that comes while an Accept waits, and finds the places taken.
	places.taken.Store(2)
	go q.Accept()
	require.Eventually(t, func() bool { q.mu.Lock(); defer q.mu.Unlock(); return q.waiting == 1 }, roomtest.Patience, time.Millisecond)
	a.Offered(offered(4), someConn(t))
	require.Contains(t, roomtest.Await(t, l.said, "answer"), `"ack":4,"accepted":false,"full":true`)
	require.NoError(t, q.Close())
	require.EqualValues(t, 2, places.taken.Load())
}
