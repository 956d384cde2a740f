package cluster

import (
	"bytes"
	"encoding/json"
	"io"
	"net"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/go-cluster/cluster/internal/socket"
	"github.com/stretchr/testify/require"

	"github.com/go-cluster/cluster/internal/handle"
	"github.com/go-cluster/cluster/internal/wire"
)

// refuser is the worker's end of a channel, by hand: it answers each connection
// that it is offered as take says, when it may.
type refuser struct {
	ch     *channel
	offers atomic.Int32
	take   atomic.Bool
	taken  chan *handle.Handle
	may    chan struct{} // closed when it may
}

func (r *refuser) run() {
	var fds []int
	var rest []byte
	for {
		in, err := r.ch.recv()
		if in != nil {
			fds = append(fds, in.fds...)
			rest = append(rest, in.data[:in.n]...)
			in.free()
		}
		for {
			line, after, found := bytes.Cut(rest, []byte("\n"))
			if !found {
				break
			}
			rest = after
			var outer struct {
				Cmd string
				Msg struct{ Seq int64 }
			}
			if json.Unmarshal(line, &outer) != nil || outer.Cmd != wire.CmdHandle {
				continue
			}
			h := handleOf(line, &fds)
			r.offers.Add(1)
			take := r.take.Load()
			if take {
				r.taken <- h
			} else {
				h.Release()
			}
			<-r.may
			answer := (&wire.Message{Cmd: wire.CmdCluster, Ack: &outer.Msg.Seq, Accepted: &take}).Line()
			r.ch.send(append([]byte(`{"cmd":"`+wire.CmdAck+"\"}\n"), answer...), -1)
		}
		if err != nil {
			return
		}
	}
}

// noSide is a side that nothing is said to.
type noSide struct{}

func (noSide) internal(_ *wire.Message, h *handle.Handle) { h.Release() }
func (noSide) closed()                                    {}
func (noSide) overrun()                                   {}

// newRefuser makes a worker with the queue of one address for it alone.
func newRefuser(t *testing.T) (worker *refuser, p *Process, r *roundRobin, dial func() net.Conn) {
	ours, theirs, err := newChannelPair()
	require.NoError(t, err)
	end := workerChannel(t, theirs)
	opts, err := Options{}.withDefaults()
	require.NoError(t, err)
	p = newProcess(std, 1, -1)
	p.pid = pid // on Windows a socket goes to a process
	p.child = &child{opts: &opts}
	p.link = newLink(ours, p, noSide{}, peerNode, &opts)
	go p.link.read()
	worker = &refuser{ch: end, taken: make(chan *handle.Handle, 1), may: make(chan struct{})}
	go worker.run()

	tgt, err := newTarget("tcp", "127.0.0.1:0", ListenConfig{})
	require.NoError(t, err)
	h, addr, _, err := socket.Open(t.Context(), tgt.Address)
	require.NoError(t, err)
	r, err = newRoundRobin("key", h)
	require.NoError(t, err)
	t.Cleanup(func() {
		r.close()
		h.Release()
		p.link.close()
		<-p.link.done
		end.close()
	})
	return worker, p, r, func() net.Conn {
		client, err := net.Dial("tcp", addr.String())
		require.NoError(t, err)
		t.Cleanup(func() { client.Close() })
		client.SetReadDeadline(time.Now().Add(patienceIn))
		return client
	}
}

// A lone worker that refuses every connection is not offered the same one in a
// loop, and when it takes connections again it gets it.
func TestRoundRobinRefusal(t *testing.T) {
	worker, p, r, dial := newRefuser(t)
	close(worker.may)
	r.add(p)
	client := dial()

	const span = 500 * time.Millisecond
	time.Sleep(span) // the span is the measure, and a slow machine offers less
	// 5 + 10 + 20 + ... ms: seven fit. A loop would make thousands.
	require.LessOrEqual(t, worker.offers.Load(), int32(10))
	require.GreaterOrEqual(t, worker.offers.Load(), int32(2))

	worker.take.Store(true)
	(<-worker.taken).Release()
	_, err := client.Read(make([]byte, 1))
	require.ErrorIs(t, err, io.EOF, "the master has closed its copy as well")
}

// A worker that has closed its listener with a connection on its way to it may
// still take that one, and gets no other.
func TestRoundRobinTakesItsLast(t *testing.T) {
	worker, p, r, dial := newRefuser(t)
	worker.take.Store(true)
	r.add(p)
	client := dial()
	h := waitFor(t, worker.taken, "connection")
	r.remove(p)
	close(worker.may)
	h.Release()
	_, err := client.Read(make([]byte, 1))
	require.ErrorIs(t, err, io.EOF, "the master has closed its copy as well")
	r.mu.Lock()
	defer r.mu.Unlock()
	require.Empty(t, r.free)
}

// A worker gets an address once, and not when it is on its way out or all was
// stopped.
func TestGrant(t *testing.T) {
	_, p, r, _ := newRefuser(t)
	var m master
	m.registry.init()
	e := &entry{key: "key", rr: r, addr: &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)}, holders: make(map[*Process]struct{})}
	ask := func() error { return m.grant(p, &wire.Message{Seq: wire.NextSeq()}, e) }
	require.ErrorIs(t, ask(), ErrClosed)
	m.registry.entries[e.key] = e
	require.NoError(t, ask())
	require.Empty(t, e.holders, "not connected")
	p.connected.Store(true)
	require.NoError(t, ask())
	require.Contains(t, e.holders, p)
	require.ErrorIs(t, ask(), syscall.EADDRINUSE)
	m.registry.close(p, e.key)
	p.advance(Draining)
	require.NoError(t, ask())
	require.Empty(t, e.holders, "draining")
	require.Empty(t, r.workers)
}
