package share

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"syscall"

	"github.com/go-cluster/cluster/internal/socket"
)

// Bounds of the addresses that workers can make the master open. The master must always have
// descriptors to fork a worker, and one worker must not use up what there is for all.

// maxAddresses bounds how many addresses are open at a time. It is less where this
// process may have few descriptors: an address takes two at most.
const maxAddresses = 1024

// admit returns why m, or this process itself if m is nil, may not have one more address
// opened. If there are too many, an address that only dead workers had makes room. It runs in
// the mailbox.
func (r *Registry) admit(m Member) error {
	bound := min(maxAddresses, socket.Budget()/2)
	if len(r.entries) >= bound && !r.makeRoom() {
		return fmt.Errorf("the cluster holds %d addresses already: %w", len(r.entries), syscall.EMFILE)
	}
	if m == nil {
		return nil
	}
	held := 0
	for _, e := range r.entries {
		if _, ok := e.holders[m]; ok {
			held++
		}
	}
	if held >= bound/2 {
		return fmt.Errorf("this worker holds %d addresses already, half of what there may be: %w", held, syscall.EMFILE)
	}
	return nil
}

// makeRoom ends the oldest of the addresses that nobody listens on, and that are open only
// because a successor of a worker may ask for them. It returns false if there is none.
func (r *Registry) makeRoom() bool {
	var oldest *entry
	for _, e := range r.entries {
		if len(e.sockets) > 0 && len(e.holders) == 0 && e.held == 0 && e.granted && (oldest == nil || e.nth < oldest.nth) {
			oldest = e
		}
	}
	if oldest == nil {
		return false
	}
	r.drop(oldest, false)
	return true
}

// openWithin is open without using the descriptors that are kept for this process.
func (r *Registry) openWithin(ctx context.Context, q Query) (o opened, err error) {
	for {
		o, err = socket.WhileInUse(ctx, r.host.Patience, func() (opened, error) { return r.open(ctx, q) })
		if err == nil {
			if o.fit() {
				for _, h := range o.sockets {
					h.CloseBy(r.closer.Close)
				}
				return o, nil
			}
			o.unlink()
			err = fmt.Errorf("the other descriptors of the master are kept for new workers: %w", syscall.EMFILE)
		}
		if !errors.Is(err, syscall.EMFILE) {
			return o, err
		}
		room := false
		r.host.Turn(func() { room = r.makeRoom() })
		if !room {
			return o, err
		}
	}
}

// fit is [socket.Fit] for all sockets of o. If one does not fit, all are released.
func (o opened) fit() bool {
	for i, h := range o.sockets {
		if o.sockets[i] = socket.Fit(h); o.sockets[i] != nil {
			continue
		}
		for _, h := range slices.Concat(o.sockets[:i], o.sockets[i+1:]) {
			h.Release()
		}
		return false
	}
	return true
}
