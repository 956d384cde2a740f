package link

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/go-cluster/cluster/internal/channel"
	"github.com/go-cluster/cluster/internal/errs"
	"github.com/go-cluster/cluster/internal/handle"
)

// kernel is a sender that takes what its test lets it take.
type kernel struct {
	mu    sync.Mutex
	room  sync.Cond
	take  func(p []byte) int // how much of p is taken now; 0: none, wait
	calls []string           // what was taken, call by call
	fds   []int              // what came with them, -1 for none
	err   error              // of the next call
}

func newKernel(take func(p []byte) int) *kernel {
	k := &kernel{take: take}
	k.room.L = &k.mu
	return k
}

func all(p []byte) int   { return len(p) }
func nothing([]byte) int { return 0 }

func (k *kernel) Send(p []byte, fd int) (int, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.err != nil {
		return 0, k.err
	}
	n := k.take(p)
	if n == 0 {
		return 0, channel.ErrWouldBlock
	}
	k.calls, k.fds = append(k.calls, string(p[:n])), append(k.fds, fd)
	return n, nil
}

func (k *kernel) WaitRoom(error) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	for k.err == nil && k.take([]byte{0}) == 0 {
		k.room.Wait()
	}
	return nil
}

func (k *kernel) set(take func(p []byte) int, err error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.take, k.err = take, err
	k.room.Broadcast()
}

func (k *kernel) taken() []string {
	k.mu.Lock()
	defer k.mu.Unlock()
	return append([]string(nil), k.calls...)
}

func (o *outbox) say(line string) error {
	_, err := o.put(userLine, nil, []byte(line))
	return err
}

// TestIdleOutboxWritesAtOnce: what finds nothing queued has reached the kernel
// when Send returns.
func TestIdleOutboxWritesAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := newKernel(all)
		o := &outbox{ch: k, max: 1000}
		for i := range 10 {
			line := fmt.Sprintln(i)
			require.NoError(t, o.say(line))
			got := k.taken()
			require.Len(t, got, i+1)
			require.Equal(t, line, got[i])
			time.Sleep(burst) // the next one is no burst
		}
	})
}

// TestBurstsCoalesce: lines that come while the kernel takes nothing go
// together, in few calls, in order; nobody waits for them.
func TestBurstsCoalesce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := newKernel(nothing)
		o := &outbox{ch: k, max: 10 << 20}
		var want strings.Builder
		for i := range 10000 {
			line := fmt.Sprintln(i)
			want.WriteString(line)
			require.NoError(t, o.say(line))
		}
		synctest.Wait()
		require.Empty(t, k.taken())
		k.set(all, nil)
		synctest.Wait()
		require.Equal(t, want.String(), strings.Join(k.taken(), ""))
		require.LessOrEqual(t, len(k.taken()), 3)
		require.Zero(t, o.queued())
	})
}

// TestBurstsOfAFastKernelCoalesce too: a line that follows at once on another
// does not cost a call of its own.
func TestBurstsOfAFastKernelCoalesce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := newKernel(all)
		o := &outbox{ch: k, max: 10 << 20}
		require.NoError(t, o.say("0\n"))
		k.set(nothing, nil) // the writer gets no turn
		for i := 1; i < 1000; i++ {
			require.NoError(t, o.say(fmt.Sprintln(i)))
		}
		k.set(all, nil)
		synctest.Wait()
		require.LessOrEqual(t, len(k.taken()), 4)
	})
}

// TestPartialWrites: however little the kernel takes at a time, all arrives in
// order, and each descriptor with the first byte of its own line and no other.
func TestPartialWrites(t *testing.T) {
	for seed := range uint64(200) {
		synctest.Test(t, func(t *testing.T) {
			r := rand.New(rand.NewPCG(seed, 1))
			theirs := rand.New(rand.NewPCG(seed, 2))
			k := newKernel(func(p []byte) int { return theirs.IntN(min(len(p), 1+theirs.IntN(60)) + 1) })
			o := &outbox{ch: k, max: 1 << 20}
			var want strings.Builder
			starts := map[int]int{} // offset of a handle's line to its descriptor
			for i := range 50 {
				line := fmt.Sprintf("%d %s\n", i, strings.Repeat("x", r.IntN(40)))
				var h *handle.Handle
				if r.IntN(3) == 0 {
					h = someHandle(t)
					starts[want.Len()] = h.FD()
				}
				_, err := o.put(orderLine, h, []byte(line))
				require.NoError(t, err)
				want.WriteString(line)
				if r.IntN(4) == 0 {
					synctest.Wait()
				}
			}
			for o.queued() > 0 {
				synctest.Wait()
				k.room.Broadcast()
			}
			synctest.Wait()
			require.Equal(t, want.String(), strings.Join(k.calls, ""))
			offset := 0
			for i, call := range k.calls {
				if fd, ok := starts[offset]; ok {
					require.Equal(t, fd, k.fds[i])
					require.LessOrEqual(t, strings.Index(call+"\n", "\n"), len(call))
					require.LessOrEqual(t, strings.Count(call, "\n"), 1, "another line with a descriptor: %q", call)
				} else {
					require.Equal(t, -1, k.fds[i])
				}
				offset += len(call)
			}
		})
	}
}

