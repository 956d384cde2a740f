package share

import (
	"net"
	"sync/atomic"
	"testing"
	"time"

	"github.com/go-cluster/cluster/internal/handle"
	"github.com/go-cluster/cluster/internal/roomtest"
	"github.com/go-cluster/cluster/internal/socket"
	"github.com/go-cluster/cluster/internal/wire"
	"github.com/stretchr/testify/require"
)

// commandWorker is a member by hand. It answers each connection that it is handed
// as take says, when it may.
type commandWorker struct {
	take   atomic.Bool
	taken  chan *handle.Handle
	may    chan struct{} // closed when it may answer
	dead   atomic.Bool   // it ends with the connection instead of an answer
	offers atomic.Int32
	took   atomic.Int32
	full   atomic.Bool          // it says so with each answer
	load   atomic.Pointer[Load] // or it does not tell

	leaving    bool
	generation int
	slotted    bool
	refuses    bool // takes no address any more
	id, slot   int
	answers    chan string
	sockets    chan *handle.Handle
	lost       func() // of the last one of those
}

func newCommandWorker() *commandWorker {
	return &commandWorker{taken: make(chan *handle.Handle, 1), may: make(chan struct{}), answers: make(chan string, 10), sockets: make(chan *handle.Handle, 10)}
}

func (w *commandWorker) Leaving() bool      { return w.leaving }
func (w *commandWorker) Grants(string) bool { return !w.refuses }
func (w *commandWorker) Generation() int    { return w.generation }
func (w *commandWorker) Slotted() bool      { return w.slotted }
func (w *commandWorker) ID() int            { return w.id }
func (w *commandWorker) Slot() int          { return w.slot }
func (w *commandWorker) Load() (Load, bool) {
	if l := w.load.Load(); l != nil {
		return *l, true
	}
	return Load{}, false
}
func (w *commandWorker) Took()              { w.took.Add(1) }
func (w *commandWorker) Answer(line []byte) { w.answers <- string(line) }
func (w *commandWorker) SendHandle(typ string, m *wire.Message, h *handle.Handle, lost func()) {
	w.lost = lost
	w.answers <- typ + " " + string(m.Line())
	w.sockets <- h
}

func (w *commandWorker) AskHandleLine(_ []byte, _ int64, h *handle.Handle, answered func(*wire.Message, *handle.Handle)) {
	go func() {
		w.offers.Add(1)
		take := w.take.Load()
		if take {
			w.taken <- h
		} else {
			h.Release()
		}
		<-w.may
		if w.dead.Load() {
			answered(nil, nil)
			return
		}
		answered(&wire.Message{Accepted: &take, Full: w.full.Load()}, nil)
	}()
}

// newDispatcherFor makes the dispatcher of an address, without seats.
func newDispatcherFor(t *testing.T) (d *dispatcher, dial func() net.Conn) {
	h, addr, _, err := socket.Open(t.Context(), resolved(t, "tcp", "127.0.0.1:0").Address)
	require.NoError(t, err)
	d, err = newDispatcher("key", []*handle.Handle{h}, false, inTurn{}, closeConn(new(handle.Closer), addr), func(error) {})
	require.NoError(t, err)
	t.Cleanup(func() {
		d.close()
		h.Release()
	})
	return d, func() net.Conn {
		client, err := net.Dial("tcp", addr.String())
		require.NoError(t, err)
		t.Cleanup(func() { client.Close() })
		client.SetReadDeadline(time.Now().Add(roomtest.Patience))
		return client
	}
}
