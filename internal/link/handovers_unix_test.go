//go:build unix

package link

import (
	"fmt"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/go-cluster/cluster/internal/channel"
	"github.com/go-cluster/cluster/internal/errs"
	"github.com/go-cluster/cluster/internal/handle"
	"github.com/go-cluster/cluster/internal/roomtest"
	"github.com/go-cluster/cluster/internal/wire"
)

// asSocket is what the descriptors of these tests pretend to be.
var asSocket = wire.HandleType{Type: wire.TypeSocket}

// sendWith sends v with a token, and records how the receipt ends in told.
func (l *testLink) sendWith(v any, told chan<- string) (*token, error) {
	l.t.Helper()
	k := newToken(l.t)
	fd, err := unix.FcntlInt(k.file.Fd(), unix.F_DUPFD_CLOEXEC, 0)
	require.NoError(l.t, err)
	var received func(error)
	if told != nil {
		received = func(err error) { told <- fmt.Sprint(v, " ", err) }
	}
	err = l.SendWith(v, handle.New(fd), asSocket, received)
	return k.sent(), err
}

func (l *testLink) mustSendWith(v any, told chan<- string) *token {
	l.t.Helper()
	k, err := l.sendWith(v, told)
	require.NoError(l.t, err)
	return k
}

// readAll reads n lines, and the descriptors that come with them.
func (l *testLink) readAll(n int) (lines []string, fds []int) {
	l.t.Helper()
	p, oob := make([]byte, 64<<10), make([]byte, 64<<10)
	text := ""
	l.peer.SetReadDeadline(time.Now().Add(roomtest.Patience))
	for strings.Count(text, "\n") < n {
		read, oobn, _, _, err := l.peer.(*net.UnixConn).ReadMsgUnix(p, oob)
		require.NoError(l.t, err)
		text += string(p[:read])
		fds = append(fds, channel.ParseRights(oob[:oobn])...)
	}
	require.True(l.t, strings.HasSuffix(text, "\n"))
	return strings.Split(strings.TrimSuffix(text, "\n"), "\n"), fds
}

const (
	ack  = `{"cmd":"NODE_HANDLE_ACK"}` + "\n"
	nack = `{"cmd":"NODE_HANDLE_NACK"}` + "\n"
)

// TestHandoverToAGoPeer: messages with descriptors are lines like any other. None
// waits for an acknowledgement, and each asks for its receipt.
func TestHandoverToAGoPeer(t *testing.T) {
	l := newTestLink(t, PeerGo, Options{}).start()
	told := make(chan string, 10)
	a := l.mustSendWith("a", told)
	require.NoError(t, l.Send("between", nil))
	b := l.mustSendWith("b", told)
	require.NoError(t, l.Send("behind", nil))
	lines, fds := l.readAll(6)
	require.Equal(t, []string{
		`{"cmd":"NODE_GO_CLUSTER","act":"handle","msg":"a"}`,
		`{"cmd":"NODE_GO_CLUSTER","act":"ask","n":1}`,
		`"between"`,
		`{"cmd":"NODE_GO_CLUSTER","act":"handle","msg":"b"}`,
		`{"cmd":"NODE_GO_CLUSTER","act":"ask","n":2}`,
		`"behind"`,
	}, lines)
	require.Len(t, fds, 2)
	a.requireSame(handle.New(fds[0]))
	b.requireSame(handle.New(fds[1]))
	a.requireClosed()
	b.requireClosed()
	require.Empty(t, told)
	l.write(`{"cmd":"NODE_GO_CLUSTER","act":"received","n":2}` + "\n")
	require.Equal(t, "a <nil>", roomtest.Await(t, told, "receipt"))
	require.Equal(t, "b <nil>", roomtest.Await(t, told, "receipt"))
	_, sent := l.Counts()
	require.Equal(t, int64(4), sent)
}

