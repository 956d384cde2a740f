package share

// How an address ends. From then on connections are refused and do not wait for workers to
// come. All of this runs in the mailbox.

// Close notes that m has closed its listener. If m goes on (stays) and nobody else listens on
// the address, the address ends. If m is on its way out, it does not: a successor of m will
// come.
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

// letGo is Close for an address that this process itself listens on.
func (r *Registry) letGo(e *entry) {
	for e.heir != nil {
		e = e.heir
	}
	e.held--
	if r.entries[e.key] == e {
		r.endUnused(e)
	}
}

// Outdate ends addresses after a reload: those that nobody listens on, and that no worker of a
// generation after the given one has asked for. Unless slots is true, the new workers of slots
// are still to come, so addresses that a worker of a slot had stay.
func (r *Registry) Outdate(generation int, slots bool) {
	for _, e := range r.entries {
		if e.generation <= generation && (slots || e.granted && !e.slotted) {
			r.endUnused(e)
		}
	}
	r.Flows.outdate(generation, slots)
}

// EndUnused ends the address with the key if nobody listens on it.
func EndUnused(r *Registry, key string) {
	if e := r.entries[key]; e != nil {
		r.endUnused(e)
	}
}

// endUnused ends e if it is open and nobody listens on it, apart from workers on their way
// out.
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

// renew ends an address whose file somebody has removed, if m runs a newer program than all
// workers that have asked for the address. It is then opened anew for the workers to come. The
// earlier workers go on with the socket that they have. renew is called outside of the
// mailbox.
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

// bequeath makes the next entry with e's key be held as often as e: e has ended although this
// process listens on it.
func (r *Registry) bequeath(e *entry) {
	if e.held > 0 {
		r.bereft[e.key] = e
	}
}

// CloseAll ends all addresses, at the beginning of a stop. Workers that have a socket take the
// connections in its queue. Nothing more is opened for them, since they are on their way out.
// Sockets that a service manager keeps are closed only in this process, and clients wait for
// the next one.
func (r *Registry) CloseAll() {
	clear(r.bereft)
	for _, e := range r.entries {
		kept := r.Stored.outlives(e)
		if kept {
			e.unlink = func() {} // clients reach the kept socket by its file
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
		return // still being opened: commit drops it
	}
	if e.dispatcher != nil {
		e.dispatcher.handOut(!kept)
		e.dispatcher.close()
	}
	if e.shards != nil && !e.shards.all {
		r.Shards.unwatch(e.sockets)
	}
	for _, h := range e.sockets {
		r.unwatch(h)
		h.Release()
	}
	e.unlink()
}
