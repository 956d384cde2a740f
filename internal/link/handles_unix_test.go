//go:build unix

package link

import (
	"fmt"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/go-cluster/cluster/internal/channel"
	"github.com/go-cluster/cluster/internal/handle"
	"github.com/go-cluster/cluster/internal/roomtest"
	"github.com/go-cluster/cluster/internal/wire"
)

// TestHandleSplitAnywhere: wherever its line is cut, and whichever piece the
// descriptor comes with, the handle finds its message and is acknowledged.
func TestHandleSplitAnywhere(t *testing.T) {
	for _, onLast := range []bool{false, true} {
		l := newTestLink(t, PeerGo, Options{}).take().start()
		for cut := 1; cut < len(handleLine); cut++ {
			k := newToken(t)
			if onLast {
				l.write(handleLine[:cut])
				l.writeWith(handleLine[cut:], k.file)
			} else {
				l.writeWith(handleLine[:cut], k.file)
				l.write(handleLine[cut:])
			}
			require.Equal(t, `{"cmd":"NODE_HANDLE_ACK"}`, l.readLine())
			got := roomtest.Await(t, l.internals, "handle")
			require.Equal(t, "k", got.w.Key)
			k.sent().requireSame(got.h)
			k.requireClosed()
		}
		require.Empty(t, l.errors)
	}
}

// TestHandlesKeepTheirOrder: descriptors belong to the handle messages in the
// order in which they came, plain messages between them or not.
func TestHandlesKeepTheirOrder(t *testing.T) {
	l := newTestLink(t, PeerGo, Options{}).take()
	var tokens []*token
	for i := range 20 {
		k := newToken(t)
		tokens = append(tokens, k)
		l.write(fmt.Sprint(i) + "\n" + handleLine[:i])
		l.writeWith(handleLine[i:], k.file)
		k.sent()
	}
	l.start()
	for i, k := range tokens {
		require.Equal(t, fmt.Sprint(i), l.message())
		k.requireSame(roomtest.Await(t, l.internals, "handle").h)
		k.requireClosed()
	}
	require.Empty(t, l.errors)
}

// TestStrayDescriptors that no message takes are closed and reported: with a
// plain message, in the middle of one, more than the message takes, as many as
// one message can carry, with a line that never ends, and with one too long.
func TestStrayDescriptors(t *testing.T) {
	for name, write := range map[string]func(l *testLink, files []*os.File){
		"plain":     func(l *testLink, files []*os.File) { l.writeWith("1\n", files...) },
		"half":      func(l *testLink, files []*os.File) { l.writeWith(`"ha`, files...); l.write("lf\"\n") },
		"garbage":   func(l *testLink, files []*os.File) { l.writeWith("}\n", files...) },
		"too long":  func(l *testLink, files []*os.File) { l.writeWith(strings.Repeat("x", 2000), files...); l.write("\n") },
		"long half": func(l *testLink, files []*os.File) { l.writeWith("x", files...); l.write(strings.Repeat("x", 2000)) },
		"the end":   func(l *testLink, files []*os.File) { l.writeWith(`"ha`, files...); l.peer.Close() },
		"internal": func(l *testLink, files []*os.File) {
			l.writeWith(`{"cmd":"NODE_GO_CLUSTER","act":"ask","n":1}`+"\n", files...)
		},
	} {
		for _, n := range []int{1, 2, 70, 253} {
			t.Run(fmt.Sprint(name, " ", n), func(t *testing.T) {
				l := newTestLink(t, PeerGo, Options{MaxMessage: 1000}).take().start()
				k := newToken(t)
				files := make([]*os.File, n)
				for i := range files {
					files[i] = k.file
				}
				write(l, files)
				k.sent().requireClosed()
				if name != "the end" {
					for !strings.Contains(l.error(), "descriptors came with no message that takes them") {
					}
				}
			})
		}
	}
}

// TestSurplusDescriptors: of several that come with one handle message the
// first is its own, the others are closed.
func TestSurplusDescriptors(t *testing.T) {
	l := newTestLink(t, PeerGo, Options{}).take().start()
	mine, other := newToken(t), newToken(t)
	l.writeWith(handleLine[:10], mine.file, other.file, other.file)
	l.write(handleLine[10:])
	mine.sent().requireSame(roomtest.Await(t, l.internals, "handle").h)
	other.sent().requireClosed()
	require.Contains(t, l.error(), "2 descriptors")
}

