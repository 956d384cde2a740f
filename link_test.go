package cluster

import (
	"bufio"
	"bytes"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/go-cluster/cluster/internal/channel"
	"github.com/go-cluster/cluster/internal/handle"
	"github.com/go-cluster/cluster/internal/wire"
)

// waitFor returns what comes over c, or fails the test.
func waitFor[T any](t testing.TB, c <-chan T, what string) T {
	t.Helper()
	select {
	case v := <-c:
		return v
	case <-time.After(patienceIn):
		t.Fatalf("no %s", what)
		panic("unreachable")
	}
}

// peerEnd is the worker's end of a channel, for a test.
type peerEnd interface {
	io.ReadWriteCloser
	SetReadDeadline(t time.Time) error
}

// testLink is a link over a real channel of which the test is the peer.
type testLink struct {
	*link
	t        testing.TB
	peer     peerEnd
	lines    *bufio.Reader // of peer, for tests without descriptors
	messages chan string
	errors   chan error

	// What the link tells its side.
	internals  chan internalCall
	onInternal func() // instead, if set
	overruns   chan struct{}
	ended      chan struct{}
}

type internalCall struct {
	w *wire.Message
	h *handle.Handle
}

func (l *testLink) internal(w *wire.Message, h *handle.Handle) {
	if l.onInternal != nil {
		l.onInternal()
		return
	}
	l.internals <- internalCall{w, h}
}
func (l *testLink) closed()  { close(l.ended) }
func (l *testLink) overrun() { l.overruns <- struct{}{} }

// newTestLink makes a link that does not read yet. Nothing takes its messages
// until take is called; its errors go to errors.
func newTestLink(t testing.TB, kind peerKind, o Options) *testLink {
	t.Helper()
	s, err := o.resolve()
	require.NoError(t, err)
	ours, theirs, err := channel.Pair()
	require.NoError(t, err)
	peer := openPeer(t, theirs)
	l := &testLink{
		t: t, peer: peer, lines: bufio.NewReader(peer),
		messages: make(chan string, 100000), errors: make(chan error, 100000),
		internals: make(chan internalCall, 1000), overruns: make(chan struct{}, 100000), ended: make(chan struct{}),
	}
	p := newProcess(std, 1, -1)
	p.connected.Store(true)
	l.link = newLink(ours, p, l, kind, &s.Options)
	p.link = l.link
	p.OnError(func(_ *Process, err error) { l.errors <- err })
	std.live.add(p)
	t.Cleanup(func() {
		l.peer.Close()
		std.live.remove(p)
		never := make(chan struct{})
		time.AfterFunc(patienceIn, func() { close(never) })
		p.events.idle(never)
	})
	return l
}

// start lets the reader run until the end of the test.
func (l *testLink) start() *testLink {
	go l.read()
	l.t.Cleanup(func() {
		l.peer.Close()
		waitFor(l.t, l.ended, "end of the link")
	})
	return l
}

// take lets messages flow into the channel of that name.
func (l *testLink) take() *testLink {
	l.p.OnMessage(func(_ *Process, m Message) { l.messages <- m.String() })
	return l
}

func (l *testLink) write(s string) {
	l.t.Helper()
	_, err := l.peer.Write([]byte(s))
	require.NoError(l.t, err)
}

// readLine returns what the link sent.
func (l *testLink) readLine() string {
	l.t.Helper()
	l.peer.SetReadDeadline(time.Now().Add(patienceIn))
	line, err := l.lines.ReadString('\n')
	require.NoError(l.t, err)
	return strings.TrimSuffix(line, "\n")
}

// quiet fails if the link says anything before it answers the question that
// this asks.
func (l *testLink) quiet() {
	l.t.Helper()
	l.write(`{"cmd":"NODE_GO_CLUSTER","act":"ask","n":77}` + "\n")
	require.Equal(l.t, `{"cmd":"NODE_GO_CLUSTER","act":"received","n":77}`, l.readLine())
}

func (l *testLink) message() string { l.t.Helper(); return waitFor(l.t, l.messages, "message") }

func (l *testLink) error() string { l.t.Helper(); return waitFor(l.t, l.errors, "error").Error() }

// many returns n lines.
func many(n int, line string) string { return string(bytes.Repeat([]byte(line+"\n"), n)) }
