package cluster

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/go-cluster/cluster/internal/channel"
	"github.com/go-cluster/cluster/internal/drain"
	"github.com/go-cluster/cluster/internal/handle"
	"github.com/go-cluster/cluster/internal/link"
	"github.com/go-cluster/cluster/internal/roomtest"
	"github.com/go-cluster/cluster/internal/tickets"
	"github.com/go-cluster/cluster/internal/wire"
	"github.com/stretchr/testify/require"
)

// testInside is a worker's own side of p whose drain ends nothing.
func testInside(p *Process, hello announcement) *inside {
	in := newInside(p, hello)
	in.drain = drain.New(p.id, drain.Limits{Ever: hello.Connections}, drain.Hooks{
		Begun:     func() {},
		Announce:  func(drain.Reason) {},
		Full:      func() {},
		Filled:    func() {},
		Room:      func() {},
		Accepts:   func() {},
		Work:      func() {},
		Flush:     func(context.Context) {},
		Close:     func() {},
		Callbacks: func(<-chan struct{}) {},
		Logger:    slog.Default,
		Exit:      func(int) {},
	})
	return in
}

// TestPingsFollowEachOther: every ping is answered, however soon it follows on
// the answer to the last one. The master sends no other until then, and kills a
// worker that does not answer.
func TestPingsFollowEachOther(t *testing.T) {
	l := newPeered(t, Options{})
	in := newInside(l.p, announcement{})
	in.drain = drain.New(1, drain.Limits{}, in.drainHooks())
	lines := bufio.NewReader(l.peer)
	for range 100 {
		in.pinged(nil)
		line, err := lines.ReadString('\n')
		require.NoError(t, err)
		require.Equal(t, 1, strings.Count(line, wire.ActPong))
	}
}

// peered is a Process over a real channel. The test is the peer.
type peered struct {
	p      *Process
	t      testing.TB
	peer   roomtest.Peer
	errors chan error
	ended  chan struct{}
}

func (l *peered) Internal(_ *wire.Message, h *handle.Handle) { h.Release() }
func (l *peered) Coord(string, uint64, []byte)               {}
func (l *peered) Closed()                                    { close(l.ended) }
func (l *peered) Overrun()                                   {}

// newPeered makes a Process that does not read yet.
func newPeered(t testing.TB, o Options) *peered {
	t.Helper()
	s, err := o.resolve()
	require.NoError(t, err)
	ours, theirs, err := channel.Pair()
	require.NoError(t, err)
	p := newProcess(std, 1, -1)
	p.connected.Store(true)
	l := &peered{p: p, t: t, peer: roomtest.OpenPeer(t, theirs), errors: make(chan error, 100000), ended: make(chan struct{})}
	p.link = link.New(ours, (*inbox)(p), l, link.PeerGo, link.Options{Name: linkName(1), MaxMessage: s.MaxMessage, MaxQueue: s.MaxQueue})
	p.OnError(func(_ *Process, err error) { l.errors <- err })
	std.live.add(p)
	t.Cleanup(func() {
		l.peer.Close()
		std.live.remove(p)
		never := make(chan struct{})
		time.AfterFunc(roomtest.Patience, func() { close(never) })
		p.events.idle(never)
	})
	return l
}

// start lets the Process read until the end of the test.
func (l *peered) start() *peered {
	l.p.link.Start(0)
	l.t.Cleanup(func() {
		l.peer.Close()
		roomtest.Await(l.t, l.ended, "end of the link")
	})
	return l
}

func (l *peered) write(s string) {
	l.t.Helper()
	_, err := l.peer.Write([]byte(s))
	require.NoError(l.t, err)
}

// hasEvents reports whether something was read.
func (l *peered) hasEvents() bool { in, _ := l.p.link.Counts(); return in > 0 }

// repeated returns n lines.
func repeated(n int, line string) string { return strings.Repeat(line+"\n", n) }

