package drain

import (
	"context"
	"sync"
	"time"
)

// clock is the time that a drain has. It only ever gets shorter: a second order
// to stop may shorten the drain, and cannot lengthen it.
type clock struct {
	work context.Context // done when what is in flight has had its time
	rest context.Context // done when the process exits, whatever is left to do

	mu        sync.Mutex
	endOfWork time.Time // when work is done; zero before the drain
	end       time.Time // when rest is done
	timers    []*time.Timer
	endWork   context.CancelFunc
	endRest   context.CancelFunc
}

// margin is what a drain leaves of its time: between the end of what is in
// flight and the end of the hooks, and again before the master's SIGKILL. A
// second, or a quarter of a short timeout.
func margin(timeout time.Duration) time.Duration { return min(time.Second, timeout/4) }

func (c *clock) init() {
	work, endWork := context.WithCancel(context.Background())
	rest, endRest := context.WithCancel(context.Background())
	c.work, c.endWork = timed{work, c, &c.endOfWork}, endWork
	c.rest, c.endRest = timed{rest, c, &c.end}, endRest
}

// set makes the drain end before timeout has passed, unless it ends sooner
// anyway. timeUp is called when nothing has ended the process until then.
func (c *clock) set(timeout time.Duration, timeUp func()) {
	c.mu.Lock()
	defer c.mu.Unlock()
	left := timeout - margin(timeout)
	end := time.Now().Add(left)
	if !c.end.IsZero() && !end.Before(c.end) {
		return
	}
	c.end, c.endOfWork = end, end.Add(-margin(timeout))
	for _, t := range c.timers {
		t.Stop()
	}
	c.timers = []*time.Timer{
		time.AfterFunc(left-margin(timeout), c.endWork),
		time.AfterFunc(left, func() {
			c.endRest()
			timeUp()
		}),
	}
}

// timed is a context that is done at a time of the clock. Its Deadline is that time,
// which may come to be earlier.
type timed struct {
	context.Context
	clock *clock
	at    *time.Time
}

func (t timed) Deadline() (at time.Time, ok bool) {
	t.clock.mu.Lock()
	defer t.clock.mu.Unlock()
	return *t.at, !t.at.IsZero()
}

// left is how much of the time is left.
func (c *clock) left() time.Duration {
	c.mu.Lock()
	defer c.mu.Unlock()
	return time.Until(c.end)
}
