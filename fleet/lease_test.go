package fleet

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/go-cluster/cluster"
	"github.com/go-cluster/cluster/internal/clustertest"
	"github.com/stretchr/testify/require"
)

// quickly and touchily have short leases. What is between hold and term is what a test
// may be late.
var quickly, touchily = func() (q, t settings) {
	q, t = quick, touchy
	q.lease = leaseSettings{term: 4 * time.Second, renew: 400 * time.Millisecond, hold: 1500 * time.Millisecond, look: 100 * time.Millisecond}
	t.lease = q.lease
	return q, t
}()

// witness sees who leads: a file that only one can make, and a history.
type witness struct {
	t      *testing.T
	file   string
	events chan string

	mu     sync.Mutex
	fences []uint64
}

func newWitness(t *testing.T) *witness {
	return &witness{t: t, file: filepath.Join(clustertest.TempDir(t), "leader"), events: make(chan string, 1000)}
}

// lead is a function to be led. It tells when it begins and when its ctx has ended.
func (w *witness) lead(node string) func(context.Context) error {
	return func(ctx context.Context) error {
		w.begin(ctx, node)
		<-ctx.Done()
		w.end(node)
		return nil
	}
}

func (w *witness) begin(ctx context.Context, node string) {
	f, err := os.OpenFile(w.file, os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		w.t.Errorf("%s leads beside another one: %v", node, err)
	} else {
		f.Close()
	}
	w.mu.Lock()
	w.fences = append(w.fences, Fence(ctx))
	if !slices.IsSorted(w.fences) || len(slices.Compact(slices.Clone(w.fences))) < len(w.fences) {
		w.t.Errorf("fences %v do not grow", w.fences)
	}
	w.mu.Unlock()
	w.events <- node + " leads"
}

func (w *witness) end(node string) {
	if err := os.Remove(w.file); err != nil {
		w.t.Error(err)
	}
	w.events <- node + " led"
}

// await waits for an event. Under load a lease can be lost without a cause, and be had again.
func (w *witness) await(event string) {
	w.t.Helper()
	for clustertest.Await(w.t, w.events, event) != event {
	}
}

// TestLeadPartition: a leader that is cut off ends before another one leads, and one
// that leaves gives the lease back.
func TestLeadPartition(t *testing.T) {
	t.Parallel()
	s := startServer(t)
	p := startProxy(t, s)
	a := member(t, touchily, Options{URL: p.URL, Node: "a"})
	b := member(t, quickly, Options{URL: s.URL, Node: "b"})
	keepHistory(t, b)
	w := newWitness(t)
	defer a.Lead("job", w.lead("a"))()
	w.await("a leads")
	defer b.Lead("job", w.lead("b"))()
	p.Cut()
	w.await("b leads")
	require.False(t, a.Leads("job"))
	p.Reset()
	p.Heal()
	require.NoError(t, b.Close())
	w.await("a leads")
	checkHistory(t, leaseHistory(t, a, "lead.job"), a.me.set.lease.hold)
	require.NoError(t, a.Close())
	w.await("a led")
}

// TestLeadKilledServer: while the server is away a leader ends. There is one again
// when it is back, also when it has lost its files.
func TestLeadKilledServer(t *testing.T) {
	t.Parallel()
	s := startServer(t)
	w := newWitness(t)
	var all []*Fleet
	for _, node := range []string{"a", "b"} {
		f := member(t, quickly, Options{URL: s.URL, Node: node})
		defer f.Lead("job", func(ctx context.Context) error {
			w.begin(ctx, "one")
			<-ctx.Done()
			w.end("one")
			return nil
		})()
		all = append(all, f)
	}
	w.await("one leads")
	s.stop()
	for all[0].Leads("job") || all[1].Leads("job") {
		w.await("one led")
	}
	s.start()
	w.await("one leads")
	s.stop()
	s.o.StoreDir = clustertest.TempDir(t)
	w.mu.Lock()
	w.fences = nil // they begin anew with the bucket
	w.mu.Unlock()
	s.start()
	w.await("one led")
	w.await("one leads")
	for _, f := range all {
		require.NoError(t, f.Close())
	}
}

