package broker

import (
	"context"
	"fmt"
	"sync"

	"github.com/go-cluster/cluster/internal/coordinate"
	"github.com/go-cluster/cluster/internal/errs"
)

// Lock waits for the lock, or for the end of ctx.
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

// Once runs fn, unless somebody does or has, and waits until it has succeeded.
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
		if !ok { // it has panicked, too
			c.up.tell(failed)
		}
	}()
	if err := fn(ctx); err != nil {
		return err
	}
	ok = true
	// Its answer says that nobody will run it again. Without one there is no master
	// any more, and nobody who would.
	c.up.ask(context.WithoutCancel(ctx), &Question{Verb: verbOnceDone, Name: name, Ticket: failed.Ticket})
	return nil
}

// enter asks for something that one at a time has, and waits for it. leave gives it
// back, or ends the wait.
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
		if ctx.Err() != nil { // it may have been granted in this moment
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
