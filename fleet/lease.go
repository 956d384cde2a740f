package fleet

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
)

// leaseSettings are the durations of a lease. A lease that was not renewed for term,
// as another sees it, is that other's. Its holder gives it up hold after the
// beginning of the last renewal that succeeded. What is between the two is for
// clocks that do not run at the same speed, and for functions that take a while to
// mind their context.
type leaseSettings struct {
	term, renew, hold time.Duration
	look              time.Duration // between looks at another's lease, and at the clock
}

// ErrLeaseLost is the cause (context.Cause) of the end of a context when the lease
// could not be renewed in time.
var ErrLeaseLost = errors.New("the lease could not be renewed in time")

// claim is what is at the key of a lease.
type claim struct {
	Holder   string `json:"holder,omitempty"`   // of the lease; "": it is free
	Node     string `json:"node,omitempty"`     // of the holder
	Home     string `json:"home,omitempty"`     // of the holder: see homeOf
	Failures int    `json:"failures,omitempty"` // in a row, of what is led
	Failed   bool   `json:"failed,omitempty"`   // the last of them was the last end: who comes next waits
	Done     string `json:"done,omitempty"`     // the epoch in which its work was done
}

// leases are what this process can have of the fleet's bucket.
type leases struct {
	me    *self
	conn  *connection
	store *bucket
	epoch *epochs
}

// lease is one that this process has.
type lease struct {
	all   *leases
	key   string
	ttl   time.Duration // of the key
	mine  claim
	since time.Time // when it was taken
	fence uint64
	ctx   *leaseContext
	ended context.CancelCauseFunc

	mu       sync.Mutex
	rev      uint64
	deadline time.Duration // by sinceBoot

	stop    context.CancelFunc // of what renews it
	renewed sync.WaitGroup
}

// leaseContext is a context that ends with a lease. Its Err asks the clock: a machine
// that was suspended knows that it has lost the lease before any timer does.
type leaseContext struct {
	context.Context
	l *lease
}

type fenceKey struct{}

func (c *leaseContext) Err() error {
	c.l.check()
	return c.Context.Err()
}

func (c *leaseContext) Value(key any) any {
	if key == (fenceKey{}) {
		return c.l.fence
	}
	return c.Context.Value(key)
}

// check ends the context if it is time.
func (l *lease) check() {
	l.mu.Lock()
	late := sinceBoot() >= l.deadline
	l.mu.Unlock()
	if late {
		l.ended(ErrLeaseLost)
	}
}

// acquire waits until the lease is this process's. done says that what it is for is
// done already. parent is that of the lease's context. An error is ctx's, or says why there
// is none; with trouble that is told instead, and waited on.
func (a *leases) acquire(ctx, parent context.Context, key string, ttl time.Duration, trouble func(error)) (l *lease, done bool, err error) {
	// What is written to the key can be heard before it can be read. It says when to look.
	news := make(chan struct{}, 1)
	sub, err := a.conn.nc.Subscribe(a.store.subject(key), func(*nats.Msg) {
		select {
		case news <- struct{}{}:
		default:
		}
	})
	if err != nil {
		return nil, false, wrap(err)
	}
	defer sub.Unsubscribe()
	c := contender{all: a, key: key, me: rand.Text()}
	limit := a.me.set.lease.look
	for {
		wait, done, err := c.look(ctx)
		if err == nil && !done && wait <= 0 {
			l, err = c.take(ctx, parent, ttl)
		}
		switch {
		case l != nil:
			return l, false, nil
		case ctx.Err() != nil:
			return nil, false, ctx.Err()
		case err == nil && done:
			return nil, true, nil
		case err != nil && trouble == nil:
			return nil, false, err
		case err != nil:
			trouble(err)
			wait = a.me.set.lease.look
		}
		timer := time.NewTimer(max(a.me.set.lease.look/10, min(wait, limit)))
		limit = a.me.set.lease.look
		select {
		case <-ctx.Done():
		case <-news:
			limit /= 10 // this look may come too early
		case <-timer.C:
		}
		timer.Stop()
	}
}

// contender waits for a lease.
type contender struct {
	all  *leases
	key  string
	me   string // the holder that it will be
	last record
	has  claim
	seen time.Time // when last was seen first

	bucket time.Time // the one that was seen last: when it was made, by the server's clock
	since  time.Time // when it was seen first
}

// look looks at the lease, and says how long to wait before it may be taken.
func (c *contender) look(ctx context.Context) (wait time.Duration, done bool, err error) {
	r, err := c.all.store.get(ctx, c.key)
	if err != nil {
		return 0, false, err
	}
	if r.rev != c.last.rev || c.seen.IsZero() {
		c.last, c.seen, c.has = r, time.Now(), claim{}
		if r.there {
			if err := json.Unmarshal(r.val, &c.has); err != nil {
				c.seen = time.Time{}
				return 0, false, fmt.Errorf("the key %s of the bucket %s has no lease, and has to be deleted: %w", c.key, c.all.store.name(), err)
			}
		}
	}
	switch {
	case c.has.Holder == c.me: // what was thought to have failed
		return 0, false, nil
	case c.has.Holder != "" && c.has.Home == c.all.me.home:
		// Package coord says that nobody else of this cluster has it any more.
		return 0, false, nil
	case c.has.Holder != "":
		return c.all.me.set.lease.term - time.Since(c.seen), false, nil
	case c.has.Done != "":
		epoch, err := c.all.epoch.get(ctx)
		return 0, epoch == c.has.Done, err
	case !c.last.there:
		return c.young(ctx)
	}
	if c.has.Failed {
		wait = backoff(c.has.Failures) - time.Since(c.seen)
	}
	return wait, false, nil
}

