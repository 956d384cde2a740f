package share

// How an address ends: here connections are no longer kept waiting for workers to
// come, but refused. All of this runs in the mailbox.

// Close notes that m has closed its listener. If m stays and nobody else listens on
// the address, that ends. A worker on its way out did not close it for good: its
// successor will come.
func (r *Registry) Close(m Member, key string, stays bool) {
	e := r.entries[key]
	if e == nil {
		return
	}
	_, held := e.holders[m]
	delete(e.holders, m)
	if e.dispatcher != nil {
		e.dispatcher.remove(m)
	}
	if held && stays && !m.Leaving() {
		r.endUnused(e)
	}
}

// letGo is Close for what this process itself listens on.
func (r *Registry) letGo(e *entry) {
	e.held--
	if r.entries[e.key] == e {
		r.endUnused(e)
	}
}

// Outdate ends, after a reload, the addresses that nobody listens on and that no
// worker of a generation after the given one has asked for.
func (r *Registry) Outdate(generation int) {
	for _, e := range r.entries {
		if e.generation <= generation {
			r.endUnused(e)
		}
	}
}

// endUnused ends e if it is open and nobody listens on it. Workers on their way
// out do not count.
func (r *Registry) endUnused(e *entry) {
	if len(e.sockets) == 0 || e.held > 0 {
		return
	}
	for m := range e.holders {
		if !m.Leaving() {
			return
		}
	}
	r.drop(e)
}

// CloseAll ends all addresses, at the beginning of a stop. Workers that have the
// socket take what waits in its queue; what is asked for later is not opened for
// them, since they are on their way out.
func (r *Registry) CloseAll() {
	for _, e := range r.entries {
		r.drop(e)
	}
}

func (r *Registry) drop(e *entry) {
	delete(r.entries, e.key)
	if len(e.sockets) == 0 {
		return // still being opened: commit will see
	}
	if e.dispatcher != nil {
		e.dispatcher.handOut()
		e.dispatcher.close()
	}
	for _, h := range e.sockets {
		h.Release()
	}
	e.unlink()
}
