package drain

import (
	"slices"
	"sync"
	"syscall"
	"time"
)

// calls are the system calls of a socket that are under way. Other processes share the
// socket, and so its O_NONBLOCK: a program that makes the socket blocking does so for all.
// Then a call waits in the kernel. No deadline ends it there, and closing the socket waits
// for it.
type calls struct {
	mu      sync.Mutex
	begun   int           // calls since the beginning; the number of the last one
	live    []int         // those that are under way: few, so that a map would cost more
	changed chan struct{} // closed when one ends, if somebody waits for that
	timer   *time.Timer   // of rouseLate
	upTo    int           // the newest call that the timer is for
}

const (
	// stuckTime is how long a call may go on that package net has ended, before it is
	// taken to wait in the kernel.
	stuckTime = 100 * time.Millisecond
	// rouseTime is how long rouse waits before it tries again, and maxRouses how often it
	// tries: each time another process may have made the socket blocking once more.
	rouseTime = 20 * time.Millisecond
	maxRouses = 100
)

// begin notes a call, whose number it returns.
func (c *calls) begin() (n int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.begun++
	c.live = append(c.live, c.begun)
	return c.begun
}

// end notes that a call has returned.
func (c *calls) end(n int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	i := slices.Index(c.live, n)
	last := len(c.live) - 1
	c.live[i] = c.live[last]
	c.live = c.live[:last]
	if c.changed != nil {
		close(c.changed)
		c.changed = nil
	}
}

// newest returns the number of the newest call, and whether any is under way.
func (c *calls) newest() (n int, any bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.begun, len(c.live) > 0
}

// ended waits for the calls up to number n, but not for longer than d.
func (c *calls) ended(n int, d time.Duration) bool {
	late := time.NewTimer(d)
	defer late.Stop()
	for {
		changed := c.change(n)
		if changed == nil {
			return true
		}
		select {
		case <-changed:
		case <-late.C:
			return c.change(n) == nil
		}
	}
}

// change returns a channel that is closed when a call ends, or nil if none up to number
// n is under way.
func (c *calls) change(n int) <-chan struct{} {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, live := range c.live {
		if live <= n {
			if c.changed == nil {
				c.changed = make(chan struct{})
			}
			return c.changed
		}
	}
	return nil
}

// rouse ends the calls under way of s, whose deadline has passed, and returns when they
// have ended.
func (c *calls) rouse(s syscall.Conn) {
	last, any := c.newest()
	if !any {
		return
	}
	rc, err := s.SyscallConn()
	if err != nil {
		return // no socket, and nothing that could wait in the kernel
	}
	if blocking(rc) || !c.ended(last, stuckTime) {
		for range maxRouses {
			unblock(rc)
			if c.ended(last, rouseTime) {
				return
			}
		}
	}
}

// rouseLate is rouse without a wait: it ends the calls that do not end by themselves.
func (c *calls) rouseLate(s syscall.Conn) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.live) == 0 {
		return
	}
	c.upTo = c.begun
	if c.timer == nil {
		c.timer = time.AfterFunc(stuckTime, func() { c.late(s) })
	}
}

func (c *calls) late(s syscall.Conn) {
	c.mu.Lock()
	c.timer = nil
	last := c.upTo
	c.mu.Unlock()
	if c.change(last) == nil {
		return
	}
	if rc, err := s.SyscallConn(); err == nil {
		unblock(rc)
	}
}
