package channel

import (
	"errors"
	"io"
	"net"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/windows"

	"github.com/go-cluster/cluster/internal/handle"
	"github.com/go-cluster/cluster/internal/roomtest"
)

// TestFullPipe: a send that finds no room returns at once, whatever it is called
// with waits, and all arrives in order.
func TestFullPipe(t *testing.T) {
	ours, theirs, err := Pair()
	require.NoError(t, err)
	defer ours.Close()
	peer := roomtest.OpenPeer(t, theirs)
	defer peer.Close()
	chunk := []byte(strings.Repeat("0123456789abcdef", 1<<10))
	sent := 0
	for {
		n, err := ours.Send(chunk, -1)
		sent += n
		if IsNoRoom(err) {
			break
		}
		require.NoError(t, err)
		require.Less(t, sent, 100*pipeBuffer)
	}
	for range 3 {
		_, err = ours.Send(chunk, -1)
		require.True(t, IsNoRoom(err))
	}
	room := roomtest.Pending(func() error { return ours.WaitRoom(ErrWouldBlock) })
	require.Empty(t, room)
	require.NoError(t, resultOfRead(peer, sent+len(chunk), chunk))
	require.NoError(t, roomtest.Await(t, room, "room"))
	n, err := ours.Send(chunk, -1) // tells of the one that waited
	require.NoError(t, err)
	require.Equal(t, len(chunk), n)
	require.Equal(t, 0, ours.Unread())
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
		ours, theirs, err := Pair()
		require.NoError(t, err)
		peer := roomtest.OpenPeer(t, theirs)
		for err == nil {
			_, err = ours.Send(make([]byte, pipeBuffer), -1)
		}
		require.True(t, IsNoRoom(err))
		room := make(<-chan error)
		if waits {
			room = roomtest.Pending(func() error { return ours.WaitRoom(ErrWouldBlock) })
			require.Eventually(t, func() bool {
				ours.mu.Lock()
				defer ours.mu.Unlock()
				return ours.out.waiting
			}, roomtest.Patience, time.Millisecond)
		}
		ours.Close()
		if waits {
			require.ErrorIs(t, roomtest.Await(t, room, "room"), os.ErrClosed)
		}
		_, err = ours.Send([]byte("x"), -1)
		require.ErrorIs(t, err, os.ErrClosed)
		_, err = io.Copy(io.Discard, peer)
		require.NoError(t, err, "what the pipe had taken is the peer's")
		require.NoError(t, peer.Close())
	}
}

// TestHangup: the end is seen though there is something to read, and not before.
func TestHangup(t *testing.T) {
	ours, theirs, err := Pair()
	require.NoError(t, err)
	defer ours.Close()
	peer := roomtest.OpenPeer(t, theirs)
	_, err = peer.Write([]byte("unread"))
	require.NoError(t, err)
	hangup := make(chan bool, 1)
	watch := func() { hangup <- ours.WaitHangup() }
	go watch()
	ours.Interrupt()
	require.False(t, roomtest.Await(t, hangup, "interruption"))
	ours.Resume()
	go watch()
	roomtest.Selecting(t, "(*Channel).WaitHangup", 1) // it has looked, and seen no end
	require.NoError(t, peer.Close())
	require.True(t, roomtest.Await(t, hangup, "hangup"))
	require.Equal(t, len("unread"), ours.Unread())
	ours.Interrupt()
	in, err := ours.TryRecv()
	require.NoError(t, err)
	require.Equal(t, "unread", string(in.Data[:in.N]))
	in.Free()
	_, err = ours.TryRecv()
	require.ErrorIs(t, err, io.EOF)
}

// someSocket is a listening socket of this process.
func someSocket(t *testing.T) *handle.Handle {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer ln.Close()
	rc, err := ln.(*net.TCPListener).SyscallConn()
	require.NoError(t, err)
	var text string
	var dupErr error
	require.NoError(t, rc.Control(func(s uintptr) { text, dupErr = handle.Duplicate(windows.Handle(s), os.Getpid()) }))
	require.NoError(t, dupErr)
	h, err := handle.Adopt(text)
	require.NoError(t, err)
	return h
}

func addressOf(t *testing.T, h *handle.Handle) windows.Sockaddr {
	sa, err := windows.Getsockname(h.Socket())
	require.NoError(t, err)
	return sa
}

// TestSocketInALine: it finds its way to a worker and to the master, and is the same.
// The master adopts none: what a worker sends as one could be any handle of the
// master's own, which would be closed.
func TestSocketInALine(t *testing.T) {
	ours, theirs, err := Pair()
	require.NoError(t, err)
	defer ours.Close()
	ours.SetPeer(os.Getpid())
	worker, err := Inherit(int(theirs))
	require.NoError(t, err)
	defer worker.Close()
	h := someSocket(t)
	defer h.Release()
	event, err := windows.CreateEvent(nil, 0, 0, nil) // a handle that is no socket
	require.NoError(t, err)
	defer windows.CloseHandle(event)

	const bare = "{\"cmd\":\"x\"}\n"
	line, beside, kept := ours.Attach([]byte(bare), h)
	require.Nil(t, beside)
	require.Len(t, line, len(bare)+AttachRoom)
	refused, _ := ours.Claim(line, nil)
	require.Nil(t, refused)
	got, _ := worker.Claim(line, nil)
	require.NotNil(t, got)
	kept.Release()
	require.Equal(t, addressOf(t, h), addressOf(t, got))
	got.Release()
	line, beside, kept = worker.Attach([]byte(bare), h)
	require.Nil(t, beside)
	require.LessOrEqual(t, len(line), len(bare)+AttachRoom)
	got, _ = ours.Claim(line, nil)
	require.NotNil(t, got)
	kept.Release()
	require.Equal(t, addressOf(t, h), addressOf(t, got))
	got.Release()
	require.Eventually(t, func() bool { return worker.Closes() && ours.Closes() }, roomtest.Patience, time.Millisecond)
	for _, bad := range []string{``, `-1`, `-2`, `0`, `999999996`, strconv.Itoa(int(event))} {
		none, _ := ours.Claim([]byte(`{"socket":"`+bad+`"}`), nil)
		require.Nil(t, none, bad)
	}
	for _, bad := range []string{`{}`, `{"socket":""}`, `{"socket":"rubbish"}`, `{"socket":1}`, `{"socket":"` + strings.Repeat("A", 1000) + `"}`} {
		none, _ := worker.Claim([]byte(bad), nil)
		require.Nil(t, none, bad)
	}
}
