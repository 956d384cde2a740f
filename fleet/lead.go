package fleet

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/go-cluster/cluster/coord"
	"github.com/go-cluster/cluster/internal/callback"
)

// lockTime is how long the key of a lock is kept that nobody has.
const lockTime = time.Hour

// leads are what this process does under a lease, and waits to do: its candidacies,
// and functions of Once.
type leads struct {
	me      *self
	leases  *leases
	running *callback.Running // of all that the end of this process's part waits for

	over    context.Context // ends when Close begins
	endOver context.CancelFunc

	mu    sync.Mutex
	has   map[string]*lease // of what it leads
	stops map[*func()]bool  // of candidacies
	ended bool              // no further ones
}

func newLeads(a *leases, running *callback.Running) *leads {
	l := &leads{me: a.me, leases: a, running: running, has: make(map[string]*lease), stops: make(map[*func()]bool), ended: a.me.checks}
	l.over, l.endOver = context.WithCancel(context.Background())
	return l
}

// add notes a candidacy that begin begins, unless all have ended.
func (l *leads) add(begin func() (stop func())) (stop func()) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.ended {
		return func() {}
	}
	end := begin()
	l.stops[&end] = true
	return func() {
		l.mu.Lock()
		delete(l.stops, &end)
		l.mu.Unlock()
		end()
	}
}

// end ends all candidacies, and then what runs. Package coord must hear of the first
// before a function returns: it would take the work for done.
func (l *leads) end() {
	l.mu.Lock()
	stops := l.stops
	l.stops, l.ended = nil, true
	l.mu.Unlock()
	for stop := range stops {
		(*stop)()
	}
	l.endOver()
}

func (l *leads) set(name string, has *lease) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.has[name] = has; has == nil {
		delete(l.has, name)
	}
}

// Lead makes this process a candidate for the name: in one process of the fleet at a
// time fn runs. It is coord.Lead, which chooses one process of this machine, over a
// lease of 15 seconds, which chooses one machine. It returns at once; stop ends the
// candidacy, and ctx of fn if it runs here.
//
// The lease is renewed every five seconds. ctx ends when this process drains, when
// stop is called, and ten seconds after the beginning of the last renewal that
// succeeded, by a clock that counts the time in which the machine is suspended (ctx.Err
// asks it): before the lease can be another's. A function that does not mind ctx can
// run beside the next one; so can what it has sent to others. [Fence] is for that.
//
// The lease is given back when fn has returned. When its process dies another one of
// its member leads at once, and when all of the member do another member, at most 16
// seconds later. nil, errors and backoff are as in coord.Lead,
// where errors and deaths are counted for the fleet. Work that is done, since fn
// returned nil while ctx was alive, is not done again while any process lives that
// knows (see [Fleet.Once]). While there is no connection, or no JetStream, nobody begins to lead;
// the first error is reported through cluster.OnError.
//
// The first lease of a new fleet takes 15 seconds: its bucket might be that of a server
// that has lost its files.
func (f *Fleet) Lead(name string, fn func(ctx context.Context) error) (stop func()) {
	notNil("Lead", fn == nil)
	return f.leads.add(func() (stop func()) {
		return coord.Lead(f.me.local("lead "+name), func(ctx context.Context) error { return f.leads.lead(ctx, name, fn) })
	})
}

// Leads reports whether a function of this process leads the name now.
func (f *Fleet) Leads(name string) bool {
	f.leads.mu.Lock()
	l := f.leads.has[name]
	f.leads.mu.Unlock()
	return l != nil && l.ctx.Err() == nil
}

// lead leads, as this member's candidate, until ctx ends.
func (l *leads) lead(ctx context.Context, name string, fn func(context.Context) error) error {
	ctx, begun, end := l.work(ctx)
	if !begun {
		return nil
	}
	defer end()
	told := false
	trouble := func(err error) {
		if !told {
			told = true
			l.me.report(fmt.Errorf("fleet: Lead %q: %w", name, err))
		}
	}
	for {
		has, done, err := l.leases.acquire(ctx, ctx, "lead."+token(name), 0, trouble)
		if done || ctx.Err() != nil && has == nil {
			return nil
		}
		if err != nil {
			return fmt.Errorf("fleet: Lead %q: %w", name, err)
		}
		told = false
		l.set(name, has)
		err = callback.Wait(func() error { return fn(has.ctx) })
		l.set(name, nil)
		if has.ctx.Err() == nil {
			return l.hasLed(has, name, err)
		}
		// It was to end: whoever comes next need not wait.
		_ = has.release(claim{Failures: has.failures()}) // it ends by itself
		if ctx.Err() != nil {
			return nil
		}
	}
}

