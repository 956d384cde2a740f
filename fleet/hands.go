package fleet

import (
	"sync"
	"sync/atomic"
)

// hands are the goroutines that calls of handlers run on, one for each call that is
// under way. A few rest when they have no call: a new goroutine costs more than the whole
// of what is done for a short call, since its stack has to grow again.
type hands struct {
	next    chan call // what one that rests is given
	resting atomic.Int32
	ended   chan struct{} // from here on none rests
	end     func()        // ends those that rest; calls that come later run on new ones
}

// maxResting is how many rest at most.
const maxResting = 16

func newHands() *hands {
	h := &hands{next: make(chan call), ended: make(chan struct{})}
	h.end = sync.OnceFunc(func() { close(h.ended) })
	return h
}

// take has a call run, on one that rests or on a new one. It does not wait.
func (h *hands) take(c call) {
	select {
	case h.next <- c:
	default:
		go h.work(c)
	}
}

// work runs a call, and those that come while it rests. A call may end the goroutine.
func (h *hands) work(c call) {
	for {
		c.run()
		if h.resting.Add(1) > maxResting {
			h.resting.Add(-1)
			return
		}
		select {
		case c = <-h.next:
			h.resting.Add(-1)
		case <-h.ended:
			return
		}
	}
}
