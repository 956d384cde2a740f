package share

// policy decides which worker has the next connection that the master accepts.
type policy interface {
	// next returns the index of a seat. free are the seats of the workers that
	// may have a connection, in the order in which they became free; there is one
	// at least.
	next(free []*seat) int
}

// policyOf returns the policy for which the master accepts, or nil if it does not.
func policyOf(q Query) policy {
	if q.Policy == RoundRobin && !q.IsPacket() {
		return inTurn{}
	}
	return nil
}

// inTurn is node's SCHED_RR: the worker that has been free for longest.
type inTurn struct{}

func (inTurn) next([]*seat) int { return 0 }
