package share

// How an address ends: here connections are no longer kept waiting for workers to
// come, but refused. All of this runs in the mailbox.

// Close notes that m has closed its listener. If m stays and nobody else listens on
// the address, that ends. A worker on its way out did not close it for good: its
// successor will come.
func (r *Registry) Close(m Member, key string, stays bool) {
	e := r.entries[key]
	if e == nil {
		r.Flows.close(m, key, stays)
		return
	}
	_, held := e.holders[m]
	delete(e.holders, m)
	if e.dispatcher != nil {
		e.dispatcher.remove(m)
	}
	r.Shards.part(e, m)
	if held && stays && !m.Leaving() {
		r.endUnused(e)
	}
}

// letGo is Close for what this process itself listens on.
func (r *Registry) letGo(e *entry) {
	for e.heir != nil {
		e = e.heir
	}
	e.held--
	if r.entries[e.key] == e {
		r.endUnused(e)
	}
}

// Outdate ends, after a reload, the addresses that nobody listens on and that no
// worker of a generation after the given one has asked for. Unless slots is true, the
// workers of slots are still to come, so that those that one of them has had stay.
func (r *Registry) Outdate(generation int, slots bool) {
	for _, e := range r.entries {
		if e.generation <= generation && (slots || e.granted && !e.slotted) {
			r.endUnused(e)
		}
	}
	r.Flows.outdate(generation, slots)
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
	r.drop(e, false)
}

// renew ends an address whose file somebody has removed, if m is of a newer program
// than all that have asked for it: it is then opened anew, for the workers to come.
// Those of before go on with what they have. It is called outside of the mailbox.
func (r *Registry) renew(key string, m Member) {
	var old *entry
	r.host.Turn(func() {
		if e := r.entries[key]; e != nil && e.file != nil && m != nil && m.Generation() > e.generation {
			old = e
		}
	})
	if old == nil || !old.file.Gone() {
		return
	}
	r.host.Turn(func() {
		if r.entries[key] == old {
			r.drop(old, false)
			r.bequeath(old)
		}
	})
}

// bequeath lets the next entry with e's key be held as often as e, which has ended
// although this process listens on it.
func (r *Registry) bequeath(e *entry) {
	if e.held > 0 {
		r.bereft[e.key] = e
	}
}

// CloseAll ends all addresses, at the beginning of a stop. Workers that have the
// socket take what waits in its queue; what is asked for later is not opened for
// them, since they are on their way out. What is kept beyond this process is closed here
// only: clients wait for the next one.
func (r *Registry) CloseAll() {
	clear(r.bereft)
	for _, e := range r.entries {
		kept := r.Stored.outlives(e)
		if kept {
			e.unlink = func() {} // it is reached by its file as before
		}
		r.drop(e, kept)
	}
	r.Flows.closeAll()
}

// drop closes e here. kept says that its sockets stay open elsewhere, for the next process.
func (r *Registry) drop(e *entry, kept bool) {
	delete(r.entries, e.key)
	if !kept {
		r.Stored.unstore(e)
	}
	if len(e.sockets) == 0 {
		return // still being opened: commit will see
	}
	if e.dispatcher != nil {
		e.dispatcher.handOut(!kept)
		e.dispatcher.close()
	}
	if e.shards != nil {
		r.Shards.unwatch(e.sockets)
	}
	for _, h := range e.sockets {
		r.unwatch(h)
		h.Release()
	}
	e.unlink()
}
