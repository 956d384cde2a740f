package share

import (
	"encoding/json"
	"net"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/go-cluster/cluster/internal/handle"
	"github.com/go-cluster/cluster/internal/roomtest"
	"github.com/go-cluster/cluster/internal/socket"
	"github.com/go-cluster/cluster/internal/wire"
)

// flowWorker is a worker by hand that joins groups.
type flowWorker struct {
	*commandWorker
	reading *atomic.Bool // its count has moved whenever somebody looks
}

func newFlowWorker() flowWorker { return flowWorker{newCommandWorker(), new(atomic.Bool)} }

func (w flowWorker) Load() (Load, bool) {
	if w.reading.Load() {
		w.load.Store(&Load{Received: time.Now().UnixNano()})
	}
	return w.commandWorker.Load()
}

// hears returns the next line from the master.
func (w flowWorker) hears(t *testing.T) wire.Message {
	t.Helper()
	line := roomtest.Await(t, w.answers, "answer")
	m, err := wire.Parse([]byte(line[strings.Index(line, "{"):]))
	require.NoError(t, err)
	return m
}

// join joins the group of the address and returns the answer.
func (w flowWorker) join(t *testing.T, r *Registry, address string) wire.Message {
	t.Helper()
	q := resolved(t, "udp", address).message()
	q.Go.Flow = new(wire.Flow)
	require.NoError(t, r.Answer(w, reread(t, q), Terms{Workers: 2}))
	return w.hears(t)
}

// reads returns what the worker is told to read next.
func (w flowWorker) reads(t *testing.T) []int {
	t.Helper()
	m := w.hears(t)
	require.Equal(t, wire.ActShares, m.Act)
	return m.Go.Flow.Read
}

// TestFlowShares: every share is read by one of the workers that take connections. They have
// equally many, and few shares change hands.
func TestFlowShares(t *testing.T) {
	r := newTestRegistry(t)
	a, b, c := newFlowWorker(), newFlowWorker(), newFlowWorker()
	joined := a.join(t, r, "127.0.0.1:0")
	key, n := joined.Key, joined.Go.Flow.Shares
	require.Equal(t, minFlowShares, n)
	b.join(t, r, "127.0.0.1:0")
	c.join(t, r, "127.0.0.1:0")
	require.Len(t, r.Listening(), 1)
	require.Empty(t, a.answers, "nobody takes connections")

	r.Flows.Take(a, key)
	require.Len(t, a.reads(t), n)
	r.Flows.Take(b, key)
	ofA, ofB := a.reads(t), b.reads(t)
	require.Len(t, ofA, n/2)
	require.ElementsMatch(t, slices.Concat(ofA, ofB), slices.Collect(func(yield func(int) bool) {
		for i := range n {
			yield(i)
		}
	}))
	r.Flows.Take(c, key)
	r.Flows.Take(c, key)
	ofA, ofB = a.reads(t), b.reads(t)
	ofC := c.reads(t)
	for _, of := range [][]int{ofA, ofB, ofC} {
		require.InDelta(t, n/3, len(of), 1)
	}

	r.Leave(b)
	moreA, moreC := a.reads(t), c.reads(t)
	require.Subset(t, moreA, ofA)
	require.Subset(t, moreC, ofC)
	require.Equal(t, n, len(moreA)+len(moreC))
	r.Forget(c)
	require.Len(t, a.reads(t), n)
	r.Leave(a)
	require.Empty(t, a.answers)
	r.Flows.Take(b, "unknown")
	require.Empty(t, b.answers)
}

// TestFlowsOfFullWorkers: while a worker is full the others read its shares; if all are,
// what comes waits for the first that has room.
func TestFlowsOfFullWorkers(t *testing.T) {
	r := newTestRegistry(t)
	a, b := newFlowWorker(), newFlowWorker()
	key := a.join(t, r, "127.0.0.1:0").Key
	b.join(t, r, "127.0.0.1:0")
	r.Flows.Take(a, key)
	a.reads(t)
	r.Flows.Take(b, key)
	a.reads(t)
	b.reads(t)
	r.Flows.NoRoom(a)
	require.Empty(t, a.reads(t))
	require.Len(t, b.reads(t), minFlowShares)
	r.Flows.NoRoom(b)
	r.Flows.NoRoom(b)
	require.Empty(t, b.answers, "they are nobody's")
	r.HasRoom(a)
	require.Len(t, a.reads(t), minFlowShares)
	require.Empty(t, b.reads(t))
	r.HasRoom(b)
	require.Len(t, a.reads(t), minFlowShares/2)
	require.Len(t, b.reads(t), minFlowShares/2)
}

