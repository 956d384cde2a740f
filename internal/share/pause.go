package share

import (
	"context"
	"sync"

	"github.com/go-cluster/cluster/internal/handle"
	"github.com/go-cluster/cluster/internal/socket"
)

// acceptPause is the pause of a dispatcher. Its flags are guarded by the dispatcher's
// lock.
type acceptPause struct {
	accepting sync.WaitGroup // goroutines
	held      bool           // nothing is accepted
	frozen    bool           // nor handed over
}

func (d *dispatcher) pauses() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.pause.held && !d.closed
}

// hold ends the accepting. What was accepted is handed over.
func (d *dispatcher) hold(ctx context.Context) error {
	d.mu.Lock()
	if d.pause.held || d.closed {
		d.mu.Unlock()
		return nil
	}
	d.pause.held = true
	d.changed.Broadcast()
	d.mu.Unlock()
	for _, sock := range d.socks {
		if d.lent {
			go sock.Close()
		} else {
			sock.Close()
		}
	}
	ended := make(chan struct{})
	go func() {
		d.pause.accepting.Wait()
		close(ended)
	}()
	select {
	case <-ended:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// freeze reports whether all workers have answered for the connections that they were handed.
// If so, nothing is handed over from then on.
func (d *dispatcher) freeze() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.pause.frozen = d.flying == 0
	return d.pause.frozen
}

// goOnAccepting ends the pause.
func (d *dispatcher) goOnAccepting(sockets []*handle.Handle) {
	d.mu.Lock()
	if !d.pause.held || d.closed {
		d.mu.Unlock()
		return
	}
	d.mu.Unlock()
	d.pause.accepting.Wait()
	var socks []*socket.Acceptor
	for _, h := range sockets {
		sock, err := socket.NewAcceptor(h, d.lent)
		if err != nil {
			d.failed(err)
			continue
		}
		socks = append(socks, sock)
	}
	d.mu.Lock()
	d.socks = socks
	d.pause.held, d.pause.frozen = false, false
	d.mu.Unlock()
	d.beginAccepting()
	d.mu.Lock()
	d.dispatch()
}

// Pause ends the accepting of r, until Resume. It is called outside of the mailbox.
func Pause(ctx context.Context, r *Registry) error {
	for _, e := range dispatching(r) {
		if err := e.dispatcher.hold(ctx); err != nil {
			return err
		}
	}
	return nil
}

// Frozen reports whether all workers have answered for the connections that they were handed.
// If so, nothing is handed over until Resume.
func Frozen(r *Registry) bool {
	frozen := true
	for _, e := range dispatching(r) {
		frozen = e.dispatcher.freeze() && frozen
	}
	return frozen
}

// Resume ends the pause.
func Resume(r *Registry) {
	for _, e := range dispatching(r) {
		e.dispatcher.goOnAccepting(e.sockets)
	}
}

// dispatching returns the addresses for which the master accepts.
func dispatching(r *Registry) (all []*entry) {
	r.host.Turn(func() {
		for _, e := range r.entries {
			if e.dispatcher != nil {
				all = append(all, e)
			}
		}
	})
	return all
}
