package link

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/go-cluster/cluster/internal/roomtest"
)

const question = `{"cmd":"NODE_GO_CLUSTER","act":"request","id":1,"msg":{"cmd":"asked"}}` + "\n"

// readerAnswers asks the link something that answer answers, on the reader, with
// nobody reading meanwhile: as where the last requests were answered soon.
func (l *testLink) readerAnswers(answer func() (any, error)) {
	l.t.Helper()
	read := make(chan holder, 1)
	l.p.onRequest("asked", func([]byte) (any, error) {
		who := l.turn.who()
		read <- who
		if who != byNobody {
			return nil, nil
		}
		return answer()
	})
	for who := byReader; who != byNobody; who = roomtest.Await(l.t, read, "request") {
		l.turn.mu.Lock()
		l.turn.quick = soonRun // the last one may note that it was slow, just now
		l.turn.mu.Unlock()
		l.write(question)
	}
}

// TestReaderAnswers: the reader that has answered reads on itself.
func TestReaderAnswers(t *testing.T) {
	l := newTestLink(t, PeerGo, Options{}).take().start()
	for range 20 {
		l.readerAnswers(func() (any, error) { return 1, nil })
		require.Contains(t, l.readLine(), `"act":"reply","id":1`)
		l.write(`"after"` + "\n")
		require.Equal(t, `"after"`, l.message())
	}
}

// waits are what a function waits for that the reader calls: a message, an answer, a
// receipt. All come later.
func waits() map[string]func(t *testing.T, l *testLink) error {
	return map[string]func(t *testing.T, l *testLink) error{
		"message": func(t *testing.T, l *testLink) error {
			l.write(`"later"` + "\n")
			if got := l.message(); got != `"later"` {
				return errors.New(got)
			}
			return nil
		},
		"answer":  func(t *testing.T, l *testLink) error { return l.ask(t.Context(), 7) },
		"receipt": func(t *testing.T, l *testLink) error { return l.SendContext(t.Context(), 7) },
		"callback": func(t *testing.T, l *testLink) error {
			received := make(chan error, 1)
			if err := l.Send("x", func(err error) { received <- err }); err != nil {
				return err
			}
			return roomtest.Await(t, received, "receipt")
		},
		"two answers": func(t *testing.T, l *testLink) error {
			other := make(chan error, 1)
			go func() { other <- l.ask(t.Context(), 8) }()
			return errors.Join(l.ask(t.Context(), 7), roomtest.Await(t, other, "the other answer"))
		},
		"own time-out": func(t *testing.T, l *testLink) error {
			ctx, cancel := context.WithTimeout(t.Context(), 2*time.Millisecond)
			defer cancel()
			if err := l.Request(ctx, "silence", nil); err != context.DeadlineExceeded {
				return fmt.Errorf("silence: %w", err)
			}
			return l.ask(t.Context(), 7)
		},
	}
}

// TestReaderAnswersSlowly: a handler that the reader calls waits for what comes later.
func TestReaderAnswersSlowly(t *testing.T) {
	for name, wait := range waits() {
		t.Run(name, func(t *testing.T) {
			l := newTestLink(t, PeerGo, Options{}).take().start()
			l.echoes()
			for range 10 {
				done := make(chan error, 1)
				l.readerAnswers(func() (any, error) {
					done <- wait(t, l)
					return nil, nil
				})
				require.NoError(t, roomtest.Await(t, done, "the handler"))
				l.write(`"after"` + "\n")
				require.Equal(t, `"after"`, l.message())
				l.Answered()
			}
		})
	}
}

// TestLinkEndsUnderReader: the end of the link does not wait for a handler that the
// reader has called.
func TestLinkEndsUnderReader(t *testing.T) {
	for name, end := range map[string]func(l *testLink){
		"peer":   func(l *testLink) { l.peer.Close() },
		"close":  func(l *testLink) { l.Close() },
		"exited": func(l *testLink) { l.PeerExited() },
	} {
		t.Run(name, func(t *testing.T) {
			l := newTestLink(t, PeerGo, Options{}).start()
			done := make(chan struct{})
			l.readerAnswers(func() (any, error) {
				end(l)
				roomtest.Await(t, l.ended, "end")
				close(done)
				return nil, nil
			})
			roomtest.Await(t, done, "the handler")
			l.Answered()
		})
	}
}

// TestReaderEndsItself: a handler that ends its goroutine ends no reading.
func TestReaderEndsItself(t *testing.T) {
	l := newTestLink(t, PeerGo, Options{}).take().start()
	for range 5 {
		l.readerAnswers(func() (any, error) {
			runtime.Goexit()
			return nil, nil
		})
		for !strings.Contains(l.readLine(), "runtime.Goexit") { // those that it answered too late for this test
		}
		l.write(`"after"` + "\n")
		require.Equal(t, `"after"`, l.message())
	}
}

// TestTurnIsLent: to nobody, where the last requests were answered soon; for a grace
// or two.
func TestTurnIsLent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		replaced := 0
		var b readTurn
		b.init(func() { replaced++ })
		now := func() time.Duration { return time.Since(epoch) }
		for range soonRun {
			require.False(t, b.lend(now(), soonRun), "not yet")
			b.answered(soon)
		}
		require.True(t, b.lend(now(), soonRun))
		require.Equal(t, byNobody, b.who())
		require.True(t, b.back())
		require.Equal(t, byReader, b.who())

		require.True(t, b.lend(now(), soonRun))
		mine, _ := b.begin(&call{})
		require.True(t, mine, "a caller takes what nobody has")
		require.True(t, b.back(), "and the reader waits for it")
		require.Equal(t, byCaller, b.who())
		b.giveUp()
		require.Equal(t, byReader, b.who())

		require.True(t, b.lend(now(), soonRun))
		time.Sleep(2 * grace)
		synctest.Wait()
		require.Equal(t, 1, replaced)
		require.Equal(t, byReader, b.who())
		require.False(t, b.back(), "another one reads")

		b.answered(2 * grace)
		require.False(t, b.lend(now(), soonRun), "the last one was slow")
		time.Sleep(2 * grace) // the timer's end
	})
}
