package share

import (
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/go-cluster/cluster/internal/handle"
	"github.com/go-cluster/cluster/internal/roomtest"
	"github.com/go-cluster/cluster/internal/socket"
	"github.com/go-cluster/cluster/internal/wire"
	"github.com/stretchr/testify/require"
)

// masterLink is a channel to a master that only listens.
type masterLink struct {
	said  chan string
	delay time.Duration // of every answer

	orders []string // acts
}

func (l *masterLink) Ask(*wire.Message, func(*wire.Message, *handle.Handle)) {}
func (l *masterLink) Order(w *wire.Message) error {
	l.orders = append(l.orders, w.Act)
	return nil
}
func (l *masterLink) Answer(line []byte) {
	time.Sleep(l.delay)
	l.said <- string(line)
}

// testPlaces are as many as most; 0 is any number.
type testPlaces struct{ most, taken atomic.Int32 }

func (p *testPlaces) Full() bool { return p.most.Load() > 0 && p.taken.Load() >= p.most.Load() }
func (p *testPlaces) Room() (int, bool) {
	return int(p.most.Load() - p.taken.Load()), p.most.Load() > 0
}
func (p *testPlaces) Unreserve() { p.taken.Add(-1) }
func (p *testPlaces) Connects() (accepted, ended func()) {
	p.taken.Add(1)
	return func() {}, p.Unreserve
}
func (p *testPlaces) Reserve() bool {
	if p.Full() {
		return false
	}
	p.taken.Add(1)
	return true
}

// newTestQueue is the queue of an address in a worker that drains when told.
func newTestQueue(drains *bool) (*masterLink, *Asker, *handedQueue) {
	l := &masterLink{said: make(chan string, 100)}
	a := NewAsker(Worker{Link: l, Places: new(testPlaces), Draining: func() bool { return drains != nil && *drains }})
	return l, a, a.newQueue("key")
}

// someConn is one end of a connection, as it comes from the master.
func someConn(t *testing.T) *handle.Handle {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer ln.Close()
	c, err := net.Dial("tcp", ln.Addr().String())
	require.NoError(t, err)
	t.Cleanup(func() { c.Close() })
	s, err := ln.Accept()
	require.NoError(t, err)
	defer s.Close()
	h, err := socket.Duplicate(s.(*net.TCPConn))
	require.NoError(t, err)
	return h
}

// offered is the message that offers a connection.
func offered(n int64) *wire.Message { return &wire.Message{Key: "key", Seq: &n} }

// What is offered to a worker that drains is refused, whether its program closes
// the listener or not.
func TestGivesBackInADrain(t *testing.T) {
	drains := false
	l, a, q := newTestQueue(&drains)
	a.Offered(offered(1), someConn(t))
	require.Empty(t, l.said, "no Accept has come for it")
	drains = true
	require.NoError(t, q.SetDeadline(time.Unix(1, 0)))
	require.Contains(t, roomtest.Await(t, l.said, "answer"), `"ack":1,"accepted":false`)
	a.Offered(offered(2), someConn(t))
	require.Contains(t, roomtest.Await(t, l.said, "answer"), `"ack":2,"accepted":false`)
	_, err := q.Accept()
	require.ErrorIs(t, err, errTimeout)
}

// A listener that is closed in a drain does not end its address: the master may not have
// heard of the drain yet. A node primary, which has no ends of addresses, is told.
func TestCloseInADrain(t *testing.T) {
	for _, speaksGo := range []bool{true, false} {
		for _, drains := range []bool{true, false} {
			l := &masterLink{}
			a := NewAsker(Worker{Link: l, Go: speaksGo, Ends: func() bool { return drains }})
			(&Grant{Query: resolved(t, "tcp", "127.0.0.1:1"), asker: a, key: "key"}).Release()
			if speaksGo && drains {
				require.Empty(t, l.orders)
			} else {
				require.Equal(t, []string{wire.ActClose}, l.orders)
			}
		}
	}
}

// A closed queue gives back what it was offered; another key is no queue's.
func TestGivesBackWhenClosed(t *testing.T) {
	l, a, q := newTestQueue(nil)
	a.Offered(offered(1), someConn(t))
	require.NoError(t, q.Close())
	require.Contains(t, roomtest.Await(t, l.said, "answer"), `"ack":1,"accepted":false`)
	a.Offered(offered(2), someConn(t))
	require.Contains(t, roomtest.Await(t, l.said, "answer"), `"ack":2,"accepted":false`)
	_, err := q.Accept()
	require.ErrorIs(t, err, net.ErrClosed)
}

// An Accept returns a connection after the master has been told of it, whether it
// waited for the connection or found it. Neither its deadline nor Close, coming
// while the master is being told, loses the connection.
func TestAcceptIsToldFirst(t *testing.T) {
	for name, meanwhile := range map[string]func(*handedQueue){
		"nothing":  func(*handedQueue) {},
		"deadline": func(q *handedQueue) { q.SetDeadline(time.Unix(1, 0)) },
		"close":    func(q *handedQueue) { q.Close() },
	} {
		t.Run(name, func(t *testing.T) {
			l, a, q := newTestQueue(nil)
			l.delay = 50 * time.Millisecond
			accepted := make(chan net.Conn, 1)
			told := make(chan int, 1)
			go func() {
				c, _ := q.Accept()
				told <- len(l.said)
				accepted <- c
			}()
			require.Eventually(t, func() bool { q.mu.Lock(); defer q.mu.Unlock(); return q.waiting == 1 }, roomtest.Patience, time.Millisecond)
			go a.Offered(offered(1), someConn(t))
			require.Eventually(t, func() bool { q.mu.Lock(); defer q.mu.Unlock(); return q.promised == 1 || q.waiting == 0 }, roomtest.Patience, time.Microsecond)
			meanwhile(q)
			c := roomtest.Await(t, accepted, "connection")
			require.NotNil(t, c)
			require.Equal(t, 1, roomtest.Await(t, told, "count"))
			c.Close()
		})
	}
	l, a, q := newTestQueue(nil)
	a.Offered(offered(1), someConn(t))
	c, err := q.Accept()
	require.NoError(t, err)
	c.Close()
	require.Contains(t, roomtest.Await(t, l.said, "answer"), `"accepted":true`)
}

// The pause after a failed accept and the deadline of an Accept end, however
// closely the timer comes upon the wait for it.
func TestWaitsEnd(t *testing.T) {
	const tries = 2_500
	for name, wait := range map[string]func(d time.Duration){
		"sleep": func(delay time.Duration) {
			d := new(dispatcher)
			d.changed.L = &d.mu
			d.sleep(delay)
		},
		"deadline": func(d time.Duration) {
			_, _, q := newTestQueue(nil)
			q.SetDeadline(time.Now().Add(d))
			q.Accept()
		},
	} {
		t.Run(name, func(t *testing.T) {
			var group sync.WaitGroup
			for range 8 {
				group.Go(func() {
					for i := range tries {
						wait(time.Duration(i%2000) * time.Nanosecond)
					}
				})
			}
			done := make(chan bool, 1)
			go func() { group.Wait(); done <- true }()
			require.True(t, roomtest.Await(t, done, "end of all waits"))
		})
	}
}