// TestHandoverToNode: one descriptor at a time, each acknowledged before anything
// that was said after it is sent. A receipt is that it is written.
func TestHandoverToNode(t *testing.T) {
	l := newTestLink(t, PeerNode, Options{}).start()
	told := make(chan string, 10)
	require.NoError(t, l.Send("before", nil))
	a := l.mustSendWith("a", told)
	require.Equal(t, "a <nil>", roomtest.Await(t, told, "receipt"))
	require.NoError(t, l.Send("between", func(err error) { told <- fmt.Sprint("between ", err) }))
	b := l.mustSendWith("b", told)
	require.NoError(t, l.Send("behind", nil))
	flushed := make(chan error, 1)
	go func() { flushed <- l.Flush(t.Context()) }()
	l.OrderDisconnect(0, false)

	lines, fds := l.readAll(2)
	require.Equal(t, []string{`"before"`, `{"cmd":"NODE_HANDLE","type":"net.Socket","msg":"a"}`}, lines)
	a.requireSame(handle.New(fds[0]))
	l.quietNode()
	require.Empty(t, told)
	l.write(ack)
	lines, fds = l.readAll(2)
	require.Equal(t, []string{`"between"`, `{"cmd":"NODE_HANDLE","type":"net.Socket","msg":"b"}`}, lines)
	b.requireSame(handle.New(fds[0]))
	require.Equal(t, "between <nil>", roomtest.Await(t, told, "receipt"))
	require.Equal(t, "b <nil>", roomtest.Await(t, told, "receipt"))
	require.Empty(t, flushed)
	l.write(ack)
	lines, _ = l.readAll(2)
	require.Equal(t, `"behind"`, lines[0])
	require.Contains(t, lines[1], `"act":"disconnect"`)
	require.NoError(t, roomtest.Await(t, flushed, "flush"))
	a.requireClosed()
	b.requireClosed()
	_, sent := l.Counts()
	require.Equal(t, int64(5), sent)
	_, err := l.sendWith("late", nil)
	require.ErrorIs(t, err, errs.Closed)
}

// TestHandoverRefusedByNode: it is sent again, and what follows keeps waiting. After
// the third time the message is dropped, with a report, and the rest goes on.
func TestHandoverRefusedByNode(t *testing.T) {
	l := newTestLink(t, PeerNode, Options{}).start()
	k := l.mustSendWith("a", nil)
	require.NoError(t, l.Send("behind", nil))
	for range maxHandleTries {
		lines, fds := l.readAll(1)
		require.Contains(t, lines[0], `"msg":"a"`)
		require.Len(t, fds, 1)
		unix.Close(fds[0])
		require.Empty(t, l.errors)
		l.write(nack)
	}
	lines, _ := l.readAll(1)
	require.Equal(t, `"behind"`, lines[0])
	require.Contains(t, l.error(), "its handle did not reach the peer")
	k.requireClosed()
	require.Zero(t, l.handover.flying.Load())
}

// TestHandoverBeforeThePeerIsKnown waits until it is, and so does what follows.
func TestHandoverBeforeThePeerIsKnown(t *testing.T) {
	for kind, want := range map[PeerKind][]string{
		PeerGo: {
			`"before"`, `{"cmd":"NODE_GO_CLUSTER","act":"handle","msg":"a"}`, `{"cmd":"NODE_GO_CLUSTER","act":"ask","n":1}`,
			`"behind"`, `{"cmd":"NODE_GO_CLUSTER","act":"ask","n":2}`,
		},
		PeerNode: {`"before"`, `{"cmd":"NODE_HANDLE","type":"net.Socket","msg":"a"}`, `"behind"`},
	} {
		l := newTestLink(t, PeerUnknown, Options{}).start()
		told := make(chan string, 10)
		require.NoError(t, l.Send("before", nil))
		k := l.mustSendWith("a", told)
		require.NoError(t, l.Send("behind", func(err error) { told <- fmt.Sprint("behind ", err) }))
		lines, fds := l.readAll(1)
		require.Empty(t, fds)
		l.quietNode()
		l.SetPeer(kind)
		if kind == PeerNode {
			more, got := l.readAll(1)
			lines, fds = append(lines, more...), got
			l.write(ack)
		}
		more, got := l.readAll(len(want) - len(lines))
		require.Equal(t, want, append(lines, more...))
		fds = append(fds, got...)
		if kind == PeerGo {
			l.write(`{"cmd":"NODE_GO_CLUSTER","act":"received","n":2}` + "\n")
		}
		require.Equal(t, "a <nil>", roomtest.Await(t, told, "receipt"))
		require.Equal(t, "behind <nil>", roomtest.Await(t, told, "receipt"))
		k.requireSame(handle.New(fds[0]))
		k.requireClosed()
	}
}

