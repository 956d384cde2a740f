package link

import (
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/go-cluster/cluster/internal/channel"
	"github.com/go-cluster/cluster/internal/errs"
)

// bucket is a channel that takes as much as it has room for.
type bucket struct {
	mu    sync.Mutex
	space sync.Cond
	room  int
	calls []string // what each send took
}

func newBucket(room int) *bucket {
	k := &bucket{room: room}
	k.space.L = &k.mu
	return k
}

func (k *bucket) Send(p []byte, _ int) (int, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.room == 0 {
		return 0, channel.ErrWouldBlock
	}
	n := min(len(p), k.room)
	k.room -= n
	k.calls = append(k.calls, string(p[:n]))
	return n, nil
}

func (k *bucket) WaitRoom(error) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	for k.room == 0 {
		k.space.Wait()
	}
	return nil
}

func (k *bucket) drain(n int) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.room += n
	k.space.Broadcast()
}

func (k *bucket) got() string {
	k.mu.Lock()
	defer k.mu.Unlock()
	return strings.Join(k.calls, "")
}

func (k *bucket) sends() int {
	k.mu.Lock()
	defer k.mu.Unlock()
	return len(k.calls)
}

const plenty = 1 << 30

// burstOf puts n lines with no time between them and returns their text.
func burstOf(t *testing.T, o *outbox, n int) string {
	t.Helper()
	var all strings.Builder
	for i := range n {
		line := fmt.Sprintf("%d\n", i)
		all.WriteString(line)
		_, err := o.put(userLine, nil, []byte(line))
		require.NoError(t, err)
	}
	return all.String()
}

// TestLinesGoAtOnce: without a burst every line is with the bucket when put
// returns, in a call of its own, and so are the first of a burst.
func TestLinesGoAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := newBucket(plenty)
		o := &outbox{ch: k, max: plenty}
		for i := range 100 {
			time.Sleep(burst)
			burstOf(t, o, 1)
			require.Equal(t, i+1, k.sends())
		}
		before := k.sends()
		time.Sleep(time.Second)
		burstOf(t, o, burstRun)
		require.Equal(t, before+burstRun, k.sends())
	})
}

// TestBurstGoesTogether: the lines of a burst go in few calls, in order, and
// the last of them soon after, though the sender says nothing more.
func TestBurstGoesTogether(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := newBucket(plenty)
		o := &outbox{ch: k, max: plenty}
		all := burstOf(t, o, 1000)
		require.NotZero(t, o.queued(), "nothing is held back")
		time.Sleep(holdTime)
		synctest.Wait()
		require.True(t, all == k.got(), "text and order")
		require.LessOrEqual(t, k.sends(), burstRun+1)
		require.Zero(t, o.queued())

		// And again: the timer works more than once.
		all += burstOf(t, o, 1000)
		time.Sleep(holdTime)
		synctest.Wait()
		require.True(t, all == k.got(), "text and order")
	})
}

// TestBurstIsWrittenInBatches: what is held back is bounded; the sender writes
// it when it makes a batch.
func TestBurstIsWrittenInBatches(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := newBucket(plenty)
		o := &outbox{ch: k, max: plenty}
		all := burstOf(t, o, 100_000)
		require.Less(t, o.queued(), wholeBatch)
		require.LessOrEqual(t, k.sends(), burstRun+len(all)/wholeBatch+1)
		time.Sleep(holdTime)
		synctest.Wait()
		require.True(t, all == k.got(), "text and order")
	})
}

// TestNobodyWaitsForABurst: what somebody waits for goes at once, and what was
// held back goes before it.
func TestNobodyWaitsForABurst(t *testing.T) {
	for _, kind := range []lineKind{promptLine, orderLine, answerLine} {
		synctest.Test(t, func(t *testing.T) {
			k := newBucket(plenty)
			o := &outbox{ch: k, max: plenty}
			all := burstOf(t, o, 100)
			require.NotZero(t, o.queued(), "nothing is held back")
			_, err := o.put(kind, nil, []byte("now\n"))
			require.NoError(t, err)
			require.True(t, all+"now\n" == k.got(), "text and order")

			all += "now\n" + burstOf(t, o, 100)
			told := false
			o.whenWritten(o.end(), func(err error) { told = err == nil })
			require.True(t, told, "a flush waits")
			require.True(t, all == k.got(), "text and order")
		})
	}
}

// TestBurstToASlowPeer: the sender of a burst does not wait for a bucket that
// takes nothing, and all arrives, in order, when it does.
func TestBurstToASlowPeer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := newBucket(100)
		o := &outbox{ch: k, max: plenty}
		all := burstOf(t, o, 20_000)
		synctest.Wait()
		require.True(t, all[:100] == k.got(), "text and order")
		for k.got() != all {
			before := len(k.got())
			k.drain(1000)
			time.Sleep(holdTime)
			synctest.Wait()
			require.True(t, all[:min(len(all), before+1000)] == k.got(), "text and order")
		}
		require.Zero(t, o.queued())
	})
}

// TestStalledSenderTriesAgain: a sender that keeps its only P busy writes by
// itself when there is room again: the goroutine that waits for it cannot run,
// and the peer would starve beside megabytes of queue.
func TestStalledSenderTriesAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := newBucket(0)
		o := &outbox{ch: k, max: plenty}
		all := burstOf(t, o, 100)
		time.Sleep(holdTime)
		synctest.Wait() // the goroutine waits for room
		k.mu.Lock()
		k.room = plenty // nobody tells it
		k.mu.Unlock()
		for len(k.got()) < len(all) {
			all += burstOf(t, o, 100)
			// A whole batch, and what this goroutine adds before the one that goes on
			// with the rest of it has a P.
			require.Less(t, len(all)-len(k.got()), 32*wholeBatch)
		}
		k.drain(0)
		time.Sleep(holdTime)
		synctest.Wait()
		require.True(t, all == k.got(), "text and order")
	})
}

// TestCloseOfABurst: what is held back when the channel closes is dropped, who
// waits for it is told, and nothing is left running.
func TestCloseOfABurst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := newBucket(burstRun * 2)
		o := &outbox{ch: k, max: plenty}
		burstOf(t, o, 100)
		told := make(chan error, 1)
		o.whenWritten(o.end(), func(err error) { told <- err })
		o.close(errs.Closed)
		require.ErrorIs(t, <-told, errs.Closed)
		_, err := o.put(userLine, nil, []byte("late\n"))
		require.ErrorIs(t, err, errs.Closed)
		k.drain(plenty) // the writer that waits for the bucket
		time.Sleep(time.Second)
	})
}
