package broker

import (
	"context"
	"fmt"
	"sync"

	"github.com/go-cluster/cluster/internal/coordinate"
	"github.com/go-cluster/cluster/internal/errs"
)

// Lock takes the lock. It waits until nobody else holds it, or until ctx ends.
func (c *Client) Lock(ctx context.Context, name string) (unlock func(), err error) {
	q := &Question{Verb: verbLock, Name: name}
	free := &Question{Verb: verbUnlock, Name: name}
	if _, err := c.enter(ctx, q, free); err != nil {
		return nil, fmt.Errorf("coord: Lock(%.64q): %w", name, err)
	}
	return c.unlocker(free), nil
}

// TryLock takes the lock if nobody has it.
func (c *Client) TryLock(name string) (unlock func(), ok bool, err error) {
	q := &Question{Verb: verbTryLock, Name: name}
	free := &Question{Verb: verbUnlock, Name: name}
	s, err := c.enter(context.Background(), q, free)
	if err != nil {
		return nil, false, fmt.Errorf("coord: TryLock(%.64q): %w", name, err)
	}
	if s != coordinate.Has {
		return nil, false, nil
	}
	return c.unlocker(free), true, nil
}

func (c *Client) unlocker(free *Question) func() {
	return sync.OnceFunc(func() { c.up.tell(free) })
}

// Once runs fn unless another process runs it or has run it, and waits until one has
// succeeded.
func (c *Client) Once(ctx context.Context, name string, fn func(context.Context) error) error {
	q := &Question{Verb: verbOnce, Name: name}
	failed := &Question{Verb: verbOnceFailed, Name: name}
	s, err := c.enter(ctx, q, failed)
	if err != nil {
		return fmt.Errorf("coord: Once(%.64q): %w", name, err)
	}
	if s == coordinate.Already {
		return nil
	}
	c.running.Begin()
	defer c.running.End()
	ok := false
	defer func() {
		if !ok { // also after a panic
			c.up.tell(failed)
		}
	}()
	if err := fn(ctx); err != nil {
		return err
	}
	ok = true
	// The answer says that nobody will run it again. If none comes, the master is gone, and
	// nobody can run it again.
	c.up.ask(context.WithoutCancel(ctx), &Question{Verb: verbOnceDone, Name: name, Ticket: failed.Ticket})
	return nil
}

// enter asks for something that one member has at a time, and waits for it. leave is the
// question that gives it back, or ends the wait.
func (c *Client) enter(ctx context.Context, q, leave *Question) (coordinate.Standing, error) {
	told := make(chan coordinate.What, 1)
	c.mu.Lock()
	ticket := c.next()
	c.waits[ticket] = told
	c.mu.Unlock()
	defer func() {
		c.mu.Lock()
		delete(c.waits, ticket)
		c.mu.Unlock()
	}()
	q.Ticket, leave.Ticket = ticket, ticket
	a, err := c.ask(ctx, q)
	if err != nil {
		if ctx.Err() != nil { // it may have been granted just now
			c.up.tell(leave)
		}
		return coordinate.Busy, err
	}
	s := coordinate.Standing(a.N)
	if s != coordinate.Waits {
		return s, nil
	}
	select {
	case what := <-told:
		if what == coordinate.Done {
			return coordinate.Already, nil
		}
		return coordinate.Has, nil
	case <-ctx.Done():
		c.up.tell(leave)
		return coordinate.Busy, ctx.Err()
	case <-c.gone:
		return coordinate.Busy, errs.Closed
	}
}
