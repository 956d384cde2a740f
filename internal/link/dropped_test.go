package link

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/go-cluster/cluster/internal/errs"
	"github.com/go-cluster/cluster/internal/roomtest"
	"github.com/go-cluster/cluster/internal/wire"
)

// text is a message of n bytes.
func text(n int) string { return strings.Repeat("x", n-len(`""`)) }

// deep is a value that is nested as deep as said.
func deep(levels int) any {
	return json.RawMessage(strings.Repeat("[", levels) + strings.Repeat("]", levels))
}

// deepValue is deep, of a kind that the encoder does not look at first.
func deepValue(levels int) (v any) {
	for range levels {
		v = []any{v}
	}
	return v
}

// TestTooLongForThePeer: a line that the peer would drop is refused by the sender. A line that
// just fits is sent. All lengths are those of the line.
func TestTooLongForThePeer(t *testing.T) {
	l := newTestLink(t, PeerGo, Options{PeerMax: 1000}).start()
	received := func(error) { t.Error("told of what was not sent") }
	require.NoError(t, l.Send(text(1000), nil))
	require.Len(t, l.readLine(), 1000)
	require.ErrorIs(t, l.Send(text(1001), nil), errs.MessageTooLong)
	require.ErrorIs(t, l.Send(text(1001), received), errs.MessageTooLong)
	require.ErrorIs(t, l.SendContext(t.Context(), text(1001)), errs.MessageTooLong)

	frame := len(`{"cmd":"NODE_GO_CLUSTER","act":"request","id":1,"msg":}`)
	require.ErrorIs(t, l.Request(t.Context(), text(1001-frame), nil), errs.MessageTooLong)
	go l.Request(t.Context(), text(1000-frame), nil)
	require.Len(t, l.readLine(), 1000)
}

// TestTooDeepForThePeer: so is what it could not read.
func TestTooDeepForThePeer(t *testing.T) {
	l := newTestLink(t, PeerGo, Options{}).start()
	const most = 10000
	require.NoError(t, l.Send(deep(most), nil))
	require.NoError(t, l.Send(deepValue(most), nil))
	require.Regexp(t, "too deep|max depth", l.Send(deepValue(most+1), nil), "Go 1.27's encoding/json refuses it by itself")
	require.ErrorIs(t, l.Request(t.Context(), deep(most), nil), ErrTooDeep, "a request is one level deeper")
	for _, ok := range []any{deep(1), strings.Repeat("[", 3*most), []any{strings.Repeat("{", 3*most)}} {
		require.NoError(t, l.Send(ok, nil))
	}
}

// TestReplyThatIsTooLong: the caller of a Request gets an error at once if the reply is too
// long or too deep.
func TestReplyThatIsTooLong(t *testing.T) {
	l := newTestLink(t, PeerGo, Options{PeerMax: 300}).start()
	ask := func(reply any, err error) (m struct {
		ID          int
		Error, Code string
	}) {
		l.p.onRequest("ask", func([]byte) (any, error) { return reply, err })
		l.write(`{"cmd":"NODE_GO_CLUSTER","act":"request","id":7,"msg":{"cmd":"ask"}}` + "\n")
		line := l.readLine()
		require.LessOrEqual(t, len(line), 300)
		require.NoError(t, json.Unmarshal([]byte(line), &m))
		require.Equal(t, 7, m.ID)
		return m
	}
	m := ask(text(300), nil)
	require.Contains(t, m.Error, errs.MessageTooLong.Error())
	require.Equal(t, wire.CodeTooLong, m.Code)
	m = ask(deep(10000), nil)
	require.NotEmpty(t, m.Error)
	m = ask(nil, errors.New("é: "+strings.Repeat("é\n", 1000)))
	require.Contains(t, m.Error, "é: ", "as much of the text as fits")
	require.Empty(t, m.Code)
	require.Empty(t, ask(text(100), nil).Error)
}

// TestReplyWasTooLong: who asked can tell that error from others.
func TestReplyWasTooLong(t *testing.T) {
	l := newTestLink(t, PeerGo, Options{}).start()
	for code, tooLong := range map[string]bool{`,"code":"tooLong"`: true, `,"code":"other"`: false, ``: false} {
		result := make(chan error, 1)
		go func() { result <- l.Request(context.Background(), 1, nil) }()
		var m struct{ ID int }
		require.NoError(t, json.Unmarshal([]byte(l.readLine()), &m))
		l.write(fmt.Sprintf(`{"cmd":"NODE_GO_CLUSTER","act":"reply","id":%d,"error":"so it is"%s}`+"\n", m.ID, code))
		err := roomtest.Await(t, result, "result")
		require.EqualError(t, err, "so it is")
		require.Equal(t, tooLong, errors.Is(err, errs.MessageTooLong))
	}
}