// TestLeadReturns: what fails runs again, somewhere; what is done is done for all.
func TestLeadReturns(t *testing.T) {
	t.Parallel()
	s := startServer(t)
	a := member(t, quickly, Options{URL: s.URL, Node: "a"})
	b := member(t, quickly, Options{URL: s.URL, Node: "b"})
	var runs atomic.Int32
	for _, f := range []*Fleet{a, b} {
		defer f.Lead("job", func(ctx context.Context) error {
			if n := runs.Add(1); n <= 2 {
				return errors.New("it fails")
			}
			return nil
		})()
	}
	done := func(f *Fleet) bool {
		return slices.ContainsFunc(cluster.Stats().Coord.Leads, func(l cluster.LeadStats) bool { return l.Name == f.me.local("lead job") && l.Done })
	}
	eventually(t, func() bool { return done(a) && done(b) }, "the end of the work")
	c := member(t, quickly, Options{URL: s.URL, Node: "c"})
	defer c.Lead("job", func(context.Context) error {
		runs.Add(1)
		return nil
	})()
	eventually(t, func() bool { return done(c) }, "what the third is told")
	// A lease that was lost while it was done has it done once more.
	require.GreaterOrEqual(t, runs.Load(), int32(3))
}

// TestOnce: it succeeds in one, and all who wait return; who fails says so.
func TestOnce(t *testing.T) {
	t.Parallel()
	s := startServer(t)
	ctx := long(t)
	var runs, failures, lost atomic.Int32
	var all sync.WaitGroup
	for _, node := range []string{"a", "b"} {
		f := member(t, quickly, Options{URL: s.URL, Node: node})
		for range 3 {
			all.Go(func() {
				err := f.Once(ctx, "migrate", func(ctx context.Context) error {
					if runs.Add(1) == 1 {
						return errors.New("it fails")
					}
					if Fence(ctx) == 0 {
						t.Error("no fence")
					}
					return nil
				})
				switch {
				case err == nil:
				case strings.Contains(err.Error(), "it fails"):
					failures.Add(1)
				default: // under load the lease can be lost, and fn is run again
					lost.Add(1)
				}
			})
		}
	}
	all.Wait()
	require.Equal(t, int32(1), failures.Load())
	require.GreaterOrEqual(t, runs.Load(), int32(2))
	require.LessOrEqual(t, runs.Load(), 2+lost.Load())
	late := member(t, quickly, Options{URL: s.URL, Node: "late"})
	require.NoError(t, late.Once(ctx, "migrate", func(context.Context) error { return errors.New("it is done") }))
}

// TestLock: one at a time, in whatever member.
func TestLock(t *testing.T) {
	t.Parallel()
	s := startServer(t)
	w := newWitness(t)
	ctx := long(t)
	var all sync.WaitGroup
	for _, node := range []string{"a", "b"} {
		f := member(t, quickly, Options{URL: s.URL, Node: node})
		for range 2 {
			all.Go(func() {
				for range 3 {
					held, unlock, err := f.Lock(ctx, "a lock")
					if err != nil {
						t.Error(err)
						return
					}
					w.begin(held, node)
					w.end(node)
					unlock()
					unlock()
					if held.Err() == nil {
						t.Error("it is held no more")
					}
				}
			})
		}
	}
	all.Wait()
}

