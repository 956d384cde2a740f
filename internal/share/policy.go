package share

import "time"

// policy decides which worker gets the next connection that the master accepts.
type policy interface {
	// next returns the index of a seat in free. free has the seats of the workers that may
	// get a connection, at least one, in the order in which they became free. all has the
	// seats of all workers. next returns -1 if the connection is to wait until another seat
	// is free or, if wait is not 0, until wait is over.
	next(now time.Time, free []*seat, all map[Member]*seat) (i int, wait time.Duration)
}

// policyOf returns the policy for which the master accepts, or nil if it does not.
func policyOf(q Query) policy {
	switch {
	case q.IsPacket():
		return nil
	case q.Policy == RoundRobin:
		return inTurn{}
	case q.Policy == LeastConnections:
		return leastOpen{}
	}
	return nil
}

// inTurn is node's SCHED_RR: the worker that has been free for longest.
type inTurn struct{}

func (inTurn) next(time.Time, []*seat, map[Member]*seat) (int, time.Duration) { return 0, 0 }

// leastOpen chooses the worker that has the fewest open connections, and of several the one
// that has been free for longest. A connection that a worker was offered counts as open. If a
// worker that is not free has the fewest, the connection waits for it, since that worker will
// answer in a moment. If it has not answered for answerTime, it is stopped or busy, and the
// connection waits no longer.
type leastOpen struct{}

// answerTime is for how long leastOpen waits for a worker's answer.
const answerTime = 100 * time.Millisecond

func (leastOpen) next(now time.Time, free []*seat, all map[Member]*seat) (int, time.Duration) {
	weigh(all)
	least := 0
	for i, s := range free {
		if s.load < free[least].load {
			least = i
		}
	}
	wait := time.Duration(0)
	for _, s := range all {
		if left := answerTime - now.Sub(s.offered); !s.offered.IsZero() && left > 0 && s.load < free[least].load {
			wait = max(wait, left)
		}
	}
	if wait > 0 {
		return -1, wait
	}
	return least, 0
}

// weigh sets the load of all seats: how many open connections each worker has, as far as that
// can be known. Workers of node do not tell. Such a worker counts as having a part of the
// connections open that it has taken here: as large a part as the workers that tell have, or
// all, if no worker tells.
func weigh(all map[Member]*seat) {
	var sum Load
	for _, s := range all {
		c, ok := s.member.Load()
		s.tells, s.load = ok, float64(c.Open)
		if ok {
			sum.Open += c.Open
			sum.Accepted += c.Accepted
		}
	}
	part := 1.0
	if sum.Accepted > 0 {
		part = min(1, float64(sum.Open)/float64(sum.Accepted))
	}
	for _, s := range all {
		if !s.tells {
			s.load = part * float64(s.given)
		}
		if !s.offered.IsZero() {
			s.load++
		}
	}
}

// maxCatchUp bounds how many connections a new worker that does not tell gets before the others
// get one again. Those that the others have taken may all be closed by now.
const maxCatchUp = 1000

// headStart returns how many connections a new worker counts as having taken at its start,
// beside the seats of all.
func headStart(all map[Member]*seat) int64 {
	fewest := int64(-1)
	for _, s := range all {
		if fewest < 0 || s.given < fewest {
			fewest = s.given
		}
	}
	return max(0, fewest-maxCatchUp)
}