// TestFlowsOfWorkersThatHang: what a worker leaves in its shares others read as well, until
// it reads again, or once until it answers a heartbeat.
func TestFlowsOfWorkersThatHang(t *testing.T) {
	r := newTestRegistry(t)
	a, b := newFlowWorker(), newFlowWorker()
	joined := a.join(t, r, "127.0.0.1:0")
	b.join(t, r, "127.0.0.1:0")
	r.host.Turn(func() { r.Flows.Take(a, joined.Key) })
	a.reads(t)
	r.host.Turn(func() { r.Flows.Take(b, joined.Key) })
	a.reads(t)
	b.reads(t)
	for range 2 * minFlowShares {
		c, err := net.DialUDP("udp", nil, &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1), Port: joined.Sockname.Port})
		require.NoError(t, err)
		defer c.Close()
		_, err = c.Write(make([]byte, 20)) // enough for a hash of where it comes from
		require.NoError(t, err)
	}
	told := func(w flowWorker) []int {
		t.Helper()
		roomtest.Eventually(t, func() bool { return len(w.answers) > 0 }, "word of the master")
		return w.reads(t)
	}
	b.reading.Store(true)
	require.Len(t, told(b), minFlowShares, "a hangs")
	a.reading.Store(true)
	require.Len(t, told(b), minFlowShares/2, "a goes on")
	a.reading.Store(false)
	require.Len(t, told(b), minFlowShares, "a hangs again")
	r.host.Turn(func() { r.Flows.Beat(a) })
	require.Len(t, b.reads(t), minFlowShares/2, "it is called back")
	require.Len(t, told(b), minFlowShares, "it answers, and does not read")
	r.host.Turn(func() { r.Flows.Beat(a) })
	require.Empty(t, b.answers, "not a second time")
	require.Empty(t, a.answers, "it has its shares all the time")
	a.reading.Store(true)
	require.Len(t, told(b), minFlowShares/2)
	r.host.Turn(r.CloseAll)
	require.Nil(t, r.Shards.patrol)
}

// TestPlaceOfFullWorker: a worker that is full reads no share, at once, and tells the master
// in a moment; when it has room it reads what is its own.
func TestPlaceOfFullWorker(t *testing.T) {
	l := &masterLink{said: make(chan string, 100)}
	places := new(testPlaces)
	places.most.Store(1)
	a := NewAsker(Worker{Link: l, Go: true, Places: places, Draining: func() bool { return false }})
	p := &FlowPlace{asker: a, key: "key"}
	a.places["key"] = p
	reads := make(chan []int, 100)
	told := func(shares ...int) {
		a.Shares(&wire.Message{Key: "key", Go: &wire.Extension{Flow: &wire.Flow{Read: shares}}})
	}
	p.Take(func(shares []int) { reads <- shares })
	a.Filled()
	require.Empty(t, reads, "it has been told nothing yet")
	told(1, 2)
	require.Equal(t, []int{1, 2}, <-reads)
	_, ended := p.Connects()
	require.True(t, p.Full())
	a.Filled()
	require.Empty(t, <-reads)
	require.Contains(t, roomtest.Await(t, l.said, "word"), wire.ActNoRoom)
	told()
	require.Empty(t, <-reads)
	p.read = nil // as a second place of the worker, which takes part now
	p.Take(func(shares []int) { reads <- shares })
	require.Contains(t, roomtest.Await(t, l.said, "word"), wire.ActNoRoom, "the master did not know of it")
	ended()
	a.HasRoom()
	require.Empty(t, <-reads)
	require.Contains(t, roomtest.Await(t, l.said, "word"), wire.ActRoom)
	told(2)
	require.Equal(t, []int{2}, <-reads)
}

