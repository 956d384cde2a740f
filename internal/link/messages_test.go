package link

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/go-cluster/cluster/internal/channel"
	"github.com/go-cluster/cluster/internal/errs"
	"github.com/go-cluster/cluster/internal/roomtest"
)

// ---- bytes

// TestRubbishIsReportedAndSkipped: what is no JSON is an error each, CRLF is
// allowed, and the messages between come through.
func TestRubbishIsReportedAndSkipped(t *testing.T) {
	l := newTestLink(t, PeerGo, Options{}).take().start()
	l.write("1\ngarbage\n\n{\"a\":1}\r\n\x00\xff\n[1\n\"end\"\n")
	for _, want := range []string{"1", `{"a":1}`, `"end"`} {
		require.Equal(t, want, l.message())
	}
	for _, want := range []string{"garbage", `""`, `\x00\xff`, `[1`} {
		require.Contains(t, l.error(), want)
	}
}

// TestHalfALineAtTheEnd: a peer that dies half way through a frame ends the
// link; the frame is dropped.
func TestHalfALineAtTheEnd(t *testing.T) {
	l := newTestLink(t, PeerGo, Options{}).take().start()
	l.write("1\n{\"half\":")
	l.peer.Close()
	require.Equal(t, "1", l.message())
	roomtest.Await(t, l.ended, "end")
	require.Empty(t, l.messages)
	require.Empty(t, l.errors)
}

// TestResetIsTheEnd: a peer that closes with something unread resets the
// channel, which is an end like any other, after what it had said.
func TestResetIsTheEnd(t *testing.T) {
	l := newTestLink(t, PeerGo, Options{}).take()
	require.NoError(t, l.Send("unread", nil))
	l.write("1\n")
	l.peer.Close()
	l.start()
	require.Equal(t, "1", l.message())
	roomtest.Await(t, l.ended, "end")
	require.Empty(t, l.errors)
	require.ErrorIs(t, l.Send("late", nil), errs.Closed)
}

// TestTooLongIsReportedAndSkipped: a message longer than MaxMessage is dropped
// whole, with errs.MessageTooLong, and the next one arrives. One of exactly
// MaxMessage arrives too, with either line end.
func TestTooLongIsReportedAndSkipped(t *testing.T) {
	l := newTestLink(t, PeerGo, Options{MaxMessage: 1000}).take().start()
	fits := `"` + strings.Repeat("x", 998) + `"`
	l.write(fits + "\n" + fits + "\r\n" + `"` + fits + "\n")
	go l.peer.Write([]byte(strings.Repeat("y", 5<<20) + "\n\"next\"\n"))
	require.Equal(t, fits, l.message())
	require.Equal(t, fits, l.message())
	require.Equal(t, `"next"`, l.message())
	for range 2 {
		require.ErrorIs(t, roomtest.Await(t, l.errors, "error"), errs.MessageTooLong)
	}
	require.Empty(t, l.errors)
}

// TestLargeMessageBothWays: 4 MiB, which no socket buffer takes at once, arrive.
func TestLargeMessageBothWays(t *testing.T) {
	l := newTestLink(t, PeerGo, Options{}).take().start()
	big := `"` + strings.Repeat("z", 4<<20-2) + `"`
	go l.peer.Write([]byte(big + "\n"))
	require.True(t, big == l.message(), "in")
	require.NoError(t, l.Send(json.RawMessage(big), nil))
	require.True(t, big == l.readLine(), "out")
}

// ---- descriptors

const handleLine = `{"cmd":"NODE_HANDLE","type":"net.Native","msg":{"cmd":"NODE_CLUSTER","act":"newconn","key":"k","seq":1}}` + "\n"

// TestHandleWithoutDescriptor is refused with a NACK and reported: once, since a process
// without descriptors is sent the next one as well.
func TestHandleWithoutDescriptor(t *testing.T) {
	l := newTestLink(t, PeerGo, Options{}).take().start()
	l.write(handleLine)
	require.Equal(t, `{"cmd":"NODE_HANDLE_NACK"}`, l.readLine())
	require.Contains(t, l.error(), "without its descriptor")
	l.write(handleLine + "no JSON\n")
	require.Equal(t, `{"cmd":"NODE_HANDLE_NACK"}`, l.readLine())
	require.Contains(t, l.error(), "not JSON")
	require.Empty(t, l.internals)
}

