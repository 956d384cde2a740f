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

	mu    sync.Mutex // held for no question to the server
	id    string     // "": not known yet
	rev   uint64
	stop  context.CancelFunc // nil: nothing keeps it
	ended bool
	kept  sync.WaitGroup
}

const epochKey = "epoch"

// get is the fleet's epoch.
func (e *epochs) get(ctx context.Context) (string, error) {
	e.mu.Lock()
	id := e.id
	e.mu.Unlock()
	if id != "" {
		return id, nil
	}
	for {
		id, rev, err := e.find(ctx)
		if err == nil {
			return e.adopt(id, rev), nil
		}
		if !errors.Is(err, errMoved) {
			return "", err
		}
	}
}

// find reads the epoch, or begins one. No lock is held: of several that begin one the
// server takes the first, and the others find it, with errMoved.
func (e *epochs) find(ctx context.Context) (id string, rev uint64, err error) {
	r, err := e.store.get(ctx, epochKey)
	if err != nil {
		return "", 0, err
	}
	if r.there {
		_, now, err := e.store.made(ctx)
		if err != nil {
			return "", 0, err
		}
		if now.Sub(r.at) < e.me.set.lease.term {
			return string(r.val), r.rev, nil
		}
	}
	id = rand.Text()
	rev, err = e.store.put(ctx, epochKey, []byte(id), r.rev, 0, nil)
	return id, rev, err
}

// adopt notes the epoch, unless another call has done so meanwhile, and has it kept.
func (e *epochs) adopt(id string, rev uint64) string {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.id != "" {
		return e.id
	}
	e.id, e.rev = id, rev
	if !e.ended {
		keep, stop := context.WithCancel(context.Background())
		e.stop = stop
		e.kept.Go(func() { e.keep(keep) })
	}
	return e.id
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
	e.ended = true
	e.mu.Unlock()
	if stop != nil {
		stop()
		e.kept.Wait()
	}
}
