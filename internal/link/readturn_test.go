package link

import (
	"context"
	"encoding/json"
	"fmt"
	"runtime"
	"strconv"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/go-cluster/cluster/internal/errs"
	"github.com/go-cluster/cluster/internal/roomtest"
	"github.com/go-cluster/cluster/internal/wire"
)

// echoes lets the peer of l answer every request with what was asked, until the
// channel ends. What it is asked as "silence" it does not answer.
func (l *testLink) echoes() {
	go func() {
		for {
			line, err := l.lines.ReadBytes('\n')
			if err != nil {
				return
			}
			var m struct {
				Act string
				ID  uint64
				N   uint64
				Msg json.RawMessage
			}
			if json.Unmarshal(line, &m) == nil && m.Act == wire.ActAsk {
				fmt.Fprintf(l.peer, `{"cmd":"NODE_GO_CLUSTER","act":"received","n":%d}`+"\n", m.N)
			} else if m.Act == wire.ActRequest && string(m.Msg) != `"silence"` {
				fmt.Fprintf(l.peer, `{"cmd":"NODE_GO_CLUSTER","act":"reply","id":%d,"msg":%s}`+"\n", m.ID, m.Msg)
			}
		}
	}()
}

func (l *testLink) ask(ctx context.Context, n int) error {
	var got int
	if err := l.Request(ctx, n, &got); err != nil {
		return err
	}
	if got != n {
		return fmt.Errorf("asked %d, got %d", n, got)
	}
	return nil
}

// who has it.
func (b *readTurn) who() holder {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.holder
}

// callerLeads asks as one that has asked again and again, however busy the
// machine is, until the caller has had the turn, and leaves it to nobody.
func (l *testLink) callerLeads() {
	l.t.Helper()
	for n, deadline := 0, time.Now().Add(roomtest.Patience); ; n++ {
		l.turn.mu.Lock()
		l.turn.run, l.turn.end = soonRun, time.Since(epoch)+time.Hour
		l.turn.mu.Unlock()
		require.NoError(l.t, l.ask(context.Background(), n))
		if l.turn.who() == byNobody {
			return
		}
		require.True(l.t, time.Now().Before(deadline), "no caller gets the turn")
	}
}

// callerKeeps is callerLeads, and the reader does not get the turn back.
func (l *testLink) callerKeeps() {
	l.t.Helper()
	for {
		l.callerLeads()
		if l.turn.timer.Stop() {
			return // armed, so that nobody starts it again
		}
	}
}

// TestCallerReads: one that asks again and again reads the answers itself, and
// all else that comes meanwhile is heard as ever: while it reads, while nobody
// does, and when the reader does again.
func TestCallerReads(t *testing.T) {
	l := newTestLink(t, PeerGo, Options{}).take().start()
	l.echoes()
	for i := range 20 {
		l.callerLeads()
		text := strconv.Itoa(i)
		switch i % 3 {
		case 0: // nobody reads
			l.write(text + "\n")
			require.Equal(t, text, l.message())
		case 1: // the caller does, and answers another's request as well
			l.write(text + "\n")
			require.NoError(t, l.ask(t.Context(), i))
			require.Equal(t, text, l.message())
		case 2: // the reader does: a receipt is waited for
			received := make(chan error, 1)
			require.NoError(t, l.Send("x", func(err error) { received <- err }))
			l.write(fmt.Sprintf(`{"cmd":"NODE_GO_CLUSTER","act":"received","n":%d}`+"\n", i/3+1))
			require.NoError(t, roomtest.Await(t, received, "receipt"))
			l.write(text + "\n")
			require.Equal(t, text, l.message())
		}
	}
}

// TestCallerThatReadsGivesUp: the end of its context ends the wait of a caller
// that reads, and the link goes on.
func TestCallerThatReadsGivesUp(t *testing.T) {
	l := newTestLink(t, PeerGo, Options{}).take().start()
	l.echoes()
	for i := range 10 {
		l.callerLeads()
		ctx, cancel := context.WithTimeout(t.Context(), time.Duration(i)*time.Millisecond)
		require.ErrorIs(t, l.Request(ctx, "silence", nil), context.DeadlineExceeded)
		cancel()
		l.write(`"after"` + "\n")
		require.Equal(t, `"after"`, l.message())
		require.NoError(t, l.ask(t.Context(), i))
	}
}

// TestEndOfTheLinkForACallerThatReads: whatever ends the link ends the call and the reader, even
// when nobody is reading.
func TestEndOfTheLinkForACallerThatReads(t *testing.T) {
	for name, end := range map[string]func(l *testLink){
		"peer gone":    func(l *testLink) { l.peer.Close() },
		"closed":       func(l *testLink) { l.Close() },
		"process gone": func(l *testLink) { l.PeerExited() },
	} {
		t.Run(name, func(t *testing.T) {
			l := newTestLink(t, PeerGo, Options{}).start()
			l.echoes()
			l.callerKeeps()
			failed := make(chan error, 1)
			go func() { failed <- l.Request(context.Background(), "silence", nil) }()
			for l.turn.who() != byCaller {
				time.Sleep(time.Millisecond)
			}
			end(l)
			require.ErrorIs(t, roomtest.Await(t, failed, "error"), errs.Closed)
			roomtest.Await(t, l.ended, "end of the link")
		})
		t.Run(name+", nobody reads", func(t *testing.T) {
			l := newTestLink(t, PeerGo, Options{}).start()
			l.echoes()
			l.callerLeads()
			end(l)
			roomtest.Await(t, l.ended, "end of the link")
		})
	}
}