// ---- bounds

// TestAsksWithoutReading: a peer that asks for receipts, acknowledgements and
// replies and reads none of them is not answered without end.
func TestAsksWithoutReading(t *testing.T) {
	const refused = `{"cmd":"NODE_HANDLE"}`
	for name, line := range map[string]string{
		"receipts": `{"cmd":"NODE_GO_CLUSTER","act":"ask","n":1}`,
		"handles":  refused,
		"requests": `{"cmd":"NODE_GO_CLUSTER","act":"request","id":1,"msg":{"cmd":"asked"}}`,
	} {
		t.Run(name, func(t *testing.T) {
			l := newTestLink(t, PeerGo, Options{MaxQueue: answersBound}).start()
			go func() { // discard the reports
				for range l.errors {
				}
			}()
			l.p.onRequest("asked", func([]byte) (any, error) { return "answer", nil })
			ask := func(lines string) bool {
				_, err := l.peer.Write([]byte(lines))
				for err == nil && l.ch.Unread() > 0 {
					runtime.Gosched()
				}
				return err == nil
			}
			go func() {
				lines := many(100, line)
				if name == "receipts" { // a read has one, for all that it brings: the first MiB is of others
					for l.out.queued() < answersBound-16<<10 && ask(many(100, refused)) {
					}
					lines = line + "\n"
				}
				for ask(lines) {
				}
			}()
			roomtest.Await(t, l.overruns, "overrun")
			require.LessOrEqual(t, l.out.queued(), answersBound)
			l.peer.Close()
			roomtest.Await(t, l.ended, "end")
			l.p.idle()
			close(l.errors)
		})
	}
}

// TestBackPressure: while callbacks do not take the input, no more of it is
// read than the bound; then all of it arrives, in order.
func TestBackPressure(t *testing.T) {
	const bound, size, count = 256 << 10, 1000, 20000
	l := newTestLink(t, PeerGo, Options{MaxQueue: bound}).start()
	gate, all := make(chan struct{}), make(chan int, count)
	l.p.onMessage(func(m string) {
		<-gate
		var v struct{ N int }
		json.Unmarshal([]byte(m), &v)
		all <- v.N
	})
	wrote := make(chan error, 1)
	go func() {
		for n := range count {
			if _, err := fmt.Fprintf(l.peer, `{"n":%d,"pad":"%s"}`+"\n", n, strings.Repeat("x", size)); err != nil {
				wrote <- err
				return
			}
		}
		wrote <- nil
	}()
	require.Eventually(t, func() bool { return !l.flow.enter() }, roomtest.Patience, time.Millisecond)
	require.LessOrEqual(t, l.flow.level(), bound+2*channel.FullRead)
	require.Empty(t, wrote, "the peer is not slowed down")
	close(gate)
	for n := range count {
		require.Equal(t, n, roomtest.Await(t, all, "message"))
	}
	require.NoError(t, <-wrote)
}

func (f *flow) level() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.bytes
}

// TestUnclaimedRequestsCostIsLinear: one more request that no handler fits does not
// have all that wait looked at again.
func TestUnclaimedRequestsCostIsLinear(t *testing.T) {
	l := newTestLink(t, PeerGo, Options{MaxQueue: 1 << 30})
	l.p.onRequest("claimed", func([]byte) (any, error) { return 1, nil })
	lines := many(500, `{"cmd":"NODE_GO_CLUSTER","act":"request","id":1,"msg":{"cmd":"unclaimed"}}`)
	begun := time.Now()
	for range 40 {
		l.take_(lines)
	}
	require.Less(t, time.Since(begun), roomtest.Patience)
	l.DropRequests()
}