// TestLockLost: who is cut off loses the lock before another one has it.
func TestLockLost(t *testing.T) {
	t.Parallel()
	s := startServer(t)
	p := startProxy(t, s)
	a := member(t, touchily, Options{URL: p.URL, Node: "a"})
	b := member(t, quickly, Options{URL: s.URL, Node: "b"})
	ctx := long(t)
	held, unlock, err := a.Lock(ctx, "x")
	require.NoError(t, err)
	p.Cut()
	other, unlockOther, err := b.Lock(ctx, "x")
	require.NoError(t, err)
	require.Error(t, held.Err())
	require.ErrorIs(t, context.Cause(held), ErrLeaseLost)
	require.Greater(t, Fence(other), Fence(held))
	clustertest.Eventually(t, func() bool { return a.Publish("x", 1) != nil }, "the loss")
	unlock()
	_, _, err = a.Lock(ctx, "x")
	require.ErrorIs(t, err, ErrNoFleet)
	unlockOther()
	ended, cancel := context.WithCancel(ctx)
	cancel()
	_, _, err = b.Lock(ended, "x")
	require.ErrorIs(t, err, context.Canceled)
}

// TestSuspended: a context asks the clock, and so do those that are made of it.
func TestSuspended(t *testing.T) {
	inner, ended := context.WithCancelCause(t.Context())
	l := &lease{deadline: sinceBoot() + time.Hour, ended: ended, fence: 7}
	l.ctx = &leaseContext{inner, l}
	child, cancel := context.WithCancel(context.WithValue(l.ctx, l, l))
	defer cancel()
	require.NoError(t, l.ctx.Err())
	require.Equal(t, uint64(7), Fence(child))
	l.deadline = sinceBoot() - 1
	require.Error(t, l.ctx.Err())
	clustertest.Await(t, child.Done(), "the end of the child")
	require.ErrorIs(t, context.Cause(child), ErrLeaseLost)
	require.Zero(t, Fence(t.Context()))
}

// TestNoJetStream: a server without says what is missing.
func TestNoJetStream(t *testing.T) {
	t.Parallel()
	s := startServer(t, func(o *natsOptions) { o.JetStream = false })
	f := member(t, quickly, Options{URL: s.URL, Node: "a"})
	errs := errorsOf(t)
	err := f.KV("x").Set(t.Context(), "k", nil, 0)
	require.ErrorContains(t, err, "JetStream")
	defer f.Lead("job", func(context.Context) error { return nil })()
	awaitError(t, errs, nil, `Lead "job"`)
	_, _, err = f.Lock(t.Context(), "x")
	require.ErrorContains(t, err, "JetStream")
}

// TestHandoverIsAtOnce: who ends since it is to end leaves the lease to whoever comes next,
// however often somebody has died or failed before. What has gone well for long forgets that.
func TestHandoverIsAtOnce(t *testing.T) {
	t.Parallel()
	s := startServer(t)
	a := member(t, quickly, Options{URL: s.URL, Node: "a"})
	b := member(t, quickly, Options{URL: s.URL, Node: "b"})
	body, err := json.Marshal(claim{Holder: "somebody", Home: "elsewhere", Failures: 20})
	require.NoError(t, err)
	_, err = a.store.put(long(t), "lead.job", body, 0, 0, nil)
	require.NoError(t, err)
	w := newWitness(t)
	defer a.Lead("job", w.lead("a"))()
	w.await("a leads") // after the term: who had it is dead
	defer b.Lead("job", w.lead("b"))()
	require.NoError(t, a.Close())
	begin := time.Now()
	w.await("b leads")
	require.Less(t, time.Since(begin), backoff(21)/2)
	require.NoError(t, b.Close())
	w.await("b led")

	l := &lease{mine: claim{Failures: 7}, since: time.Now()}
	require.Equal(t, 7, l.failures())
	l.since = l.since.Add(-goodTime - time.Second)
	require.Zero(t, l.failures())
}

// TestBackoff: the first failure is tried again at once, and then later and later.
func TestBackoff(t *testing.T) {
	var all []string
	for _, n := range []int{0, 1, 2, 3, 4, 8, 100} {
		all = append(all, fmt.Sprint(backoff(n)))
	}
	require.Equal(t, "0s 0s 1s 2s 4s 1m0s 1m0s", strings.Join(all, " "))
}
