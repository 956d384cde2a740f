package drain

import (
	"time"
)

const (
	// lameDuck is how long an idle connection is kept at the beginning of a
	// drain. A client that sends a request on it in that time gets an answer
	// that says Connection: close; closing at once would reset it.
	lameDuck = time.Second
	// tlsLameDuck is the same where idle is hard to tell: see conn.patience.
	tlsLameDuck = 5 * lameDuck
	// lamePoll is how often a drain looks at the connections.
	lamePoll = 20 * time.Millisecond
	// lameStop is after how long without a look this process has been stopped, or
	// starved.
	lameStop = 5 * lamePoll
)

// finishConns lets the connections end. Each is kept for its lame-duck time from
// its last activity on; if it is idle then, it is closed. When pace says so, the
// servers are shut down: they read no further request. finishConns returns when
// no connection is left and all servers have shut down, or when what is in flight
// has had its time.
func (d *Drain) finishConns() {
	p := pace{half: d.clock.left() / 2}
	var conns []*conn
	var shut <-chan struct{} // closed when all servers have shut down
	ticker := time.NewTicker(lamePoll)
	defer ticker.Stop()
	d.markOld()
	for last := time.Now(); ; {
		var c census
		conns, c = d.look(conns)
		step := time.Since(last)
		last = last.Add(step)
		var shutDown bool
		p, shutDown = p.next(c, step)
		if shutDown && shut == nil {
			shut = d.servers.shutdown(d.clock.work)
		}
		var ended <-chan struct{} // never, while a connection is left
		if c.open == 0 {
			ended = shut
		}
		select {
		case <-ended:
			return
		case <-d.clock.work.Done():
			return
		case <-ticker.C:
		}
	}
}

// census is what look counts.
type census struct {
	open int // connections that are open, or may be about to
	idle int // of those, without a request in flight
	old  int // of those, with a request in flight that began before the drain
}

// pace decides when the servers are shut down: see next. It counts only the time in which
// this process ran. While the process was stopped, requests may have come that are not
// read yet, and Shutdown would close their connections as idle.
type pace struct {
	half  time.Duration // half of the drain's time
	ran   time.Duration // since the drain began
	quiet time.Duration // the value of ran when a request from before the drain was last in flight
}

// next takes what a look has found, and the time since the look before. It
// returns the pace from here on, and whether the servers are to be shut down now.
//
// The shutdown should wait until every client has had an answer that says Connection:
// close. A request from before the drain may have been answered in part, without that
// header, and its client may send another one after it. So requests from before the drain
// have half of the time, and after them clients have one lame-duck time to send again.
func (p pace) next(c census, elapsed time.Duration) (next pace, shutDown bool) {
	p.ran += min(elapsed, lameStop)
	stopped := elapsed > lameStop
	if c.old > 0 || stopped {
		p.quiet = p.ran
	}
	var (
		quiet    = p.ran - p.quiet
		nothing  = c.open == 0
		allTold  = quiet >= lameDuck && c.idle == 0 // the requests in flight are answered with Connection: close
		patient  = quiet >= 3*lameDuck              // idle connections that are used again and again
		halfOver = p.ran >= p.half                  // requests from before the drain that do not end
	)
	return p, nothing || allTold || patient || halfOver
}

// markOld notes which requests were in flight when the drain began.
func (t *Tracker) markOld() {
	conns, _ := t.inFlight(nil)
	for _, c := range conns {
		if c.phase.Load() == phaseActive || c.answering() {
			c.old.Store(true)
		}
		if c.phase.Load() != phaseActive && !c.answering() {
			c.old.Store(false) // it ended meanwhile
		}
	}
}

// sighting says since when a connection has been seen idle.
type sighting struct {
	seen  bool
	ops   uint32 // conn.ops then: if it has changed, the connection was not idle all the time
	since time.Time
}

// look counts what is in flight, and cuts the connections that have been idle
// for as long as they may. It uses buf again, and returns it.
func (t *Tracker) look(buf []*conn) ([]*conn, census) {
	conns, accepting := t.inFlight(buf[:0])
	count := census{open: accepting}
	for _, c := range conns {
		if c.abandoned() {
			continue
		}
		count.open++
		if c.bye != nil && !c.answering() {
			c.old.Store(false)
		}
		if c.old.Load() {
			count.old++
		}
		if !c.idle() {
			if c.phase.Load() == phaseIdle {
				count.idle++ // its next request has begun to arrive, perhaps
			}
			c.sight = sighting{}
			continue
		}
		count.idle++
		if ops := c.ops.Load(); !c.sight.seen || c.sight.ops != ops {
			c.sight = sighting{true, ops, time.Now()}
		} else if time.Since(c.sight.since) >= c.patience() && c.cuttable() {
			c.cutIdle()
		}
	}
	clear(conns) // buf must not keep them alive
	return conns, count
}