// TestSmallReadsKeepLittle: messages that are read one by one, after a burst or
// before something large, cost what they count: a slow callback must not hold a
// batch's room for each, nor a buffer's.
func TestSmallReadsKeepLittle(t *testing.T) {
	l := newTestLink(t, PeerGo, Options{})
	called, gate := make(chan struct{}, 1), make(chan struct{})
	defer close(gate)
	l.p.onMessage(func(string) {
		select {
		case called <- struct{}{}:
		default:
		}
		<-gate
	})
	l.take_(many(1000, "1"))
	roomtest.Await(t, called, "callback") // what comes from now on is queued
	const reads = 100
	for range reads {
		l.take_("2\n" + strings.Repeat(" ", channel.FullRead-3) + "\n")
		l.take_("3\n")
	}
	l.p.mu.Lock()
	defer l.p.mu.Unlock()
	require.GreaterOrEqual(t, len(l.p.batches), 2*reads)
	for _, batch := range l.p.batches[1:] {
		require.LessOrEqual(t, cap(batch), 2*len(batch))
		for _, m := range batch {
			require.LessOrEqual(t, cap(m), 2*len(m))
		}
	}
}

// TestMessagesShareLittle: small messages of one batch share memory, which is no larger than
// they are and than slabSize.
func TestMessagesShareLittle(t *testing.T) {
	for _, n := range []int{1, 10, slabSize, 3*slabSize + 1} {
		var b readBatch
		for range n {
			b.add([]byte("1"))
		}
		b.add(bytes.Repeat([]byte("x"), slabSize))
		messages, size := b.take()
		require.Equal(t, n+slabSize+(n+1)*MessageCost, size)
		require.Len(t, messages, n+1)
		require.Equal(t, n+1, cap(messages))
		for i, m := range messages {
			require.Equal(t, len(m), cap(m), "appending to it would write into the next")
			require.Equal(t, i < n, string(m) == "1")
		}
		require.Empty(t, b.messages)
		require.Zero(t, b.size)
	}
}

func (l *testLink) take_(p string) {
	in := new(channel.Input)
	in.N = copy(in.Data[:], p)
	l.in.take(in)
}

// TestExitWakesAPausedReader: a reader that waits for callbacks misses the end
// of the channel, so the exit of the process ends its wait.
func TestExitWakesAPausedReader(t *testing.T) {
	l := newTestLink(t, PeerGo, Options{MaxQueue: 1000})
	gate := make(chan struct{})
	defer close(gate)
	l.p.onMessage(func(string) { <-gate })
	go l.in.read()
	l.write(many(5000, `"flood"`))
	require.Eventually(t, func() bool { return !l.flow.enter() }, roomtest.Patience, time.Millisecond)
	l.write(`{"cmd":"NODE_CLUSTER","act":"last"}` + "\n")
	l.PeerExited() // what the reaper does
	roomtest.Await(t, l.ended, "end of the link")
	require.Equal(t, "last", roomtest.Await(t, l.internals, "last word").w.Act)
}

// TestLongInternalMessage is ignored: what an address is asked for with would
// be kept for as long as it is open.
func TestLongInternalMessage(t *testing.T) {
	l := newTestLink(t, PeerGo, Options{}).start()
	l.write(`{"cmd":"NODE_CLUSTER","act":"queryServer","data":"` + strings.Repeat("x", maxInternal) + `"}` + "\n")
	require.Contains(t, l.error(), "is ignored")
	l.write(`{"cmd":"NODE_CLUSTER","act":"after"}` + "\n")
	require.Equal(t, "after", roomtest.Await(t, l.internals, "next").w.Act)
}

