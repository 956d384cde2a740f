package cluster

import (
	"errors"
	"io"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// TestFullPipe: a send that finds no room returns at once, whatever it is called
// with waits, and all arrives in order.
func TestFullPipe(t *testing.T) {
	ours, theirs, err := newChannelPair()
	require.NoError(t, err)
	defer ours.close()
	peer := openPeer(t, theirs)
	defer peer.Close()
	chunk := []byte(strings.Repeat("0123456789abcdef", 1<<10))
	sent := 0
	for {
		n, err := ours.send(chunk, -1)
		sent += n
		if isNoRoom(err) {
			break
		}
		require.NoError(t, err)
		require.Less(t, sent, 100*pipeBuffer)
	}
	for range 3 {
		_, err = ours.send(chunk, -1)
		require.True(t, isNoRoom(err))
	}
	room := pending(func() error { return ours.waitRoom(errWouldBlock) })
	require.Empty(t, room)
	require.NoError(t, resultOfRead(peer, sent+len(chunk), chunk))
	require.NoError(t, result(t, room))
	n, err := ours.send(chunk, -1) // tells of the one that waited
	require.NoError(t, err)
	require.Equal(t, len(chunk), n)
	require.Equal(t, 0, ours.unread())
}

// resultOfRead reads n bytes, which must be chunk again and again.
func resultOfRead(r io.Reader, n int, chunk []byte) error {
	b := make([]byte, n)
	if _, err := io.ReadFull(r, b); err != nil {
		return err
	}
	for i := range b {
		if b[i] != chunk[i%len(chunk)] {
			return errors.New("not what was sent")
		}
	}
	return nil
}

// TestCloseOfAFullPipe ends the write under way and who waits for it.
func TestCloseOfAFullPipe(t *testing.T) {
	for _, waits := range []bool{true, false} {
		ours, theirs, err := newChannelPair()
		require.NoError(t, err)
		peer := openPeer(t, theirs)
		for err == nil {
			_, err = ours.send(make([]byte, pipeBuffer), -1)
		}
		require.True(t, isNoRoom(err))
		room := make(<-chan error)
		if waits {
			room = pending(func() error { return ours.waitRoom(errWouldBlock) })
			require.Eventually(t, func() bool {
				ours.mu.Lock()
				defer ours.mu.Unlock()
				return ours.out.waiting
			}, patienceIn, time.Millisecond)
		}
		ours.close()
		if waits {
			require.ErrorIs(t, result(t, room), os.ErrClosed)
		}
		_, err = ours.send([]byte("x"), -1)
		require.ErrorIs(t, err, os.ErrClosed)
		_, err = io.Copy(io.Discard, peer)
		require.NoError(t, err, "what the pipe had taken is the peer's")
		require.NoError(t, peer.Close())
	}
}

// TestHangup: the end is seen though there is something to read, and not before.
func TestHangup(t *testing.T) {
	ours, theirs, err := newChannelPair()
	require.NoError(t, err)
	defer ours.close()
	peer := openPeer(t, theirs)
	_, err = peer.Write([]byte("unread"))
	require.NoError(t, err)
	hangup := make(chan bool, 1)
	watch := func() { hangup <- ours.waitHangup() }
	go watch()
	ours.interrupt()
	require.False(t, waitFor(t, hangup, "interruption"))
	ours.resume()
	go watch()
	selecting(t, "(*channel).waitHangup", 1) // it has looked, and seen no end
	require.NoError(t, peer.Close())
	require.True(t, waitFor(t, hangup, "hangup"))
	require.Equal(t, len("unread"), ours.unread())
	ours.interrupt()
	in, err := ours.tryRecv()
	require.NoError(t, err)
	require.Equal(t, "unread", string(in.data[:in.n]))
	in.free()
	_, err = ours.tryRecv()
	require.ErrorIs(t, err, io.EOF)
}

// TestEndWakesAPausedReader: nothing is read while too much waits for a handler,
// and a pipe does not tell of its end then.
func TestEndWakesAPausedReader(t *testing.T) {
	l := newTestLink(t, peerGo, Options{MaxQueue: 1000}).start()
	l.write(many(5000, `"flood"`))
	l.error()
	l.write(`{"cmd":"NODE_CLUSTER","act":"last"}` + "\n")
	selecting(t, "(*channel).waitHangup", 1)
	l.peer.Close()
	waitFor(t, l.ended, "end of the link")
	require.Equal(t, "last", waitFor(t, l.internals, "last word").w.Act)
}
