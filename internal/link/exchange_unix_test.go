//go:build unix

package link

import (
	"encoding/json"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/go-cluster/cluster/internal/handle"
	"github.com/go-cluster/cluster/internal/roomtest"
	"github.com/go-cluster/cluster/internal/wire"
)

// TestParting: what a node worker on its way out is told, and that it is told
// nothing else. The link of a Go worker goes on as before.
func TestParting(t *testing.T) {
	ack := &wire.Message{Cmd: wire.CmdCluster, Ack: new(int64(5))}
	disconnect := func(l *testLink) { l.OrderDisconnect(time.Second, false) }
	for name, c := range map[string]struct {
		peer  PeerKind
		steps []func(l *testLink)
		want  []string // acts; "" for the acknowledgement
	}{
		"told": {PeerNode, []func(l *testLink){disconnect, disconnect}, []string{wire.ActDisconnect}},
		"of its own accord": {PeerNode, []func(l *testLink){
			func(l *testLink) { l.WorkerEnds(ack) }, disconnect}, []string{""}},
		"told, and then of its own accord": {PeerNode, []func(l *testLink){
			disconnect, func(l *testLink) { l.WorkerEnds(ack) }}, []string{wire.ActDisconnect}},
		"across a grant": {PeerNode, []func(l *testLink){
			func(l *testLink) { require.True(t, l.Grants("a")) }, func(l *testLink) { l.WorkerEnds(ack) }}, []string{wire.ActDisconnect}},
		"after a grant": {PeerNode, []func(l *testLink){
			func(l *testLink) { require.True(t, l.Grants("a")) }, (*testLink).hears, func(l *testLink) { l.WorkerEnds(ack) }}, []string{""}},
		"after a grant that it closed": {PeerNode, []func(l *testLink){
			func(l *testLink) { require.True(t, l.Grants("a")); require.True(t, l.Grants("b")) },
			func(l *testLink) { l.Closes("b") }, (*testLink).hears, func(l *testLink) { l.WorkerEnds(ack) }}, []string{""}},
		"no grant when told": {PeerNode, []func(l *testLink){
			disconnect, func(l *testLink) { require.False(t, l.Grants("a")) }}, []string{wire.ActDisconnect}},
		"no grant when answered": {PeerNode, []func(l *testLink){
			func(l *testLink) { l.WorkerEnds(ack) }, func(l *testLink) { require.False(t, l.Grants("a")) }}, []string{""}},
		"a Go worker": {PeerGo, []func(l *testLink){
			disconnect, func(l *testLink) { require.True(t, l.Grants("a")) }, disconnect, func(l *testLink) { l.WorkerEnds(ack) }},
			[]string{wire.ActDisconnect, wire.ActDisconnect, ""}},
	} {
		t.Run(name, func(t *testing.T) {
			l := newTestLink(t, c.peer, Options{}).start()
			for _, step := range c.steps {
				step(l)
			}
			for _, act := range c.want {
				var w wire.Message
				require.NoError(t, json.Unmarshal([]byte(l.readLine()), &w))
				require.Equal(t, act, w.Act)
				require.Equal(t, act == "", w.Ack != nil)
			}
			l.quiet()
		})
	}
}

func (l *testLink) hears() { l.Listens() }

// TestPartingTakesBackHandles: of the descriptors that wait for a node worker
// when it is told to disconnect, or says that it does, it has the one under way;
// who sent the others, or sends one now, is told at once, and may give them to
// another. None is sent again.
func TestPartingTakesBackHandles(t *testing.T) {
	for name, c := range map[string]struct {
		part func(l *testLink)
		line string // that says so
	}{
		"told":              {func(l *testLink) { l.OrderDisconnect(time.Second, false) }, wire.ActDisconnect},
		"of its own accord": {func(l *testLink) { l.WorkerEnds(&wire.Message{Cmd: wire.CmdCluster, Ack: new(int64(5))}) }, `"ack":5`},
	} {
		t.Run(name, func(t *testing.T) {
			l := newTestLink(t, PeerNode, Options{}).start()
			answers := make(chan int, 4)
			send := func(i int) *token {
				return l.sendToken("k", func(_ *wire.Message, h *handle.Handle) {
					require.Nil(t, h)
					answers <- i
				})
			}
			tokens := []*token{send(0), send(1), send(2)}
			c.part(l)
			tokens = append(tokens, send(3)) // too late
			for i := 1; i <= 3; i++ {
				require.Equal(t, i, roomtest.Await(t, answers, "answer"))
				tokens[i].requireClosed()
			}
			require.Contains(t, l.readLine(), wire.CmdHandle)
			require.Contains(t, l.readLine(), c.line)
			l.write(`{"cmd":"NODE_HANDLE_NACK"}` + "\n")
			require.Equal(t, 0, roomtest.Await(t, answers, "answer"))
			l.quiet()
		})
	}
}