// TestUnknownInternalMessages are ignored, as node does, and are no messages.
func TestUnknownInternalMessages(t *testing.T) {
	l := newTestLink(t, PeerGo, Options{}).take().start()
	for _, line := range []string{
		`{"cmd":"NODE_WHATEVER"}`, `{"cmd":"NODE_CLUSTER","ack":123456,"accepted":true}`,
		`{"cmd":"\u004eODE_CLUSTERX"}`, `{"cmd":"NODE_GO_CLUSTER","act":"reply","id":99,"msg":1}`,
		`{"cmd":"NODE_GO_CLUSTER","act":"received","n":18446744073709551615}`,
	} {
		l.write(line + "\n")
	}
	l.write(`{"cmd":"NODE_"}` + "\n" + `{"cmd":"node_x"}` + "\n") // no internal ones
	require.Equal(t, `{"cmd":"NODE_"}`, l.message())
	require.Equal(t, `{"cmd":"node_x"}`, l.message())
	require.Empty(t, l.errors)
	l.write(`{"cmd":"NODE_CLUSTER","act":7}` + "\n" + `{"cmd":"NODE_GO_CLUSTER","n":-1}` + "\n")
	require.Contains(t, l.error(), "bad internal message")
	require.Contains(t, l.error(), "bad internal message")
}

// ---- receipts

// TestReceiptOfAGoPeer: received is called when the peer says so, and not when
// the message is written.
func TestReceiptOfAGoPeer(t *testing.T) {
	l := newTestLink(t, PeerGo, Options{}).start()
	told := make(chan string, 2)
	require.NoError(t, l.Send(1, func(err error) { told <- fmt.Sprint("1 ", err) }))
	require.NoError(t, l.Send(2, func(err error) { told <- fmt.Sprint("2 ", err) }))
	require.Equal(t, "1", l.readLine())
	require.Equal(t, `{"cmd":"NODE_GO_CLUSTER","act":"ask","n":1}`, l.readLine())
	require.Equal(t, "2", l.readLine())
	require.Equal(t, `{"cmd":"NODE_GO_CLUSTER","act":"ask","n":2}`, l.readLine())
	l.quiet()
	require.Empty(t, told)
	l.write(`{"cmd":"NODE_GO_CLUSTER","act":"received","n":1}` + "\n")
	require.Equal(t, "1 <nil>", roomtest.Await(t, told, "receipt"))
	l.peer.Close()
	require.Contains(t, roomtest.Await(t, told, "receipt"), "2 "+errs.Closed.Error())
}

// TestReceiptsBeforeThePeerIsKnown are decided by its online: a Go peer is
// asked for all by the last one, node is never asked, and they count as written.
func TestReceiptsBeforeThePeerIsKnown(t *testing.T) {
	for _, kind := range []PeerKind{PeerGo, PeerNode} {
		l := newTestLink(t, PeerUnknown, Options{}).start()
		told := make(chan int, 100)
		for i := range 50 {
			require.NoError(t, l.Send(i, func(err error) {
				require.NoError(t, err)
				told <- i
			}))
		}
		for i := range 50 {
			require.Equal(t, fmt.Sprint(i), l.readLine())
		}
		require.Empty(t, told)
		l.SetPeer(kind)
		l.SetPeer(PeerGo + PeerNode - kind) // a second word does not count
		require.Equal(t, kind == PeerGo, l.SpeaksExtra())
		if kind == PeerGo {
			require.Equal(t, `{"cmd":"NODE_GO_CLUSTER","act":"ask","n":0}`, l.readLine())
			require.Equal(t, `{"cmd":"NODE_GO_CLUSTER","act":"ask","n":50}`, l.readLine())
			require.Empty(t, told)
			l.write(`{"cmd":"NODE_GO_CLUSTER","act":"received","n":50}` + "\n")
		} else {
			l.quiet()
		}
		for i := range 50 {
			require.Equal(t, i, roomtest.Await(t, told, "receipt"))
		}
	}
}

