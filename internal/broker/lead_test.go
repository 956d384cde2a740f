package broker

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/go-cluster/cluster/internal/coordinate"
	"github.com/go-cluster/cluster/internal/errs"
	"github.com/stretchr/testify/require"
)

// run is a function that leads, as a test holds it.
type run struct {
	who   string
	ctx   context.Context
	ends  chan error // what it returns
	begun time.Time
}

// runs has each run of the functions of a test.
type runs chan *run

func (r runs) fn(who string) func(context.Context) error {
	return func(ctx context.Context) error {
		one := &run{who, ctx, make(chan error), time.Now()}
		r <- one
		return <-one.ends
	}
}

// shown is what Stats says of the only name.
func (h *hub) shown() coordinate.LeadStats { return h.Stats().Leads[0] }

// waiters is how many wait for a lock.
func (h *hub) waiters(name string) int {
	h.mu.Lock()
	defer h.mu.Unlock()
	if q := h.st.Locks[name]; q != nil {
		return len(q.Waiting)
	}
	return 0
}

// TestLeadHandsOver: the next one leads when the function of a leader that drains has
// returned, and not before; the drain waits for it. What it returns then is no
// failure, and is not logged.
func TestLeadHandsOver(t *testing.T) {
	h, all := newHub(t, settings), make(runs, 10)
	a, b := h.join(1), h.join(2)
	a.Lead("x", all.fn("a"))
	b.Lead("x", all.fn("b"))
	first := await(t, all, "leader")
	require.Equal(t, "a", first.who)
	require.True(t, a.Leads("x"))
	a.Drain()
	h.Leave(1)
	await(t, first.ctx.Done(), "end of the context")
	require.False(t, a.Leads("x"))
	idle := make(chan bool)
	go func() { a.Idle(); close(idle) }()
	require.Equal(t, 1, h.shown().Worker, "it has not returned")
	require.Empty(t, all)
	select {
	case <-idle:
		t.Fatal("the drain does not wait")
	default:
	}
	first.ends <- errors.New("stopped")
	await(t, idle, "end of the drain")
	second := await(t, all, "leader")
	require.Equal(t, "b", second.who)
	require.Zero(t, h.shown().Failures)
	require.Empty(t, a.log.String())
	a.Lead("x", all.fn("late"))
	b.Drain()
	second.ends <- nil
	eventually(t, func() bool { return len(h.Stats().Leads) == 0 }, "nobody asks for it")
	require.Empty(t, all)
}

// TestLeadWhileItDrains: a drain that begins while Lead is being said leaves no
// leader in the master that runs nothing.
func TestLeadWhileItDrains(t *testing.T) {
	h, all := newHub(t, settings), make(runs, 10)
	a, b := h.join(1), h.join(2)
	a.onTell = func(q Question) {
		if q.Verb == verbStand {
			a.Drain()
		}
	}
	a.Lead("x", all.fn("a"))
	b.Lead("x", all.fn("b"))
	second := await(t, all, "leader")
	require.Equal(t, "b", second.who)
	close(second.ends)
}

// TestLeadInside: a function that leads cannot call Lead for the same name itself,
// but for others, and when its context has ended; other goroutines can.
func TestLeadInside(t *testing.T) {
	h := newHub(t, settings)
	a := h.join(1)
	ended, done := make(chan bool), make(chan bool)
	again := func(context.Context) error { close(done); return nil }
	stop := a.Lead("x", func(ctx context.Context) error {
		a.Lead("x", again)()
		a.Lead("y", func(context.Context) error { return nil })
		close(ended)
		<-ctx.Done()
		a.Lead("x", again)
		return nil
	})
	err := await(t, a.reports, "report")
	require.ErrorContains(t, err, `coord: Lead("x"): it is called by the function that leads this name`)
	await(t, ended, "second Lead")
	require.Empty(t, a.reports)
	beside := a.Lead("x", again)
	require.Empty(t, a.reports)
	beside()
	stop()
	await(t, done, "the one that was called after the end")
}

// TestLeadBackoff: failures are counted for the name, and not for the process that leads. A
// death while the process leads is a failure. Failures are logged where they happen.
func TestLeadBackoff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h, all := newHub(t, settings), make(runs, 10)
		a, b := h.join(1), h.join(2)
		a.Lead("x", all.fn("a"))
		b.Lead("x", all.fn("b"))
		one := <-all
		wait := func(want time.Duration, who string) {
			t.Helper()
			failed := time.Now()
			one = <-all
			require.Equal(t, want, one.begun.Sub(failed))
			require.Equal(t, who, one.who)
		}
		one.ends <- errors.New("first")
		wait(0, "a")
		dead := one
		h.Lost(1) // its process lives, and leads
		time.Sleep(time.Second)
		require.Empty(t, all)
		h.Dead(1)
		wait(settings.Backoff.Min, "b")
		require.Contains(t, a.log.String(), "err=first")
		require.Equal(t, 2, h.shown().Failures)
		one.ends <- errors.New("third")
		wait(2*settings.Backoff.Min, "b")
		require.Contains(t, b.log.String(), "err=third")
		time.Sleep(settings.Backoff.Reset)
		one.ends <- errors.New("after a long time")
		wait(0, "b")
		one.ends <- nil
		synctest.Wait()
		require.True(t, h.shown().Done)
		require.Zero(t, h.shown().Candidates)
		a.Closed()
		close(dead.ends)
	})
}

