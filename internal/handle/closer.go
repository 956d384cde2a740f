package handle

import (
	"sync"
	"time"
)

// Closer closes descriptors that other processes have, or had, as well. What they
// do with one can make its close(2) wait: for an hour, when it lingers (SO_LINGER)
// over data that nobody reads, or for ever, when it is a file of a server that does
// not answer. Nobody but a goroutine of the Closer waits for that.
//
// The zero value is ready. An idle Closer has no goroutine.
type Closer struct {
	mu      sync.Mutex
	queue   []int
	busy    int           // goroutines
	awaited chan struct{} // closed when there is room; nil if nobody waits
	room    int           // how many may be open then
}

// maxClosing bounds the goroutines of a Closer. One that waits keeps a thread.
const maxClosing = 64

// Close closes fd: now if that cannot wait, else later. An address is free again
// when Close of its listening socket returns.
func (c *Closer) Close(fd int) { c.close(fd, mayWait(fd)) }

// CloseTCP is Close of a connection that this process has itself accepted at a TCP
// socket. Its kind is known, so that one system call is enough: whether it lingers, its
// other holders decide at any time.
func (c *Closer) CloseTCP(fd int) { c.close(fd, mayLinger(fd)) }

func (c *Closer) close(fd int, waits bool) {
	if waits {
		c.Later(fd)
	} else {
		closeFD(fd)
	}
}

// Later closes fd on another goroutine. It is for descriptors of which the other
// holders may just now make something whose close waits.
func (c *Closer) Later(fd int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.queue = append(c.queue, fd)
	if c.busy < maxClosing {
		c.busy++
		go c.run()
	}
}

// Await waits until no more than n descriptors are not closed yet, for limit at most,
// and reports whether that is so. Only one caller at a time may wait.
func (c *Closer) Await(n int, limit time.Duration) bool {
	c.mu.Lock()
	if len(c.queue)+c.busy <= n {
		c.mu.Unlock()
		return true
	}
	awaited := make(chan struct{})
	c.awaited, c.room = awaited, n
	c.mu.Unlock()
	timer := time.NewTimer(limit)
	defer timer.Stop()
	select {
	case <-awaited:
		return true
	case <-timer.C:
		return false
	}
}

func (c *Closer) run() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for len(c.queue) > 0 {
		fd := c.queue[0]
		c.queue = c.queue[1:]
		c.mu.Unlock()
		closeFD(fd)
		c.mu.Lock()
		c.tell()
	}
	c.busy--
	c.tell()
}

// tell wakes who waits for room, if there is some. c.mu is held.
func (c *Closer) tell() {
	if c.awaited != nil && len(c.queue)+c.busy <= c.room {
		close(c.awaited)
		c.awaited = nil
	}
}
