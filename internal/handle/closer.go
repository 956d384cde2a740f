package handle

import (
	"sync"
	"time"
)

// Closer closes descriptors that other processes have, or had, as well. Those processes can
// make its close(2) wait: for an hour, if a socket lingers (SO_LINGER) over data that nobody
// reads, or for ever, if it is a file of a server that does not answer. Only a goroutine of
// the Closer waits for that.
//
// The zero value is ready. An idle Closer has no goroutine.
type Closer struct {
	mu      sync.Mutex
	queue   []int
	busy    int           // goroutines
	awaited chan struct{} // closed when no more than room are left; nil if nobody waits
	room    int           // how many descriptors may be left for Await to return
}

// maxClosing bounds the goroutines of a Closer: one that waits in close(2) keeps a thread.
const maxClosing = 64

// Close closes fd: before it returns if that cannot wait, and later otherwise. A listening
// socket never waits, so its address is free again when Close returns.
func (c *Closer) Close(fd int) { c.close(fd, mayWait(fd)) }

// CloseTCP is Close for a connection that this process has accepted on a TCP socket. It
// makes one system call: the kind of the descriptor is known, but whether it lingers has to
// be asked, since another holder may have changed that.
func (c *Closer) CloseTCP(fd int) { c.close(fd, mayLinger(fd)) }

func (c *Closer) close(fd int, waits bool) {
	if waits {
		c.Later(fd)
	} else {
		closeFD(fd)
	}
}

// Later closes fd on another goroutine. It is for descriptors that another holder may be
// changing just now, so that what mayWait says would not hold.
func (c *Closer) Later(fd int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.queue = append(c.queue, fd)
	if c.busy < maxClosing {
		c.busy++
		go c.run()
	}
}

// Await waits until at most n descriptors are left to be closed, for limit at most, and
// reports whether that is so. Only one caller at a time may wait.
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

// tell wakes the caller of Await if few enough are left. c.mu is held.
func (c *Closer) tell() {
	if c.awaited != nil && len(c.queue)+c.busy <= c.room {
		close(c.awaited)
		c.awaited = nil
	}
}