// TestSocketWithoutADescriptor: a socket that has come, and that this worker has no descriptor
// to use for, is there at the next try.
func TestSocketWithoutADescriptor(t *testing.T) {
	c, err := net.ListenPacket("udp", "127.0.0.1:0")
	require.NoError(t, err)
	defer c.Close()
	p := &FlowPlace{asker: NewAsker(Worker{Link: &masterLink{}, Go: true, Draining: func() bool { return true }}), spare: make(map[int]*handle.Handle)}
	for range 2 {
		h, err := socket.Duplicate(c.(*net.UDPConn))
		require.NoError(t, err)
		withoutDescriptors(t, func() { _, err = p.open(3, h) })
		require.Error(t, err) // of a limit of 0 it is EINVAL
		if len(p.spare) == 1 {
			share, err := p.Share(t.Context(), 3)
			require.NoError(t, err)
			require.Equal(t, c.LocalAddr(), share.LocalAddr())
			require.NoError(t, share.Close())
			require.Empty(t, p.spare)
			require.NoError(t, p.Close())
		}
	}
	require.Empty(t, p.spare, "it is closed")
}

// TestOwnSockets: a worker has one of its own, which nobody else gets before it is dead.
func TestOwnSockets(t *testing.T) {
	r := newTestRegistry(t)
	a, b := newFlowWorker(), newFlowWorker()
	ask := func(w flowWorker, key string, index int) (*handle.Handle, error) {
		err := r.Flows.Socket(w, &wire.Message{Key: key, Index: index, Seq: wire.NextSeq()})
		w.hears(t)
		if err != nil {
			return nil, err
		}
		h := roomtest.Await(t, w.sockets, "socket")
		t.Cleanup(h.Release)
		return h, nil
	}
	ofA := a.join(t, r, "127.0.0.1:0")
	ofB := b.join(t, r, "127.0.0.1:0")
	require.Equal(t, ofA.Key, ofB.Key)
	require.Equal(t, ofA.Go.Flow.Tag, ofB.Go.Flow.Tag)
	require.Equal(t, ofA.Go.Flow.Reset, ofB.Go.Flow.Reset)
	require.NotEqual(t, ofA.Go.Flow.Own, ofB.Go.Flow.Own)
	key := ofA.Key
	for _, index := range []int{ofA.Go.Flow.Own, 0, ofA.Go.Flow.Shares - 1} {
		_, err := ask(a, key, index)
		require.NoError(t, err)
		_, err = ask(a, key, index)
		require.ErrorContains(t, err, "twice")
	}
	_, err := ask(a, key, 1)
	require.NoError(t, err)
	a.lost() // three times
	require.EqualValues(t, -int(syscall.EMFILE), *a.hears(t).Errno)
	_, err = ask(a, key, 1)
	require.NoError(t, err, "it is there again")
	for _, index := range []int{-1, ofB.Go.Flow.Own, ofB.Go.Flow.Own + 1, 1 << 30} {
		_, err := ask(a, key, index)
		require.Error(t, err, "%d", index)
	}
	_, err = ask(newFlowWorker(), key, 0)
	require.Error(t, err)
	_, err = ask(a, "unknown", 0)
	require.Error(t, err)
	require.EqualValues(t, -int(syscall.EADDRINUSE), *a.join(t, r, "127.0.0.1:0").Errno)

	c, d := newFlowWorker(), newFlowWorker()
	r.Leave(a)
	r.Forget(a) // its channel is closed, and it still reads
	require.Equal(t, ofB.Go.Flow.Own+1, c.join(t, r, "127.0.0.1:0").Go.Flow.Own)
	r.Flows.Dead(a)
	require.Equal(t, ofA.Go.Flow.Own, d.join(t, r, "127.0.0.1:0").Go.Flow.Own)
}