// TestBacklog: past the bound a line is refused and nothing of it is sent; a
// single larger one is taken when nothing is queued; internal ones always.
func TestBacklog(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := newKernel(nothing)
		o := &outbox{ch: k, max: 100}
		big := strings.Repeat("x", 1000) + "\n"
		require.NoError(t, o.say(big))
		require.ErrorIs(t, o.say("1\n"), errs.Backlog)
		_, err := o.put(orderLine, nil, []byte("order\n"))
		require.NoError(t, err)
		_, err = o.put(answerLine, nil, []byte("answer\n"))
		require.NoError(t, err)
		k.set(all, nil)
		synctest.Wait()
		require.Equal(t, big+"order\nanswer\n", strings.Join(k.taken(), ""))

		k.set(nothing, nil)
		require.NoError(t, o.say(strings.Repeat("y", 59)+"\n"))
		require.NoError(t, o.say(strings.Repeat("z", 39)+"\n"))
		require.ErrorIs(t, o.say("1\n"), errs.Backlog)
		require.ErrorIs(t, o.say(big), errs.Backlog)
		k.set(all, nil)
		synctest.Wait()
		require.NoError(t, o.say("2\n"))
	})
}

// TestAnswersAreBounded, apart from what the application sends, and again once
// they have been written.
func TestAnswersAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := newKernel(nothing)
		o := &outbox{ch: k, max: 100}
		line := bytes.Repeat([]byte("a"), answersBound/4)
		for range 2 {
			for range 4 {
				_, err := o.put(answerLine, nil, line)
				require.NoError(t, err)
			}
			_, err := o.put(answerLine, nil, line)
			require.ErrorIs(t, err, errs.Backlog)
			require.NoError(t, o.say("still\n"))
			k.set(all, nil)
			synctest.Wait()
			k.set(nothing, nil)
		}
	})
}

// TestWhenWritten: each is told once the kernel has all up to its position, in
// order, and with the error when that will not be.
func TestWhenWritten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := newKernel(nothing)
		o := &outbox{ch: k, max: 1000}
		var told []string
		for i := range 5 {
			pos, err := o.put(userLine, nil, []byte("12345\n"))
			require.NoError(t, err)
			o.whenWritten(pos, func(err error) { told = append(told, fmt.Sprintf("%d %v", i, err)) })
		}
		synctest.Wait()
		require.Empty(t, told)
		room := 13
		k.set(func(p []byte) int {
			n := min(room, len(p))
			room -= n
			return n
		}, nil)
		synctest.Wait()
		require.Equal(t, []string{"0 <nil>", "1 <nil>"}, told)
		o.close(errs.Closed)
		require.Equal(t, []string{"0 <nil>", "1 <nil>", "2 " + errs.Closed.Error(), "3 " + errs.Closed.Error(), "4 " + errs.Closed.Error()}, told)
		require.ErrorIs(t, o.say("1\n"), errs.Closed)
		o.whenWritten(6, func(err error) { require.NoError(t, err) })
		o.whenWritten(1000, func(err error) { require.ErrorIs(t, err, errs.Closed) })
		k.set(nothing, errs.Closed) // the writer's end
		synctest.Wait()
	})
}

// TestFailedWrite ends the outbox: the reader is told, and the descriptors in it
// are closed.
func TestFailedWrite(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := newKernel(nothing)
		failed := 0
		o := &outbox{ch: k, max: 1000, onFail: func() { failed++ }}
		require.NoError(t, o.say("1\n"))
		h := someHandle(t)
		_, err := o.put(orderLine, h.Retain(), []byte("2\n"))
		require.NoError(t, err)
		k.set(nothing, errors.New("broken pipe"))
		synctest.Wait()
		require.Equal(t, 1, failed)
		require.ErrorIs(t, o.say("3\n"), errs.Closed)
		_, err = o.put(orderLine, h.Retain(), []byte("4\n"))
		require.ErrorIs(t, err, errs.Closed)
		require.True(t, isOpenHandle(h))
		h.Release()
		require.False(t, isOpenHandle(h), "the outbox holds it")
	})
}