// TestHandoverThatNodeCannotHave: known or not when it was sent, somebody is told.
func TestHandoverThatNodeCannotHave(t *testing.T) {
	l := newTestLink(t, PeerNode, Options{}).start()
	h := someHandle(t)
	require.ErrorIs(t, l.SendWith("file", h, wire.HandleType{}, nil), errs.NotSupported)
	require.False(t, isOpenHandle(h))

	l = newTestLink(t, PeerUnknown, Options{}).start()
	told := make(chan error, 1)
	require.NoError(t, l.SendWith("file", someHandle(t), wire.HandleType{}, func(err error) { told <- err }))
	require.NoError(t, l.SendWith("file", someHandle(t), wire.HandleType{}, nil))
	require.NoError(t, l.Send("behind", nil))
	l.SetPeer(PeerNode)
	lines, fds := l.readAll(1)
	require.Equal(t, `"behind"`, lines[0])
	require.Empty(t, fds)
	require.ErrorIs(t, roomtest.Await(t, told, "receipt"), errs.NotSupported)
	require.ErrorIs(t, roomtest.Await(t, l.errors, "report"), errs.NotSupported)
}

// TestHandoversAreBounded: 256 on their way to one peer, whatever it is; what the
// peer has got does not count.
func TestHandoversAreBounded(t *testing.T) {
	for _, kind := range []PeerKind{PeerUnknown, PeerNode, PeerGo} {
		l := newTestLink(t, kind, Options{}).start()
		var sent []*token
		for range maxFlying {
			sent = append(sent, l.mustSendWith("x", nil))
		}
		over, err := l.sendWith("x", nil)
		require.ErrorIs(t, err, errs.Backlog)
		over.requireClosed()
		switch kind {
		case PeerUnknown:
			require.NoError(t, l.Send("a message does not count", nil))
			l.peer.Close()
			roomtest.Await(t, l.ended, "end of the link")
			for _, k := range sent {
				k.requireClosed()
			}
			continue
		case PeerNode:
			_, fds := l.readAll(1)
			unix.Close(fds[0])
			l.write(ack)
		case PeerGo:
			lines, fds := l.readAll(2)
			for _, fd := range fds {
				unix.Close(fd)
			}
			l.write(fmt.Sprintf(`{"cmd":"NODE_GO_CLUSTER","act":"received","n":%d}`+"\n", len(lines)/2))
		}
		require.Eventually(t, func() bool { return l.handover.flying.Load() < maxFlying }, roomtest.Patience, time.Millisecond)
		l.mustSendWith("x", nil)
	}
}

// TestHandoversCountAgainstTheQueue with their messages, and with what waits behind.
func TestHandoversCountAgainstTheQueue(t *testing.T) {
	l := newTestLink(t, PeerNode, Options{MaxQueue: 10000})
	l.mustSendWith("a", nil)
	require.NoError(t, l.Send(strings.Repeat("x", 9000), nil))
	require.ErrorIs(t, l.Send(strings.Repeat("x", 9000), nil), errs.Backlog)
	over, err := l.sendWith(strings.Repeat("x", 9000), nil)
	require.ErrorIs(t, err, errs.Backlog)
	over.requireClosed()
	require.Equal(t, int32(1), l.handover.flying.Load())
	l.Discard()
	l.peer.Close()
}

// TestHandoverIsNotRefusedHalfWay: one that fits is sent, though the question behind it
// does not. On Windows the peer has the copy before the line is queued.
func TestHandoverIsNotRefusedHalfWay(t *testing.T) {
	l := newTestLink(t, PeerGo, Options{MaxQueue: 1 << 20})
	for l.out.queued() == 0 { // the kernel takes no more
		require.NoError(t, l.Send(strings.Repeat("x", 64<<10), nil))
	}
	room := l.out.max - l.out.queued()
	require.NoError(t, l.Send(strings.Repeat("x", room-20), nil))
	_, before := l.Counts()
	k := l.mustSendWith("a", nil)
	_, after := l.Counts()
	require.Equal(t, before+1, after)
	over, err := l.sendWith("b", nil)
	require.ErrorIs(t, err, errs.Backlog)
	over.requireClosed()
	l.Discard()
	l.peer.Close()
	l.Close()
	k.requireClosed()
}