// hasLed ends a lease whose function has returned while it held.
func (l *leads) hasLed(has *lease, name string, failed error) error {
	if failed == nil {
		if err := l.leases.done(has); err != nil {
			l.me.report(fmt.Errorf("fleet: Lead %q has done its work, but cannot tell the others: %w", name, err))
		}
		return nil
	}
	_ = has.release(claim{Failures: has.failures() + 1, Failed: true}) // it ends by itself
	return failed
}

// work is for what the end of this process's part waits for. ctx ends with Close.
func (l *leads) work(ctx context.Context) (c context.Context, begun bool, end func()) {
	if l.over.Err() != nil {
		return nil, false, nil
	}
	l.running.Begin()
	ctx, cancel := context.WithCancel(ctx)
	stop := context.AfterFunc(l.over, cancel)
	return ctx, true, func() {
		stop()
		cancel()
		l.running.End()
	}
}

// Fence is a number that grows with each lease of a name: in the function of Lead or
// Once, or with the context of Lock, it is this one's. What lives outside (a table, a
// file, another service) can refuse what comes with a smaller number than it has seen:
// that is from somebody who has lost the lease, and does not know yet. It is 0 for any
// other context.
func Fence(ctx context.Context) uint64 {
	n, _ := ctx.Value(fenceKey{}).(uint64)
	return n
}

// Once runs fn in one process of the fleet, and returns nil when it has succeeded
// there, in all processes that have called Once with that name. Later calls return at
// once, while a process lives that has called Once or Lead and heard of something done: with the last
// of them, and 15 seconds, the fleet's memory ends.
//
// If fn fails its error is returned here, and the next who waits runs his. That is so
// too when the process dies that runs it, or its lease is lost: then, and after an fn
// that succeeded too late, the error is [ErrLeaseLost]. ctx is that of fn, and bounds
// the wait. Without a connection it is [ErrNoFleet].
func (f *Fleet) Once(ctx context.Context, name string, fn func(ctx context.Context) error) error {
	notNil("Once", fn == nil)
	err := coord.Once(ctx, f.me.local("once "+name), func(ctx context.Context) error { return f.leads.once(ctx, name, fn) })
	if err != nil {
		return fmt.Errorf("fleet: Once %q: %w", name, err)
	}
	return nil
}

func (l *leads) once(ctx context.Context, name string, fn func(context.Context) error) error {
	ctx, begun, end := l.work(ctx)
	if !begun {
		return ErrNoFleet
	}
	defer end()
	has, done, err := l.leases.acquire(ctx, ctx, "once."+token(name), 0, nil)
	if done || err != nil {
		return err
	}
	err = callback.Wait(func() error { return fn(has.ctx) })
	if err != nil {
		_ = has.release(claim{}) // it ends by itself
		return err
	}
	if err := l.leases.done(has); err != nil {
		return fmt.Errorf("it has succeeded here, but the others cannot be told: %w", err)
	}
	return nil
}

// Lock waits until nobody else in the fleet has the lock, or until ctx ends. On one
// machine those who wait get it in the order in which they came, as with coord.Lock;
// between machines there is no order. held ends when the lease cannot be renewed,
// before it can be another's, and with unlock; its cause is [ErrLeaseLost] then. It does
// not end with ctx. As with [Fleet.Lead], who does not mind held can do what the next one
// does too: see [Fence].
//
// unlock may be called more than once. The death of the process frees the lock for its
// member at once, and for others after 15 seconds. The error wraps [ErrNoFleet] if there is no connection.
func (f *Fleet) Lock(ctx context.Context, name string) (held context.Context, unlock func(), err error) {
	local, err := coord.Lock(ctx, f.me.local("lock "+name))
	if err != nil {
		return nil, nil, fmt.Errorf("fleet: Lock %q: %w", name, err)
	}
	l, _, err := f.leases.acquire(ctx, context.WithoutCancel(ctx), "lock."+token(name), lockTime, nil)
	if err != nil {
		local()
		return nil, nil, fmt.Errorf("fleet: Lock %q: %w", name, err)
	}
	return l.ctx, sync.OnceFunc(func() {
		_ = l.release(claim{}) // it ends by itself
		local()
	}), nil
}

// notNil panics, in the goroutine of who has made the mistake, if a function is nil.
func notNil(call string, isNil bool) {
	if isNil {
		panic("fleet: " + call + ": the function to call is nil")
	}
}