// TestUnclaimedInput: messages and requests that nothing takes are bounded, and
// passing the bound is reported, once for each time.
func TestUnclaimedInput(t *testing.T) {
	for name, line := range map[string]string{
		"messages": `{"cmd":"unclaimed"}`,
		"requests": `{"cmd":"NODE_GO_CLUSTER","act":"request","id":1,"msg":{"cmd":"unclaimed"}}`,
	} {
		t.Run(name, func(t *testing.T) {
			const count = 5000
			l := newPeered(t, Options{MaxQueue: 64 << 10}).start()
			go l.peer.Write([]byte(repeated(count, line)))
			go io.Copy(io.Discard, l.peer)
			require.ErrorIs(t, roomtest.Await(t, l.errors, "report"), ErrBacklog)
			require.Empty(t, l.errors)

			got := make(chan struct{}, count)
			defer Handle("unclaimed", func(*Process, any) { got <- struct{}{} })()
			defer Respond("unclaimed", func(*Process, any) (int, error) { got <- struct{}{}; return 1, nil })()
			for range count {
				roomtest.Await(t, got, "what waited")
			}
		})
	}
}

// TestWaitingMessagesGoFirst: those that waited for a handler reach it before a
// newer one, also when a callback for a message in between registers it.
func TestWaitingMessagesGoFirst(t *testing.T) {
	l := newPeered(t, Options{})
	got := make(chan int, 10)
	type numbered struct{ N int }
	var stops []func()
	defer func() {
		for _, stop := range stops {
			stop()
		}
	}()
	stops = append(stops, Handle("register", func(*Process, numbered) {
		stops = append(stops, Handle("late", func(_ *Process, v numbered) { got <- v.N }))
	}))
	// One read, so one batch.
	l.write(`{"cmd":"late","n":1}` + "\n" + `{"cmd":"late","n":2}` + "\n" + `{"cmd":"register"}` + "\n" + `{"cmd":"late","n":3}` + "\n")
	l.start()
	for n := 1; n <= 3; n++ {
		require.Equal(t, n, roomtest.Await(t, got, "message"))
	}
}

// TestRegisteringDuringAFlood: whenever a handler is registered, it gets all
// messages in order, from the first one.
func TestRegisteringDuringAFlood(t *testing.T) {
	for range 20 {
		l := newPeered(t, Options{}).start()
		const count = 3000
		go func() {
			for n := range count {
				fmt.Fprintf(l.peer, `{"cmd":"late","n":%d}`+"\n", n)
			}
		}()
		got := make(chan int, count)
		require.Eventually(t, l.hasEvents, roomtest.Patience, 10*time.Microsecond)
		stop := Handle("late", func(_ *Process, v struct{ N int }) { got <- v.N })
		for n := range count {
			require.Equal(t, n, roomtest.Await(t, got, "message"))
		}
		stop()
		l.peer.Close()
		roomtest.Await(t, l.ended, "end")
	}
}

// TestAHandlerThatUnregistersItself gets no further message that waited.
func TestAHandlerThatUnregistersItself(t *testing.T) {
	l := newPeered(t, Options{}).start()
	l.write(repeated(3, `{"cmd":"once"}`))
	require.Eventually(t, func() bool { in, _ := l.p.link.Counts(); return in == 3 }, roomtest.Patience, time.Millisecond)
	got := make(chan struct{}, 3)
	var stop func()
	registered := make(chan struct{})
	stop = Handle("once", func(*Process, any) {
		<-registered
		stop()
		got <- struct{}{}
	})
	close(registered)
	roomtest.Await(t, got, "first message")
	done := make(chan struct{})
	l.p.events.post(event{fn: func() { close(done) }})
	roomtest.Await(t, done, "the rest")
	require.Empty(t, got)
	defer Handle("once", func(*Process, any) { got <- struct{}{} })()
	roomtest.Await(t, got, "second message")
	roomtest.Await(t, got, "third message")
}

