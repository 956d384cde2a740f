package link

import (
	"bufio"
	"bytes"
	"cmp"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/go-cluster/cluster/internal/callback"
	"github.com/go-cluster/cluster/internal/channel"
	"github.com/go-cluster/cluster/internal/handle"
	"github.com/go-cluster/cluster/internal/mailbox"
	"github.com/go-cluster/cluster/internal/roomtest"
	"github.com/go-cluster/cluster/internal/wire"
)

// testLink is a link over a real channel. The test is the peer.
type testLink struct {
	*Link
	t        testing.TB
	p        *above
	peer     roomtest.Peer
	lines    *bufio.Reader // of peer, for tests without descriptors
	messages chan string
	errors   chan error

	// What the link tells its side.
	internals  chan internalCall
	parcels    chan parcelled // messages with a descriptor
	onInternal func()         // instead, if set
	overruns   chan struct{}
	ended      chan struct{}
}

// parcelled is a message and what came with it.
type parcelled struct {
	message string
	h       *handle.Handle
	size    int
}

type internalCall struct {
	w *wire.Message
	h *handle.Handle
}

func (l *testLink) Internal(w *wire.Message, h *handle.Handle) {
	if l.onInternal != nil {
		l.onInternal()
		return
	}
	l.internals <- internalCall{w, h}
}
func (l *testLink) Closed()                                 { close(l.ended) }
func (l *testLink) Coord(act string, id uint64, msg []byte) {}

func (l *testLink) Overrun() { l.overruns <- struct{}{} }

// above is what is above a link in these tests: it delivers on one goroutine, as a
// Process does.
type above struct {
	link    *Link
	errs    chan<- error
	parcels chan<- parcelled

	mu         sync.Mutex
	take       func(message string)
	responders map[string]answers
	batches    [][][]byte // of messages, as they came
	forgets    bool       // keep none of them, for a benchmark

	here  func(message string) // if not nil, the reader delivers, to this
	under atomic.Bool          // it does just now

	box     mailbox.Mailbox
	waiting [][]byte // its own: messages that nothing takes yet
	size    int      // of those
}

// answers is a responder.
type answers func(msg []byte) (any, error)

func (fn answers) Respond(_ Receiver, msg []byte) (any, error) { return fn(msg) }

func (a *above) Messages(batch [][]byte, size int) {
	a.mu.Lock()
	if !a.forgets {
		a.batches = append(a.batches, batch)
	}
	a.mu.Unlock()
	a.box.Post(func() {
		a.waiting, a.size = append(a.waiting, batch...), a.size+size
		a.deliver()
	})
}

func (a *above) Prompt() bool  { return a.here != nil }
func (a *above) Reserve() bool { return a.under.CompareAndSwap(false, true) }

func (a *above) Deliver(batch [][]byte, size int, done func()) {
	callback.Loop(func() (more bool) {
		if len(batch) == 0 {
			a.link.Release(size)
			done()
			a.under.Store(false)
			return false
		}
		m := string(batch[0])
		batch = batch[1:]
		a.here(m)
		return true
	})
}

func (a *above) Handle(msg []byte, h *handle.Handle, size int) {
	a.Messages([][]byte{msg}, 0)
	a.parcels <- parcelled{string(msg), h, size}
}

// deliver gives what waits to the handler, if there is one.
func (a *above) deliver() {
	a.mu.Lock()
	take := a.take
	a.mu.Unlock()
	if take != nil {
		for _, m := range a.waiting {
			take(string(m))
		}
		a.link.Release(a.size)
		a.waiting, a.size = nil, 0
	}
	a.link.SetWaiting(len(a.waiting))
}

func (a *above) Report(err error, size int) {
	a.box.Post(func() {
		a.errs <- err
		a.link.Release(size)
	})
}

func (a *above) Responder(msg []byte) Responder {
	a.mu.Lock()
	defer a.mu.Unlock()
	if fn := a.responders[wire.Cmd(msg).String()]; fn != nil {
		return fn
	}
	return nil
}

func (a *above) onMessage(fn func(message string)) {
	a.mu.Lock()
	a.take = fn
	a.mu.Unlock()
	a.box.Post(a.deliver)
}

func (a *above) onRequest(cmd string, fn answers) {
	a.mu.Lock()
	a.responders[cmd] = fn
	a.mu.Unlock()
	a.link.RetryRequests()
}

// idle waits until all is delivered.
func (a *above) idle() { a.box.Call(func() {}) }

// newTestLink makes a link that does not read yet. Nothing takes its messages
// until take is called; its errors go to errors.
func newTestLink(t testing.TB, kind PeerKind, o Options) *testLink {
	t.Helper()
	o.Name = "worker 1"
	o.MaxMessage = cmp.Or(o.MaxMessage, 64<<20)
	o.MaxQueue = cmp.Or(o.MaxQueue, 64<<20)
	ours, theirs, err := channel.Pair()
	require.NoError(t, err)
	peer := roomtest.OpenPeer(t, theirs)
	l := &testLink{
		t: t, peer: peer, lines: bufio.NewReader(peer),
		messages: make(chan string, 100000), errors: make(chan error, 100000),
		internals: make(chan internalCall, 1000), parcels: make(chan parcelled, 1000), overruns: make(chan struct{}, 100000), ended: make(chan struct{}),
	}
	l.p = &above{errs: l.errors, parcels: l.parcels, responders: make(map[string]answers)}
	l.Link = New(ours, l.p, l, kind, o)
	l.p.link = l.Link
	t.Cleanup(func() { l.peer.Close() })
	return l
}

// start lets the reader run until the end of the test.
func (l *testLink) start() *testLink {
	go l.in.read()
	l.t.Cleanup(func() {
		l.peer.Close()
		roomtest.Await(l.t, l.ended, "end of the link")
	})
	return l
}

// take lets messages flow into the channel of that name.
func (l *testLink) take() *testLink {
	l.p.onMessage(func(m string) { l.messages <- m })
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
	l.peer.SetReadDeadline(time.Now().Add(roomtest.Patience))
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

func (l *testLink) message() string { l.t.Helper(); return roomtest.Await(l.t, l.messages, "message") }

func (l *testLink) error() string {
	l.t.Helper()
	return roomtest.Await(l.t, l.errors, "error").Error()
}

// many returns n lines.
func many(n int, line string) string { return string(bytes.Repeat([]byte(line+"\n"), n)) }