// TestReceiptsOfAPeerThatStarts: a peer may be ordered to end before it has said what it
// understands. The question for a receipt comes to it before the order, and it answers before
// it ends.
func TestReceiptsOfAPeerThatStarts(t *testing.T) {
	l := newTestLink(t, PeerUnknown, Options{}).start()
	told := make(chan error, 2)
	for i := range 2 {
		require.NoError(t, l.Send(i, func(err error) { told <- err }))
	}
	l.OrderDisconnect(time.Second, false)
	require.Equal(t, "0", l.readLine())
	require.Equal(t, "1", l.readLine())
	require.Equal(t, `{"cmd":"NODE_GO_CLUSTER","act":"ask","n":0}`, l.readLine())
	require.Equal(t, `{"cmd":"NODE_GO_CLUSTER","act":"ask","n":2}`, l.readLine())
	require.Contains(t, l.readLine(), `"act":"disconnect"`)
	l.write(`{"cmd":"NODE_GO_CLUSTER","act":"received","n":2}` + "\n")
	for range 2 {
		require.NoError(t, roomtest.Await(t, told, "receipt"))
	}
	ask := func(n string) string { return `{"cmd":"NODE_GO_CLUSTER","act":"ask","n":` + n + "}\n" }
	l.write(ask("1") + `{"cmd":"NODE_CLUSTER","act":"here"}` + "\n" + ask("2"))
	require.Equal(t, `{"cmd":"NODE_GO_CLUSTER","act":"received","n":1}`, l.readLine())
	require.Equal(t, `{"cmd":"NODE_GO_CLUSTER","act":"received","n":2}`, l.readLine())
}

// TestReceiptsOfANodePeer are given when the message is written, in order; one
// that is never written gets an error.
func TestReceiptsOfANodePeer(t *testing.T) {
	l := newTestLink(t, PeerNode, Options{}).start()
	told := make(chan int, 1000)
	for i := range 200 {
		require.NoError(t, l.Send(i, func(err error) {
			require.NoError(t, err)
			told <- i
		}))
	}
	for i := range 200 {
		require.Equal(t, i, roomtest.Await(t, told, "receipt"))
	}
	failed := make(chan error, 1)
	require.NoError(t, l.Send(strings.Repeat("x", 8<<20), func(err error) { failed <- err }))
	l.quietNode()
	require.Empty(t, failed) // the kernel does not take that much
	l.peer.Close()
	require.ErrorIs(t, roomtest.Await(t, failed, "receipt"), errs.Closed)
}

// quietNode returns when the link has read all that was written.
func (l *testLink) quietNode() {
	l.write(`{"cmd":"NODE_CLUSTER","act":"here"}` + "\n")
	roomtest.Await(l.t, l.internals, "marker")
}

// TestSocketsThatWereSent: what a node primary asks about them is answered, or its
// server would not close.
func TestSocketsThatWereSent(t *testing.T) {
	l := newTestLink(t, PeerNode, Options{}).start()
	l.write(`{"cmd":"NODE_SOCKET_GET_COUNT","key":"6::::0"}` + "\n")
	require.JSONEq(t, `{"cmd":"NODE_SOCKET_COUNT","key":"6::::0","count":0}`, l.readLine())
	l.write(`{"cmd":"NODE_SOCKET_NOTIFY_CLOSE","key":"6::::0"}` + "\n")
	require.JSONEq(t, `{"cmd":"NODE_SOCKET_ALL_CLOSED","key":"6::::0"}`, l.readLine())
}

// ---- requests

// held waits until so many requests wait for the peer to be known.
func (l *testLink) held(n int) {
	require.Eventually(l.t, func() bool {
		l.calls.mu.Lock()
		defer l.calls.mu.Unlock()
		return len(l.calls.held) == n
	}, roomtest.Patience, time.Millisecond)
}

// TestRequestBeforeThePeerIsKnown waits for online; node answers none.
func TestRequestBeforeThePeerIsKnown(t *testing.T) {
	for _, kind := range []PeerKind{PeerGo, PeerNode} {
		l := newTestLink(t, PeerUnknown, Options{}).start()
		result := make(chan error, 1)
		var reply string
		go func() { result <- l.Request(context.Background(), "q", &reply) }()
		l.held(1)
		gaveUp, cancel := context.WithCancel(context.Background())
		cancel()
		require.ErrorIs(t, l.Request(gaveUp, "never sent", nil), context.Canceled)
		l.SetPeer(kind)
		if kind == PeerNode {
			require.ErrorIs(t, roomtest.Await(t, result, "result"), errs.NotSupported)
			require.ErrorIs(t, l.Request(context.Background(), "q", nil), errors.ErrUnsupported)
			continue
		}
		require.Equal(t, `{"cmd":"NODE_GO_CLUSTER","act":"request","id":1,"msg":"q"}`, l.readLine())
		l.write(`{"cmd":"NODE_GO_CLUSTER","act":"reply","id":1,"msg":"a"}` + "\n")
		require.NoError(t, roomtest.Await(t, result, "result"))
		require.Equal(t, "a", reply)
		l.quiet()
	}
}