// TestDescriptorOfALineTooLong does not go to the handle message after it.
func TestDescriptorOfALineTooLong(t *testing.T) {
	l := newTestLink(t, PeerGo, Options{MaxMessage: 1000}).take().start()
	lost, mine := newToken(t), newToken(t)
	l.writeWith(`{"cmd":"NODE_HANDLE","msg":"`, lost.file)
	require.Eventually(t, func() bool { return l.ch.Unread() == 0 }, roomtest.Patience, time.Millisecond)
	l.write(strings.Repeat("x", 2000))
	l.write(`"}` + "\n")
	l.writeWith(handleLine, mine.file)
	mine.sent().requireSame(roomtest.Await(t, l.internals, "handle").h)
	lost.sent().requireClosed()
}

// TestHandleInAHandle is refused: each level would keep a copy of the rest.
func TestHandleInAHandle(t *testing.T) {
	l := newTestLink(t, PeerGo, Options{}).take().start()
	k := newToken(t)
	l.writeWith(`{"cmd":"NODE_HANDLE","msg":{"cmd":"NODE_HANDLE","msg":{"cmd":"NODE_CLUSTER","act":"x"}}}`+"\n", k.file, k.file)
	require.Equal(t, `{"cmd":"NODE_HANDLE_ACK"}`, l.readLine())
	k.sent().requireClosed()
	require.Contains(t, l.error(), "NODE_HANDLE")
	l.quiet()
	require.Empty(t, l.internals)
}

// TestHandleOfAnApplication: a handle that the application over there sends with a
// message of its own is delivered with it.
func TestHandleOfAnApplication(t *testing.T) {
	l := newTestLink(t, PeerNode, Options{}).take().start()
	k := newToken(t)
	l.writeWith(`{"cmd":"NODE_HANDLE","type":"net.Socket","msg":{"hello":1}}`+"\n", k.file)
	require.Equal(t, `{"cmd":"NODE_HANDLE_ACK"}`, l.readLine())
	require.Equal(t, `{"hello":1}`, l.message())
	got := roomtest.Await(t, l.parcels, "handle")
	require.Equal(t, `{"hello":1}`, got.message)
	require.Equal(t, len(got.message)+HandleCost, got.size)
	k.sent().requireSame(got.h)
	k.requireClosed()
	require.Empty(t, l.errors)
}

// readHandle reads the next line, which must come with exactly one descriptor
// on its first byte and with nothing else.
func (l *testLink) readHandle() (line string, fd int) {
	l.t.Helper()
	p, oob := make([]byte, 4096), make([]byte, 4096)
	l.peer.SetReadDeadline(time.Now().Add(roomtest.Patience))
	n, oobn, _, _, err := l.peer.(*net.UnixConn).ReadMsgUnix(p, oob)
	require.NoError(l.t, err)
	fds := channel.ParseRights(oob[:oobn])
	require.Len(l.t, fds, 1, "with %q", p[:n])
	require.Equal(l.t, 1, strings.Count(string(p[:n]), "\n"))
	return strings.TrimSpace(string(p[:n])), fds[0]
}

func (l *testLink) sendToken(key string, answer func(*wire.Message, *handle.Handle)) *token {
	l.t.Helper()
	k := newToken(l.t)
	fd, err := unix.FcntlInt(k.file.Fd(), unix.F_DUPFD_CLOEXEC, 0)
	require.NoError(l.t, err)
	l.AskHandle(wire.TypeNative, &wire.Message{Act: wire.ActNewConn, Key: key}, handle.New(fd), answer)
	return k.sent()
}

// TestOneHandleAtATime: the next handle waits for the acknowledgement of the
// last one, in order; messages do not wait.
func TestOneHandleAtATime(t *testing.T) {
	l := newTestLink(t, PeerGo, Options{}).start()
	tokens := []*token{l.sendToken("a", nil), l.sendToken("b", nil), l.sendToken("c", nil)}
	for i, key := range []string{"a", "b", "c"} {
		line, fd := l.readHandle()
		require.Contains(t, line, `"key":"`+key+`"`)
		tokens[i].requireSame(handle.New(fd))
		require.NoError(t, l.Send("between", nil))
		require.Equal(t, `"between"`, l.readLine())
		l.quiet() // no other handle before the acknowledgement
		l.write(`{"cmd":"NODE_HANDLE_ACK"}` + "\n")
	}
	for _, k := range tokens {
		k.requireClosed()
	}
	l.write(`{"cmd":"NODE_HANDLE_ACK"}` + "\n" + `{"cmd":"NODE_HANDLE_NACK"}` + "\n")
	l.quiet() // acknowledgements of nothing are ignored
}

