package share

import "time"

// policy decides which worker has the next connection that the master accepts.
type policy interface {
	// next returns the index of a seat. free are the seats of the workers that may
	// have a connection, in the order in which they became free; there is one at
	// least. all are the seats of all workers. It returns -1 if the connection is to
	// wait: until another seat is free, or for so long, if that is not 0.
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

// leastOpen chooses the worker that has the fewest open connections; of several that
// which has been free for longest. What a worker has been offered counts as open. If
// another worker than the free ones has the fewest, that is waited for, since what it
// was offered it takes in a moment. A worker that has not answered for answerTime is
// stopped, or busy, and is not waited for any more.
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

// weigh sets the load of all seats: how many open connections the worker has, as far as
// that can be known. A worker that does not tell, as node's, has of those that it has
// taken here as large a part as of those that tell; or all of them, if none does.
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

// maxCatchUp bounds how many connections a worker that does not tell is given ahead of
// the others when it is new. They may all have been short.
const maxCatchUp = 1000

// headStart is how many connections a new worker counts as having taken, beside these.
func headStart(all map[Member]*seat) int64 {
	fewest := int64(-1)
	for _, s := range all {
		if fewest < 0 || s.given < fewest {
			fewest = s.given
		}
	}
	return max(0, fewest-maxCatchUp)
}
