package cluster

import (
	"strings"
	"testing"

	"github.com/go-cluster/cluster/internal/drain"
	"github.com/go-cluster/cluster/internal/wire"
	"github.com/stretchr/testify/require"
)

// pingingMaster is a channel that asks for a heartbeat again as soon as it has
// one, before the worker's write returns.
type pingingMaster struct {
	in     *inside
	beats  chan string
	asking int
}

func (m *pingingMaster) Send(p []byte, _ int) (int, error) {
	m.beats <- string(p)
	if m.asking--; m.asking > 0 {
		m.in.pinged()
	}
	return len(p), nil
}

func (m *pingingMaster) WaitRoom(error) error { return nil }

// TestPingsFollowEachOther: every ping is answered, however soon it follows on
// the answer to the last one. The master sends no other until then, and kills a
// worker that does not answer.
func TestPingsFollowEachOther(t *testing.T) {
	const pings = 100
	l := newTestLink(t, peerGo, Options{})
	in := newInside(l.p, announcement{})
	in.drain = drain.New(1, 0, in.drainHooks())
	m := &pingingMaster{in: in, beats: make(chan string, pings), asking: pings}
	l.out.ch = m
	in.pinged()
	for beats := 0; beats < pings; { // two may go in one write
		beats += strings.Count(waitFor(t, m.beats, "heartbeat"), wire.ActPong)
	}
	require.Empty(t, m.beats)
}