// TestLeadIsLost: when the channel closes the context ends, and nothing is begun.
func TestLeadIsLost(t *testing.T) {
	h, all := newHub(t, settings), make(runs, 10)
	a, b := h.join(1), h.join(2)
	a.Lead("x", all.fn("a"))
	first := await(t, all, "leader")
	b.Lead("x", all.fn("b"))
	unlock, err := a.Lock(t.Context(), "l")
	require.NoError(t, err)
	waits := make(chan error, 1)
	go func() { _, err := b.Lock(t.Context(), "l"); waits <- err }()
	eventually(t, func() bool { return len(h.Stats().Locks) == 1 && h.Stats().Locks[0].Waiters == 1 }, "it waits")
	a.Closed()
	b.Closed()
	await(t, first.ctx.Done(), "end of the context")
	require.ErrorIs(t, await(t, waits, "end of the wait"), errs.Closed)
	h.Lost(1)
	h.Lost(2)
	require.Equal(t, 1, h.shown().Worker, "it may still run")
	b.Lead("x", all.fn("late"))
	require.Empty(t, all)
	unlock()
	close(first.ends)
	a.Idle()
	h.Dead(1)
	require.Empty(t, h.Stats().Locks)
}

// TestLeadWhereItCannot: what prevents a candidacy or a subscription is reported.
func TestLeadWhereItCannot(t *testing.T) {
	p, hooks := newProcess()
	p.Client = NewUnsupported(hooks)
	never := func(context.Context) error { panic("it runs") }
	p.Lead("x", never)()
	require.ErrorIs(t, await(t, p.reports, "report"), errs.NotSupported)
	p.Subscribe("x", nil)()
	require.ErrorIs(t, await(t, p.reports, "report"), errs.NotSupported)
	for _, name := range []string{strings.Repeat("x", coordinate.MaxKey+1), "\xff"} {
		p.Lead(name, never)()
		err := await(t, p.reports, "report")
		require.ErrorContains(t, err, "coord: Lead: ")
		require.Equal(t, name == "\xff", !errors.Is(err, errs.TooLarge))
	}
	_, err := p.Lock(t.Context(), "x")
	require.ErrorIs(t, err, errs.NotSupported)
	require.ErrorContains(t, err, `coord: Lock("x")`)
	require.ErrorIs(t, p.Once(t.Context(), "x", never), errs.NotSupported)
	require.ErrorIs(t, p.Publish("x", 1), errs.NotSupported)
	_, _, err = p.NewLimiter("x", 1, 1).AllowN(t.Context(), "k", 1)
	require.ErrorIs(t, err, errs.NotSupported)
	_, err = p.Open("x").Keys(t.Context(), "")
	require.ErrorIs(t, err, errs.NotSupported)
	p.Drain()
	p.Closed()
}

// TestMad: one process can have so many of everything, and others have theirs. When it
// is dead nothing of it is left.
func TestMad(t *testing.T) {
	h := newHub(t, settings)
	mad, other := h.join(1), h.join(2)
	mad.hold = true // it does nothing of what it may
	unlock, err := h.self.Lock(t.Context(), "held")
	require.NoError(t, err)
	h.turn(func(now time.Time) (notes []coordinate.Note) {
		for i := range coordinate.Most {
			ref, name := coordinate.Ref{Member: 1, Ticket: uint64(1_000_000 + i)}, fmt.Sprint("name ", i)
			more, err1 := h.st.Stand(now, ref, name)
			_, err2 := h.st.Subscribe(1, name)
			_, err3 := h.st.Lock(ref, "held", true)
			if err1 != nil || err2 != nil || err3 != nil {
				t.Error(err1, err2, err3)
			}
			notes = append(notes, more...)
		}
		return notes
	})
	mad.release()
	require.Empty(t, mad.reports)

	never := func(context.Context) error { panic("it leads") }
	mad.Lead("more", never)()
	require.ErrorIs(t, await(t, mad.reports, "report"), errs.TooMany)
	mad.Subscribe("more", nil)()
	require.ErrorIs(t, await(t, mad.reports, "report"), errs.TooMany)
	_, err = mad.Lock(t.Context(), "held")
	require.ErrorIs(t, err, errs.TooMany)

	began := make(chan bool)
	defer other.Lead("more", func(context.Context) error { close(began); return nil })()
	await(t, began, "the other's")
	other.Subscribe("more", func([]byte) error { return nil })
	require.Empty(t, other.reports)
	last := make(chan error, 1)
	go func() { _, err := other.Lock(t.Context(), "held"); last <- err }()
	eventually(t, func() bool { return h.waiters("held") == coordinate.Most+1 }, "it waits too")

	h.Dead(1)
	for _, l := range h.Stats().Leads {
		require.Zero(t, l.Candidates, "%+v", l)
	}
	require.Len(t, h.Stats().Topics, 1)
	require.Equal(t, 1, h.waiters("held"))
	unlock()
	require.NoError(t, await(t, last, "lock"))
}
