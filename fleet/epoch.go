package fleet

import (
	"context"
	"crypto/rand"
	"errors"
	"sync"
	"time"
)

// epochs know in which life of the fleet this is. What is done in one life is done
// until its end: until no process that knows it has lived for the term of a lease.
// The fleet's epoch is a key that all of them keep young, one at a time. Its age is by
// the server's clock.
type epochs struct {
	me    *self
	store *bucket

	mu   sync.Mutex
	id   string // "": not known yet
	rev  uint64
	stop context.CancelFunc
	kept sync.WaitGroup
}

const epochKey = "epoch"

// get is the fleet's epoch.
func (e *epochs) get(ctx context.Context) (string, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for e.id == "" {
		r, err := e.store.get(ctx, epochKey)
		if err != nil {
			return "", err
		}
		if r.there {
			_, now, err := e.store.age(ctx)
			if err != nil {
				return "", err
			}
			if now.Sub(r.at) < e.me.set.lease.term {
				e.id, e.rev = string(r.val), r.rev
				break
			}
		}
		id := rand.Text()
		rev, err := e.store.put(ctx, epochKey, []byte(id), r.rev, 0, nil)
		if err == nil {
			e.id, e.rev = id, rev
		} else if !errors.Is(err, errMoved) {
			return "", err
		}
	}
	if e.stop == nil {
		keep, stop := context.WithCancel(context.Background())
		e.stop = stop
		e.kept.Go(func() { e.keep(keep) })
	}
	return e.id, nil
}

// keep keeps the epoch young.
func (e *epochs) keep(ctx context.Context) {
	tick := time.NewTicker(e.me.set.lease.renew)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
		r, err := e.store.get(ctx, epochKey)
		if err != nil {
			continue // there is no connection
		}
		e.mu.Lock()
		id, old := e.id, r.rev == e.rev
		e.rev = r.rev
		if r.there && string(r.val) != id {
			e.id, old = string(r.val), false // another one has begun while this process was cut off
		}
		e.mu.Unlock()
		if old || !r.there {
			if rev, err := e.store.put(ctx, epochKey, []byte(id), r.rev, 0, nil); err == nil {
				e.mu.Lock()
				e.rev = rev
				e.mu.Unlock()
			}
		}
	}
}

// end ends what keeps it.
func (e *epochs) end() {
	e.mu.Lock()
	stop := e.stop
	e.mu.Unlock()
	if stop != nil {
		stop()
		e.kept.Wait()
	}
}
