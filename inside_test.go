package cluster

import (
	"bufio"
	"context"
	"log/slog"
	"strings"
	"testing"

	"github.com/go-cluster/cluster/internal/drain"
	"github.com/go-cluster/cluster/internal/wire"
	"github.com/stretchr/testify/require"
)

// testInside is a worker's own side of p whose drain ends nothing.
func testInside(p *Process, hello announcement) *inside {
	in := newInside(p, hello)
	in.drain = drain.New(p.id, hello.Connections, drain.Hooks{
		Begun:     func() {},
		Announce:  func(drain.Reason) {},
		Full:      func() {},
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
	in.drain = drain.New(1, 0, in.drainHooks())
	lines := bufio.NewReader(l.peer)
	for range 100 {
		in.pinged()
		line, err := lines.ReadString('\n')
		require.NoError(t, err)
		require.Equal(t, 1, strings.Count(line, wire.ActPong))
	}
}
