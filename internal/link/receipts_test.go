package link

import (
	"context"
	"io"
	"runtime"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/go-cluster/cluster/internal/errs"
	"github.com/go-cluster/cluster/internal/roomtest"
	"github.com/go-cluster/cluster/internal/wire"
)

// TestForgottenReceipts: a SendContext whose context has ended leaves nothing behind,
// though the peer reads and never gives a receipt.
func TestForgottenReceipts(t *testing.T) {
	l := newTestLink(t, PeerGo, Options{}).take().start()
	go io.Copy(io.Discard, l.peer)
	over, cancel := context.WithCancel(t.Context())
	cancel()
	first := make(chan error, 1)
	require.NoError(t, l.Send("first", func(err error) { first <- err }))
	heap := func() int64 {
		var m runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&m)
		return int64(m.HeapAlloc)
	}
	send := func(n int) {
		for range n {
			for {
				err := l.SendContext(over, 1)
				if err == errs.Backlog { // the peer is slow to read
					runtime.Gosched()
					continue
				}
				require.ErrorIs(t, err, context.Canceled)
				break
			}
		}
	}
	send(1000)
	before := heap()
	send(100_000)
	require.Less(t, heap()-before, int64(100_000*50), "bytes that are kept")
	require.Empty(t, first)
	require.True(t, l.receipts.any())
	l.write(string(wire.AppendCount(nil, wire.ActReceived, l.receipts.sent)))
	require.NoError(t, roomtest.Await(t, first, "receipt"))
	require.False(t, l.receipts.any(), "else the channel would be read whatever waits here")
}

// TestReceiptsAmongForgotten are given in their order, each for its own message.
func TestReceiptsAmongForgotten(t *testing.T) {
	l := newTestLink(t, PeerGo, Options{}).take().start()
	go io.Copy(io.Discard, l.peer)
	over, cancel := context.WithCancel(t.Context())
	cancel()
	told := make(chan int, 10)
	for i := range 10 {
		require.NoError(t, l.Send(i, func(err error) {
			require.NoError(t, err)
			told <- i
		}))
		require.ErrorIs(t, l.SendContext(over, i), context.Canceled)
		require.ErrorIs(t, l.SendContext(over, i), context.Canceled)
	}
	for i := range 10 {
		l.write(string(wire.AppendCount(nil, wire.ActReceived, uint64(3*i+1))))
		require.Equal(t, i, roomtest.Await(t, told, "receipt"))
		require.Empty(t, told)
	}
	require.False(t, l.receipts.any())
}