// TestReplyDoesNotWaitForCallbacks, nor for a flood of messages before it.
func TestReplyDoesNotWaitForCallbacks(t *testing.T) {
	l := newTestLink(t, PeerGo, Options{MaxQueue: 10000}).start()
	result := make(chan error, 1)
	l.p.onMessage(func(m string) {
		if m == `"go"` {
			result <- l.Request(context.Background(), 1, nil)
		}
	})
	l.write(many(1, `"go"`) + many(10000, `"flood"`))
	require.Equal(t, `{"cmd":"NODE_GO_CLUSTER","act":"request","id":1,"msg":1}`, l.readLine())
	l.write(many(10000, `"flood"`) + `{"cmd":"NODE_GO_CLUSTER","act":"reply","id":1,"msg":1}` + "\n")
	require.NoError(t, roomtest.Await(t, result, "reply"))
}

// TestRequestOfAClosedLink fails with errs.Closed, under way or not.
func TestRequestOfAClosedLink(t *testing.T) {
	for _, kind := range []PeerKind{PeerGo, PeerUnknown} {
		l := newTestLink(t, kind, Options{}).start()
		result := make(chan error, 1)
		go func() { result <- l.Request(context.Background(), 1, nil) }()
		require.Eventually(t, func() bool {
			l.calls.mu.Lock()
			defer l.calls.mu.Unlock()
			return len(l.calls.held)+len(l.calls.byID) == 1
		}, roomtest.Patience, time.Millisecond)
		l.peer.Close()
		require.ErrorIs(t, roomtest.Await(t, result, "result"), errs.Closed)
		roomtest.Await(t, l.ended, "end")
		require.ErrorIs(t, l.Request(context.Background(), 1, nil), errs.Closed)
	}
}

// TestReplyThatDoesNotFit the caller's type is the caller's error.
func TestReplyThatDoesNotFit(t *testing.T) {
	l := newTestLink(t, PeerGo, Options{}).start()
	result := make(chan error, 1)
	go func() { result <- l.Request(context.Background(), 1, new(int)) }()
	l.readLine()
	l.write(`{"cmd":"NODE_GO_CLUSTER","act":"reply","id":1,"msg":"text"}` + "\n")
	require.ErrorContains(t, roomtest.Await(t, result, "result"), "reply")
}

// TestMessageOfAnyKind: any JSON value is a message, and arrives as it was.
func TestMessageOfAnyKind(t *testing.T) {
	a := newTestLink(t, PeerGo, Options{}).start()
	b := newTestLink(t, PeerGo, Options{}).take().start()
	go io.Copy(b.peer, onlyReaderOf(a.peer))
	for _, v := range []struct {
		v    any
		want string
	}{
		{nil, "null"}, {true, "true"}, {42, "42"}, {1.5, "1.5"}, {"<&>\u2028", "\"<&>\\u2028\""}, {"\n", `"\n"`},
		{[]int{1}, "[1]"}, {map[string]any{"cmd": 1}, `{"cmd":1}`}, {struct{ A int }{1}, `{"A":1}`},
		{json.RawMessage(`{"x":1}`), `{"x":1}`}, {"NODE_CLUSTER", `"NODE_CLUSTER"`},
		{map[string]string{"cmd": "NODE_"}, `{"cmd":"NODE_"}`}, {[]any{map[string]string{"cmd": "NODE_X"}}, `[{"cmd":"NODE_X"}]`},
	} {
		require.NoError(t, a.Send(v.v, nil))
		require.Equal(t, v.want, b.message())
	}
	require.Error(t, a.Send(make(chan int), nil))
	require.Error(t, a.Send(func() {}, nil))
}

// onlyReaderOf keeps io.Copy from splicing.
func onlyReaderOf(c io.Reader) io.Reader { return struct{ io.Reader }{c} }
