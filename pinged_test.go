package cluster

import (
	"bufio"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/go-cluster/cluster/internal/drain"
	"github.com/go-cluster/cluster/internal/wire"
)

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
