package cluster

import (
	"bytes"
	"encoding/json"
	"io"
	"net"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// refuser is the worker's end of a channel, by hand: it answers each connection
// that it is offered as take says.
type refuser struct {
	ch     *channel
	offers atomic.Int32
	take   atomic.Bool
	taken  chan *handle
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
			if json.Unmarshal(line, &outer) != nil || outer.Cmd != cmdHandle {
				continue
			}
			h := handleOf(line, &fds)
			r.offers.Add(1)
			take := r.take.Load()
			if take {
				r.taken <- h
			} else {
				h.release()
			}
			answer := (&wire{Cmd: cmdCluster, Ack: &outer.Msg.Seq, Accepted: &take}).line()
			r.ch.send(append([]byte(`{"cmd":"`+cmdAck+"\"}\n"), answer...), -1)
		}
		if err != nil {
			return
		}
	}
}

// noSide is a side that nothing is said to.
type noSide struct{}

func (noSide) internal(_ *wire, h *handle) { h.release() }
func (noSide) closed()                     {}
func (noSide) overrun()                    {}

// A lone worker that refuses every connection is not offered the same one in a
// loop, and when it takes connections again it gets it.
func TestRoundRobinRefusal(t *testing.T) {
	ours, theirs, err := newChannelPair()
	require.NoError(t, err)
	end := workerChannel(t, theirs)
	opts, err := Options{}.withDefaults()
	require.NoError(t, err)
	p := newProcess(1, -1)
	p.pid = pid // on Windows a socket goes to a process
	p.child = &child{opts: &opts}
	p.connected.Store(true)
	p.link = newLink(ours, p, noSide{}, peerNode, &opts)
	go p.link.read()
	worker := &refuser{ch: end, taken: make(chan *handle, 1)}
	go worker.run()

	tgt, err := newTarget("tcp", "127.0.0.1:0", ListenConfig{})
	require.NoError(t, err)
	h, addr, _, err := openShared(t.Context(), tgt)
	require.NoError(t, err)
	r, err := newRoundRobin("key", h)
	require.NoError(t, err)
	r.add(p)
	client, err := net.Dial("tcp", addr.String())
	require.NoError(t, err)

	const span = 500 * time.Millisecond
	time.Sleep(span) // the span is the measure, and a slow machine offers less
	// 5 + 10 + 20 + ... ms: seven fit. A loop would make thousands.
	require.LessOrEqual(t, worker.offers.Load(), int32(10))
	require.GreaterOrEqual(t, worker.offers.Load(), int32(2))

	worker.take.Store(true)
	(<-worker.taken).release()
	client.SetReadDeadline(time.Now().Add(30 * time.Second))
	_, err = client.Read(make([]byte, 1))
	require.ErrorIs(t, err, io.EOF, "the master has closed its copy as well")

	require.NoError(t, client.Close())
	r.close()
	h.release()
	p.link.close()
	<-p.link.done
	end.close()
}