// TestCallersOfAPausedReader: callers that ask for the turn and give up while the
// reader does not read, since too much waits for a handler, do not stop it for
// good: the interrupts of both are in each other's way.
func TestCallersOfAPausedReader(t *testing.T) {
	const messages, calls = 1000, 1000
	l := newTestLink(t, PeerGo, Options{MaxQueue: 10 << 10}).start()
	l.echoes()
	l.write(many(messages, "1"))
	l.error()
	for i := range calls {
		l.turn.mu.Lock()
		l.turn.run, l.turn.end = soonRun, time.Since(epoch)+time.Hour
		l.turn.mu.Unlock()
		ctx, cancel := context.WithTimeout(t.Context(), time.Duration(i%50)*time.Microsecond)
		require.ErrorIs(t, l.Request(ctx, "silence", nil), context.DeadlineExceeded)
		cancel()
	}
	l.take()
	for range messages {
		require.Equal(t, "1", l.message())
	}
	require.NoError(t, l.ask(t.Context(), 1))
}

// TestTwoCallersAtOnce: of two that wait at once, for a reply and for a receipt, the
// one that reads goes when it has its own; the other one's is read all the same.
func TestTwoCallersAtOnce(t *testing.T) {
	const calls = 600 // some 6 ms each under Wine
	l := newTestLink(t, PeerGo, Options{}).start()
	l.echoes()
	ctx, cancel := context.WithTimeout(t.Context(), roomtest.Patience)
	defer cancel()
	var both sync.WaitGroup
	for c, call := range []func(n int) error{
		func(n int) error { return l.ask(ctx, n) },
		func(n int) error { return l.SendContext(ctx, n) },
	} {
		both.Go(func() {
			for n := range calls {
				if err := call(n); err != nil {
					t.Error(c, n, err)
					return
				}
				if n%100 < 10 { // sometimes one is alone, and reads
					time.Sleep(time.Duration(c*n%7) * 100 * time.Microsecond)
				}
			}
		})
	}
	both.Wait()
}

// TestManyCallers: callers come and go. Some of them read, some give up. No answer and no
// message is lost.
func TestManyCallers(t *testing.T) {
	const callers, calls = 4, 500
	l := newTestLink(t, PeerGo, Options{}).take().start()
	l.echoes()
	var all sync.WaitGroup
	for c := range callers {
		all.Go(func() {
			for i := range calls {
				if err := l.ask(t.Context(), c*calls+i); err != nil {
					t.Error(err)
				}
				if i%100 == 99 {
					ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
					if err := l.Request(ctx, "silence", nil); err != context.DeadlineExceeded {
						t.Error(err)
					}
					cancel()
				}
				if i%(c+3) == 0 {
					time.Sleep(time.Duration(i%7) * 100 * time.Microsecond)
				}
			}
		})
	}
	all.Go(func() {
		for range calls {
			l.write("1\n")
			time.Sleep(200 * time.Microsecond)
		}
	})
	all.Wait()
	for range calls {
		require.Equal(t, "1", l.message())
	}
}

// TestTurnComesBack: nobody has it while callers come back for it, and the
// reader when none has for two graces.
func TestTurnComesBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var b readTurn
		b.init(func() {})
		reads := make(chan struct{})
		pass := func() { // what the reader does
			b.await()
			reads <- struct{}{}
		}
		now := func() time.Duration { return time.Since(epoch) }
		quick := func() (mine bool, granted <-chan struct{}) {
			mine, granted = b.begin(&call{began: now(), alone: true})
			return
		}
		for range soonRun {
			b.ended()
			mine, granted := quick()
			require.False(t, mine)
			if granted != nil {
				go pass()
				<-granted
				b.leave()
			}
		}
		require.Equal(t, byNobody, b.who())
		for range 50 {
			time.Sleep(grace * 9 / 10)
			mine, _ := quick()
			require.True(t, mine)
			b.leave()
		}
		time.Sleep(grace / 2)
		require.Equal(t, byNobody, b.who())
		left := now()
		<-reads
		require.LessOrEqual(t, now()-left, grace/2)
		require.Equal(t, byReader, b.who())

		mine, granted := b.begin(&call{began: now() + soon*2, alone: true})
		require.False(t, mine || granted != nil, "not soon after the last")
		for range 2 * soonRun {
			b.ended()
			mine, granted := b.begin(&call{began: now()})
			require.False(t, mine || granted != nil, "not alone")
		}
	})
}

// TestTimerOfTheTurn: with one processor no timer is pending while somebody has the turn, and
// with more it stays. Either way the reader gets the turn back that nobody takes.
func TestTimerOfTheTurn(t *testing.T) {
	for procs := 1; procs <= 2; procs++ {
		t.Run(fmt.Sprint(procs), func(t *testing.T) {
			defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(procs))
			synctest.Test(t, func(t *testing.T) {
				var b readTurn
				b.init(func() {})
				for range 3 {
					require.True(t, b.lend(time.Since(epoch), 0))
					require.True(t, b.armed)
					mine, _ := b.begin(&call{})
					require.True(t, mine)
					require.Equal(t, procs > 1, b.armed)
					b.leave()
					require.True(t, b.armed)
					require.True(t, b.back())
					require.Equal(t, procs > 1, b.armed)
				}
				b.leave()
				time.Sleep(3 * grace)
				synctest.Wait()
				require.Equal(t, byReader, b.who())
				require.False(t, b.armed)
			})
		})
	}
}