// young is for a lease that is not there. A bucket that was just made may be that of a
// server that has lost the one before, with a lease that somebody still minds.
func (c *contender) young(ctx context.Context) (wait time.Duration, done bool, err error) {
	if c.all.me.embedded || c.last.rev > 0 {
		return 0, false, nil
	}
	made, now, err := c.all.store.made(ctx)
	if err != nil {
		return 0, false, err
	}
	if !made.Equal(c.bucket) {
		c.bucket, c.since = made, time.Now()
	}
	// The server's clock may have been set back.
	return c.all.me.set.lease.term - max(now.Sub(made), time.Since(c.since)), false, nil
}

// backoff is how long nobody tries after so many failures in a row.
func backoff(failures int) time.Duration {
	if failures < 2 {
		return 0
	}
	return min(time.Second<<min(failures-2, 10), time.Minute)
}

// take takes the lease, if it is still as it was seen.
func (c *contender) take(ctx, parent context.Context, ttl time.Duration) (*lease, error) {
	mine := claim{Holder: c.me, Node: c.all.me.node, Home: c.all.me.home, Failures: c.has.Failures}
	if c.has.Holder != "" && c.has.Holder != c.me {
		mine.Failures++ // it died while it led
	}
	body, err := json.Marshal(mine)
	if err != nil {
		return nil, err
	}
	begin := sinceBoot()
	rev, err := c.all.store.put(ctx, c.key, body, c.last.rev, ttl, nil)
	if errors.Is(err, errMoved) {
		return nil, nil
	} else if err != nil {
		return nil, err
	}
	l := &lease{all: c.all, key: c.key, ttl: ttl, mine: mine, since: time.Now(), fence: rev, rev: rev, deadline: begin + c.all.me.set.lease.hold}
	inner, ended := context.WithCancelCause(parent)
	l.ctx, l.ended = &leaseContext{inner, l}, ended
	renewing, stop := context.WithCancel(context.Background())
	l.stop = stop
	l.renewed.Go(func() { l.renew(renewing) })
	l.renewed.Go(func() { l.watch(renewing) })
	return l, nil
}

// watch looks at the clock.
func (l *lease) watch(ctx context.Context) {
	tick := time.NewTicker(l.all.me.set.lease.look)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			l.check()
		case <-ctx.Done():
			return
		}
	}
}

// renew renews the lease until it is lost, or given back. That the context has ended
// because its parent has does not end it: the function may still run.
func (l *lease) renew(ctx context.Context) {
	set := l.all.me.set.lease
	for next := set.renew; ; {
		timer := time.NewTimer(next)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return
		}
		l.check()
		if context.Cause(l.ctx.Context) == ErrLeaseLost {
			return
		}
		mine := l.mine
		mine.Failures = l.failures()  // those of long ago are not held against who comes next
		body, _ := json.Marshal(mine) // it could be encoded when it was taken
		begin := sinceBoot()
		one, cancel := context.WithTimeout(ctx, set.hold/4)
		rev, err := l.all.store.put(one, l.key, body, l.revision(), l.ttl, nil)
		if errors.Is(err, errMoved) && !l.reread(one) {
			cancel()
			l.ended(ErrLeaseLost)
			return
		}
		cancel()
		if next = set.look; err == nil {
			l.extend(rev, begin+set.hold)
			next = max(0, set.renew-(sinceBoot()-begin))
		}
	}
}

// goodTime is how long what is led must go well for the next failure to be the first.
const goodTime = time.Minute

// failures are those in a row, if the next one comes now.
func (l *lease) failures() int {
	if time.Since(l.since) > goodTime {
		return 0
	}
	return l.mine.Failures
}

func (l *lease) revision() uint64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.rev
}

// extend notes a renewal that has succeeded. A lease whose time has passed stays lost.
func (l *lease) extend(rev uint64, deadline time.Duration) {
	l.check()
	l.mu.Lock()
	defer l.mu.Unlock()
	l.rev, l.deadline = rev, deadline
}

// reread finds out whether the lease is still this one's: a renewal that was thought
// to have failed may have arrived. It is not if that cannot be known.
func (l *lease) reread(ctx context.Context) (mine bool) {
	for {
		r, err := l.all.store.get(ctx, l.key)
		switch {
		case err != nil && ctx.Err() == nil:
			select {
			case <-time.After(l.all.me.set.lease.look):
				continue
			case <-ctx.Done():
				return false
			}
		case err != nil || !r.there:
			return false
		}
		var has claim
		if json.Unmarshal(r.val, &has) != nil || has.Holder != l.mine.Holder {
			return false
		}
		l.mu.Lock()
		defer l.mu.Unlock()
		l.rev = r.rev
		return true
	}
}

// release gives the lease back, and leaves what is next known. It is called when what
// the lease is for has ended. Where that cannot be said it ends by itself.
func (l *lease) release(next claim) error {
	lost := context.Cause(l.ctx.Context) == ErrLeaseLost
	l.stop()
	l.renewed.Wait()
	l.ended(context.Canceled)
	if lost {
		return ErrLeaseLost
	}
	body, err := json.Marshal(next)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), l.all.me.set.lease.hold/2)
	defer cancel()
	for {
		_, err := l.all.store.put(ctx, l.key, body, l.revision(), l.ttl, nil)
		switch {
		case err == nil:
			return nil
		case ctx.Err() != nil || errors.Is(err, ErrNoFleet):
			return err
		case errors.Is(err, errMoved) && !l.reread(ctx):
			return ErrLeaseLost
		}
	}
}

// done gives a lease back whose work is done.
func (a *leases) done(l *lease) error {
	epoch, err := a.epoch.get(context.Background())
	if err != nil {
		_ = l.release(claim{})
		return err
	}
	return l.release(claim{Done: epoch})
}