// TestGoexitInACallback: a callback that ends its goroutine keeps nothing back, of no
// event and from nobody: neither the other messages of its read, nor those that wait,
// nor the other functions that are to be told of the same.
func TestGoexitInACallback(t *testing.T) {
	l := newPeered(t, Options{}).start()
	const each = 5
	told := make(chan string, 100)
	leave := func(what string) {
		told <- what
		runtime.Goexit()
	}
	l.write(repeated(each, `{"cmd":"waits"}`) + "1\n" + repeated(each, `{"cmd":"waits"}`))
	require.Eventually(t, func() bool { in, _ := l.p.link.Counts(); return in == 2*each+1 }, roomtest.Patience, time.Millisecond)
	defer Handle("waits", func(*Process, any) { leave("waits") })()
	for range 2 * each {
		require.Equal(t, "waits", roomtest.Await(t, told, "message that waited"))
	}
	for _, name := range []string{"a", "b"} {
		l.p.OnMessage(func(_ *Process, m Message) { leave(name + m.String()) })
		l.p.OnListening(func(*Process, net.Addr) { leave(name + " listening") })
		l.p.OnError(func(*Process, error) { leave(name + " error") })
		l.p.OnDisconnect(func(*Process) { leave(name + " disconnect") })
		l.p.OnExit(func(*Process, Exit) { leave(name + " exit") })
	}
	require.Equal(t, "a1", roomtest.Await(t, told, "message"))
	require.Equal(t, "b1", roomtest.Await(t, told, "message"))
	l.write("2\n{\"cmd\":\"waits\"}\n3\n")
	for _, want := range []string{"a2", "b2", `a{"cmd":"waits"}`, `b{"cmd":"waits"}`, "waits", "a3", "b3"} {
		require.Equal(t, want, roomtest.Await(t, told, "message"))
	}
	l.p.emitListening(&net.TCPAddr{})
	l.p.report(errors.New("x"))
	l.p.telling([]func(error){func(error) { leave("a received") }, func(error) { leave("b received") }})(nil)
	l.p.emit(noteDisconnect)
	l.p.emitDeath(Exit{})
	for _, what := range []string{"listening", "error", "received", "disconnect", "exit"} {
		require.Equal(t, "a "+what, roomtest.Await(t, told, what))
		require.Equal(t, "b "+what, roomtest.Await(t, told, what))
	}
	never := make(chan struct{})
	defer time.AfterFunc(roomtest.Patience, func() { close(never) }).Stop()
	l.p.events.idle(never)
	require.NotContains(t, std.live.all(), l.p, "its death has been told")
}

// TestReadyForReachesTheSupervisor: a negative ReadyFor means none.
func TestReadyForReachesTheSupervisor(t *testing.T) {
	for given, want := range map[time.Duration]time.Duration{0: 500 * time.Millisecond, time.Minute: time.Minute, -1: 0} {
		s, err := Options{ReadyFor: given}.resolve()
		require.NoError(t, err)
		require.Equal(t, want, s.supervision().ReadyFor)
	}
}

// TestTicketsAreHandedOut: the worker that asks for the keys of session tickets gets
// them and, when there are new ones, those; the application sees nothing of it.
func TestTicketsAreHandedOut(t *testing.T) {
	l := newPeered(t, Options{})
	l.p.child = &child{p: l.p}
	silent := newPeered(t, Options{})
	silent.p.child = &child{p: silent.p}
	in := testInside(l.p, announcement{Tickets: true})
	lines := bufio.NewReader(l.peer)
	line := func() string {
		text, err := lines.ReadString('\n')
		require.NoError(t, err)
		return text
	}
	var keys ticketKeys
	keys.give(std.master, l.p, nil)
	require.Nil(t, keys.maker, "that was no question")
	seq := int64(7)
	keys.give(std.master, l.p, &seq)
	answer, err := wire.Parse([]byte(line()))
	require.NoError(t, err)
	require.Equal(t, &seq, answer.Ack)
	config := new(tls.Config)
	in.tickets.Share(config)
	in.gotTickets(answer.Msg)
	require.True(t, roomtest.Resumes(t, withKeys(keys.maker.Keys()), config))

	keys.maker = tickets.New(func() {})
	require.False(t, roomtest.Resumes(t, withKeys(keys.maker.Keys()), config))
	keys.spread(map[int]*Process{1: l.p, 2: silent.p})
	text := line()
	m, err := wire.Parse([]byte(text))
	require.NoError(t, err)
	(&fromMaster{in: in}).Internal(&m, nil)
	require.True(t, roomtest.Resumes(t, withKeys(keys.maker.Keys()), config))
	require.Zero(t, silent.p.link.Queued())

	in.gotTickets([]byte(`["secret"]`)) // nobody reads yet
	require.NotContains(t, roomtest.Await(t, l.errors, "report").Error(), "secret")
	got := make(chan string, 10)
	defer l.p.OnMessage(func(_ *Process, m Message) { got <- m.String() })()
	l.start()
	l.write(text + `"end"` + "\n")
	require.Equal(t, `"end"`, roomtest.Await(t, got, "message"))
}

// withKeys is the config of a server that has the keys.
func withKeys(keys tickets.Keys) *tls.Config {
	config := new(tls.Config)
	config.SetSessionTicketKeys(keys)
	return config
}