// TestFlowsHandedOver: another program goes on with the sockets. It knows which worker reads
// which share, whose own socket is which, and which are free. It opens one more when one more
// worker comes.
func TestFlowsHandedOver(t *testing.T) {
	r := newTestRegistry(t)
	a, b, c := newFlowWorker(), newFlowWorker(), newFlowWorker()
	workers := []flowWorker{a, b, c}
	var joined []wire.Message
	for i, w := range workers {
		w.id = i + 1
		joined = append(joined, w.join(t, r, "127.0.0.1:0"))
	}
	key := joined[0].Key
	r.Flows.Take(a, key)
	a.reads(t)
	r.Flows.Take(b, key)
	ofA := a.reads(t)
	b.reads(t)
	require.NoError(t, r.Flows.Socket(a, &wire.Message{Key: key, Index: ofA[0]}))
	a.hears(t)
	roomtest.Await(t, a.sockets, "socket").Release()
	r.Forget(b) // its channel has closed, and it still reads
	require.Len(t, a.reads(t), minFlowShares)
	r.Forget(c)
	r.Flows.Dead(c)

	text, err := json.Marshal(StateOf(r, func(m Member) int { return m.ID() }))
	require.NoError(t, err)
	var state State
	require.NoError(t, json.Unmarshal(text, &state))
	for i, fd := range state.Flows[0].Sockets { // the next program has descriptors of its own here
		h, err := socket.DuplicateFD(fd)
		require.NoError(t, err)
		state.Flows[0].Sockets[i] = h.FD()
	}
	next := newTestRegistry(t)
	require.NoError(t, Restore(next, state, make(handle.Taken), func(id int) Member {
		if id == c.id {
			return nil
		}
		return workers[id-1]
	}))
	r.CloseAll()

	require.ErrorContains(t, next.Flows.Socket(a, &wire.Message{Key: key, Index: ofA[0]}), "asks twice")
	a.hears(t)
	require.Empty(t, a.answers, "nothing has changed hands")
	d, e := newFlowWorker(), newFlowWorker()
	again := d.join(t, next, "127.0.0.1:0")
	require.Equal(t, joined[0].Sockname, again.Sockname)
	require.Equal(t, key, again.Key)
	require.Equal(t, joined[0].Go.Flow.Tag, again.Go.Flow.Tag)
	require.Equal(t, joined[0].Go.Flow.Reset, again.Go.Flow.Reset)
	require.Equal(t, joined[2].Go.Flow.Own, again.Go.Flow.Own, "of the worker that has died")
	require.Equal(t, minFlowShares+3, e.join(t, next, "127.0.0.1:0").Go.Flow.Own)
	next.Flows.Take(d, key)
	require.Len(t, slices.Concat(a.reads(t), d.reads(t)), minFlowShares)
	require.Equal(t, minFlowShares+4, next.Listening()[0].Sockets)
}

// TestFlowsEnd: the address ends when the last worker closes it, after a reload, and at the end
// of the cluster. While the master holds it, it does not end with the workers.
func TestFlowsEnd(t *testing.T) {
	r := newTestRegistry(t)
	free := func(a *net.UDPAddr) bool {
		c, err := net.ListenUDP("udp", a)
		if err == nil {
			c.Close()
		}
		return err == nil
	}
	begin := func() (w flowWorker, key string, at *net.UDPAddr) {
		w = newFlowWorker()
		m := w.join(t, r, "127.0.0.1:0")
		at = &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1), Port: m.Sockname.Port}
		require.False(t, free(at))
		return w, m.Key, at
	}
	w, key, at := begin()
	r.Close(w, key, true)
	require.True(t, free(at))

	w, key, at = begin()
	r.Close(w, key, false) // in a drain: its successor comes
	require.False(t, free(at))
	r.Outdate(0, true)
	require.True(t, free(at))

	w, key, at = begin()
	addr, release, err := r.Flows.Hold(t.Context(), resolved(t, "udp", "127.0.0.1:0"), 2)
	require.NoError(t, err)
	require.Equal(t, at.String(), addr.String())
	r.Close(w, key, true)
	require.False(t, free(at))
	release()
	require.True(t, free(at))

	_, _, at = begin()
	r.CloseAll()
	require.True(t, free(at))
}

// TestFlowsOfWhat: a worker that asks for a group of anything but a UDP address is refused.
func TestFlowsOfWhat(t *testing.T) {
	r := newTestRegistry(t)
	w := newFlowWorker()
	for _, q := range []Query{resolved(t, "tcp", "127.0.0.1:0"), resolved(t, "unixgram", "/tmp/x"), resolved(t, "udp", "224.0.0.1:0")} {
		m := q.message()
		m.Go.Flow = new(wire.Flow)
		require.NoError(t, r.Answer(w, reread(t, m), Terms{Workers: 2}))
		require.EqualValues(t, -int(syscall.EINVAL), *w.hears(t).Errno, "%v", q)
	}
}