// TestRefusedHandleIsSentAgain three times in all, as node does, and then its
// question is answered with no; the next one goes on.
func TestRefusedHandleIsSentAgain(t *testing.T) {
	l := newTestLink(t, PeerGo, Options{}).start()
	answered := make(chan *wire.Message, 1)
	refused := l.sendToken("a", func(w *wire.Message, _ *handle.Handle) { answered <- w })
	next := l.sendToken("b", nil)
	for range maxHandleTries {
		line, fd := l.readHandle()
		require.Contains(t, line, `"key":"a"`)
		unix.Close(fd)
		l.write(`{"cmd":"NODE_HANDLE_NACK"}` + "\n")
	}
	require.False(t, *roomtest.Await(t, answered, "answer").Accepted)
	refused.requireClosed()
	line, fd := l.readHandle()
	require.Contains(t, line, `"key":"b"`)
	next.requireSame(handle.New(fd))
}

// TestHandlesOfAnEndedLink are closed, and their questions answered with nil.
func TestHandlesOfAnEndedLink(t *testing.T) {
	l := newTestLink(t, PeerGo, Options{}).start()
	answers := make(chan *wire.Message, 3)
	answer := func(w *wire.Message, _ *handle.Handle) { answers <- w }
	a, b := l.sendToken("a", answer), l.sendToken("b", answer)
	_, fd := l.readHandle()
	unix.Close(fd)
	l.peer.Close()
	roomtest.Await(t, l.ended, "end")
	c := l.sendToken("c", answer)
	for _, k := range []*token{a, b, c} {
		k.requireClosed()
		require.Nil(t, roomtest.Await(t, answers, "answer"))
	}
}

// TestEndIsNotPutOff: neither who holds the channel after the worker's exit,
// nor a worker that has shut down its reading side, can keep the reader at work
// by writing on.
func TestEndIsNotPutOff(t *testing.T) {
	for name, end := range map[string]func(l *testLink){
		"exit": func(l *testLink) { l.PeerExited() },
		"broken pipe": func(l *testLink) {
			require.NoError(l.t, l.peer.(*net.UnixConn).CloseRead())
			l.Send("nobody reads this", nil)
		},
	} {
		t.Run(name, func(t *testing.T) {
			l := newTestLink(t, PeerGo, Options{})
			// Whenever the reader has read something there is more, so that it never
			// finds nothing to read.
			more := many(1, `{"cmd":"NODE_CLUSTER","act":"more"}`)
			reading := make(chan struct{}, 1)
			l.onInternal = func() {
				if _, err := l.peer.Write([]byte(more)); err != nil {
					return
				}
				select {
				case reading <- struct{}{}:
				default:
				}
			}
			l.start()
			l.write(strings.Repeat(more, 10))
			roomtest.Await(t, reading, "reading")
			end(l)
			roomtest.Await(t, l.ended, "end of the link")
		})
	}
}

// lingers is a socket whose close waits until the test ends.
func lingers(t *testing.T) *os.File {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer ln.Close()
	client, err := net.Dial("tcp", ln.Addr().String())
	require.NoError(t, err)
	t.Cleanup(func() { client.Close() }) // which ends the lingering
	c, err := ln.Accept()
	require.NoError(t, err)
	rc, err := c.(*net.TCPConn).SyscallConn()
	require.NoError(t, err)
	require.NoError(t, rc.Control(func(fd uintptr) {
		for err == nil {
			_, err = unix.Write(int(fd), make([]byte, 64<<10))
		}
	}))
	require.ErrorIs(t, err, unix.EAGAIN)
	require.NoError(t, c.(*net.TCPConn).SetLinger(3600))
	f, err := c.(*net.TCPConn).File()
	require.NoError(t, err)
	defer c.Close() // the last in this process that waits is the link's
	return f
}

// TestDescriptorThatLingers: the close of a descriptor that a worker has sent can take an hour.
// Neither the reader waits for it, nor the one who closes the channel while some are unread.
func TestDescriptorThatLingers(t *testing.T) {
	for name, unread := range map[string]bool{"read": false, "unread": true} {
		t.Run(name, func(t *testing.T) {
			l := newTestLink(t, PeerGo, Options{})
			f := lingers(t)
			l.writeWith(`"ha`, f)
			f.Close() // before the link does: the last one waits
			if unread {
				closed := make(chan bool, 1)
				go func() { l.Close(); closed <- true }()
				roomtest.Await(t, closed, "return of Close")
			} else {
				l.peer.Close()
			}
			l.start()
			roomtest.Await(t, l.ended, "end")
		})
	}
}

// TestDescriptorsThatCannotBeClosed: the peer that sends more and more of them has gone
// too far.
func TestDescriptorsThatCannotBeClosed(t *testing.T) {
	l := newTestLink(t, PeerGo, Options{}).take()
	for range 200 {
		f := lingers(t)
		l.writeWith("1\n", f)
		f.Close()
	}
	l.start()
	roomtest.Await(t, l.overruns, "report that it goes too far")
}