// TestErrorsOfThePeerArePlain: what the peer says in an error is one line, and not
// more than an error needs.
func TestErrorsOfThePeerArePlain(t *testing.T) {
	l := newTestLink(t, PeerGo, Options{}).start()
	result := make(chan error, 1)
	go func() { result <- l.Request(context.Background(), 1, nil) }()
	l.readLine()
	l.write(`{"cmd":"NODE_GO_CLUSTER","act":"reply","id":1,"error":"a\nb\u001b[31m` + strings.Repeat("x", 64<<10) + `"}` + "\n")
	err := roomtest.Await(t, result, "result")
	require.Contains(t, err.Error(), `a\nb\x1b[31mxxx`)
	require.Less(t, len(err.Error()), 2*wire.MaxText)
	l.write(`{"cmd":"NODE_GO_CLUSTER","act":"` + strings.Repeat("y", 10) + `","msg":"` + strings.Repeat("x", maxInternal) + `"}` + "\n")
	require.NotContains(t, l.error(), "\n")
}

// TestDroppedIsNotReceived: the question behind a line that was dropped is answered
// with why, and those before and after it as ever.
func TestDroppedIsNotReceived(t *testing.T) {
	l := newTestLink(t, PeerGo, Options{MaxMessage: 100}).take().start()
	ask := func(n int) string { return fmt.Sprintf(`{"cmd":"NODE_GO_CLUSTER","act":"ask","n":%d}`+"\n", n) }
	received := func(n int) string { return fmt.Sprintf(`{"cmd":"NODE_GO_CLUSTER","act":"received","n":%d}`, n) }
	for what, line := range map[string]string{"tooLong": `"` + text(101) + `"`, "": "no JSON"} {
		l.write("1\n" + ask(1) + line + "\n" + ask(2) + "3\n" + ask(3))
		require.Equal(t, received(1), l.readLine())
		var m struct {
			N           int
			Error, Code string
		}
		require.NoError(t, json.Unmarshal([]byte(l.readLine()), &m))
		require.Equal(t, 2, m.N)
		require.NotEmpty(t, m.Error)
		require.Equal(t, what, m.Code)
		require.Equal(t, received(3), l.readLine())
	}
	// The question for nothing parts the two.
	l.write("1\n\"" + text(101) + "\"\n" + ask(0) + ask(1))
	require.Equal(t, received(1), l.readLine())
}

// TestReceiptOfWhatWasDropped is an error, for that message only.
func TestReceiptOfWhatWasDropped(t *testing.T) {
	l := newTestLink(t, PeerGo, Options{}).start()
	told := make(chan error, 4)
	for i := range 4 {
		require.NoError(t, l.Send(i, func(err error) { told <- err }))
	}
	l.write(`{"cmd":"NODE_GO_CLUSTER","act":"received","n":3,"error":"dropped","code":"tooLong"}` + "\n")
	require.NoError(t, roomtest.Await(t, told, "receipt"))
	require.NoError(t, roomtest.Await(t, told, "receipt"))
	require.ErrorIs(t, roomtest.Await(t, told, "receipt"), errs.MessageTooLong)
	l.write(`{"cmd":"NODE_GO_CLUSTER","act":"received","n":4}` + "\n")
	require.NoError(t, roomtest.Await(t, told, "receipt"))
}

// TestTooLongBeforeThePeerIsKnown: its online decides. A node peer takes any length.
func TestTooLongBeforeThePeerIsKnown(t *testing.T) {
	for _, kind := range []PeerKind{PeerGo, PeerNode} {
		l := newTestLink(t, PeerUnknown, Options{}).start()
		told, result := make(chan error, 2), make(chan error, 1)
		require.NoError(t, l.Send(text(1000), func(err error) { told <- err }))
		require.NoError(t, l.Send(text(1001), func(err error) { told <- err }))
		go func() { result <- l.Request(context.Background(), text(1000), nil) }()
		l.held(1)
		if kind == PeerGo {
			l.SetPeerMax(1000)
		}
		l.SetPeer(kind)
		if kind == PeerNode {
			require.ErrorIs(t, roomtest.Await(t, result, "result"), errs.NotSupported)
			require.NoError(t, roomtest.Await(t, told, "receipt"))
			require.NoError(t, roomtest.Await(t, told, "receipt"))
			continue
		}
		require.ErrorIs(t, roomtest.Await(t, result, "result"), errs.MessageTooLong)
		require.ErrorIs(t, roomtest.Await(t, told, "receipt"), errs.MessageTooLong)
		l.write(`{"cmd":"NODE_GO_CLUSTER","act":"received","n":1}` + "\n")
		require.NoError(t, roomtest.Await(t, told, "receipt"))
	}
}