// TestEndBehindAHandover: a node worker that ends of its own accord is acknowledged
// behind what waits, however much that is, and once.
func TestEndBehindAHandover(t *testing.T) {
	l := newTestLink(t, PeerNode, Options{}).start()
	end := &wire.Message{Cmd: wire.CmdCluster, Ack: new(int64(5))}
	l.mustSendWith("a", nil)
	require.NoError(t, l.Send(strings.Repeat("x", 2*answersBound), nil))
	before := l.handover.size
	for range 3 {
		l.WorkerEnds(end)
	}
	require.Empty(t, l.overruns)
	require.Equal(t, before+len(end.Line()), l.handover.size)
	l.peer.Close()
	roomtest.Await(t, l.ended, "end of the link")
}

// TestHandoversOfAnEndedLink are closed, wherever they were, and who waits is told.
func TestHandoversOfAnEndedLink(t *testing.T) {
	for _, kind := range []PeerKind{PeerUnknown, PeerNode, PeerGo} {
		l := newTestLink(t, kind, Options{}).start()
		told := make(chan string, 10)
		a, b := l.mustSendWith("a", told), l.mustSendWith("b", told)
		require.NoError(t, l.Send("c", func(err error) { told <- fmt.Sprint("c ", err) }))
		l.peer.Close()
		roomtest.Await(t, l.ended, "end of the link")
		a.requireClosed()
		b.requireClosed()
		got := map[string]bool{roomtest.Await(t, told, "receipt"): true, roomtest.Await(t, told, "receipt"): true, roomtest.Await(t, told, "receipt"): true}
		require.True(t, got["b "+errs.Closed.Error()] && got["c "+errs.Closed.Error()], "%v", got)
		late, err := l.sendWith("late", nil)
		require.ErrorIs(t, err, errs.Closed)
		late.requireClosed()
		require.ErrorIs(t, l.Send("late", nil), errs.Closed)
	}
}

// TestHandedByAGoPeer: the message and its descriptor are delivered together, in
// their place and charged. No acknowledgement goes back.
func TestHandedByAGoPeer(t *testing.T) {
	l := newTestLink(t, PeerGo, Options{}).take().start()
	const line = `{"cmd":"NODE_GO_CLUSTER","act":"handle","msg":{"n":1}}` + "\n"
	for cut := range len(line) {
		k := newToken(t)
		if cut > 0 {
			l.writeWith(line[:cut], k.file)
			l.write(line[cut:])
		} else {
			l.writeWith(line, k.file)
		}
		l.write("2\n")
		require.Equal(t, `{"n":1}`, l.message())
		require.Equal(t, `2`, l.message())
		got := roomtest.Await(t, l.parcels, "handle")
		require.Equal(t, parcelled{`{"n":1}`, got.h, len(`{"n":1}`) + HandleCost}, got)
		k.sent().requireSame(got.h)
		k.requireClosed()
		l.flow.release(got.size)
	}
	l.p.idle()
	require.Zero(t, l.flow.level())
	require.Empty(t, l.errors)
	l.quiet()
}

// TestHandedWithoutItsDescriptor: a message that comes without its descriptor is still a
// message. What is not a message is refused.
func TestHandedWithoutItsDescriptor(t *testing.T) {
	l := newTestLink(t, PeerGo, Options{}).take().start()
	l.write(`{"cmd":"NODE_GO_CLUSTER","act":"handle","msg":1}` + "\n")
	require.Contains(t, l.error(), "without its handle")
	require.Equal(t, "1", l.message())
	for _, bad := range []string{
		`{"cmd":"NODE_GO_CLUSTER","act":"handle"}`,
		`{"cmd":"NODE_GO_CLUSTER","act":"handle","msg":{"cmd":"NODE_CLUSTER","act":"x"}}`,
		`{"cmd":"NODE_HANDLE","type":"net.Socket"}`,
	} {
		k := newToken(t)
		l.writeWith(bad+"\n", k.file)
		k.sent().requireClosed()
		require.Contains(t, l.error(), "closed")
	}
	require.Empty(t, l.parcels)
	require.Empty(t, l.messages)
	require.Empty(t, l.internals)
}
