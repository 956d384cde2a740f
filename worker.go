package cluster

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"sync"
	"sync/atomic"
	"time"
)

// inside is the worker's own half of its Process: what it listens on, what is
// in flight, and how it ends. The drain is in drain.go.
type inside struct {
	p     *Process
	hello announcement
	drain drain

	checking atomic.Bool // OnCheck functions are being called

	mu        sync.Mutex
	indexes   map[string]map[int]bool // open listens by target.key
	robins    map[string]*robin       // sockets that the master accepts on, by the master's key
	keys      map[string]bool         // the master's keys of what is open
	stoppers  map[stopper]struct{}    // what a drain stops
	conns     map[*track]struct{}     // accepted and not closed
	accepted  int64                   // connections, ever
	accepting int                     // Accept calls that may come back with a connection
	files     map[string]func()       // remove the unix sockets that are this worker's alone, by path
}

// stopper is something that a drain stops from taking on work.
type stopper interface{ stop() }

// newWorker begins this process's life as worker id.
func newWorker(id int, ch *channel, hello announcement) *Process {
	p := newProcess(id, hello.Slot)
	p.pid = os.Getpid()
	in := &inside{
		p: p, hello: hello,
		indexes:  make(map[string]map[int]bool),
		robins:   make(map[string]*robin),
		keys:     make(map[string]bool),
		stoppers: make(map[stopper]struct{}),
		conns:    make(map[*track]struct{}),
		files:    make(map[string]func()),
	}
	in.drain.init()
	p.inside = in
	p.connected.Store(true)
	p.advance(Online)
	peer := peerNode
	if in.goMaster() {
		peer = peerGo
	}
	p.link = newLink(ch, p, &workerSide{in: in}, peer, &Options{MaxMessage: hello.MaxMessage, MaxQueue: hello.MaxQueue})
	live.add(p)
	in.watchTerm() // before online: whoever has seen that may send it
	online := &wire{Act: actOnline}
	if in.goMaster() {
		online.Go = &extension{Version: protocolVersion}
	}
	p.link.order(online)
	leaveGroupSignals()
	go p.link.work(job{read: true})
	return p
}

// goMaster reports whether the master speaks more than node's protocol.
func (in *inside) goMaster() bool { return in.hello.Version >= protocolVersion }

// leaveGroupSignals leaves to the master what a terminal sends to all its
// processes at once. For each signal the runtime switches to a thread of its own
// and back, which nobody has to wait for: one that comes before meets a worker
// that does not listen yet.
func leaveGroupSignals() {
	// Not signal.Ignore, which this worker's own children would inherit.
	signal.Notify(make(chan os.Signal, 1), groupSignals...)
}

// watchTerm makes SIGTERM a drain.
func (in *inside) watchTerm() {
	term := make(chan os.Signal, 1)
	signal.Notify(term, termSignal)
	go func() {
		for range term {
			in.beginDrain(byOther, in.hello.ShutdownTimeout)
		}
	}()
}

// workerSide is what a worker does with the master's internal messages.
type workerSide struct {
	in   *inside
	over sync.Once // overrun
}

func (s *workerSide) internal(w *wire, h *handle) {
	switch w.Act {
	case actNewConn:
		s.in.offered(w, h)
		return
	case actPing:
		s.in.pinged()
	case actStderr:
		if h != nil {
			takeStderr(h)
		}
	case actDisconnect:
		timeout := s.in.hello.ShutdownTimeout
		if w.Go != nil && w.Go.Timeout > 0 {
			timeout = time.Duration(w.Go.Timeout) * time.Millisecond
		}
		s.in.p.voluntary.Store(true)
		s.in.beginDrain(byMaster, timeout)
	}
	h.release()
}

// closed is the end of the channel: of this worker's own making at the end of a
// drain, or the master is gone, and then there is no reason to live on.
func (s *workerSide) closed() {
	p := s.in.p
	p.connected.Store(false)
	p.advance(Disconnected)
	p.emitDisconnect()
	s.in.beginDrain(byOrphan, s.in.hello.ShutdownTimeout)
}

func (s *workerSide) overrun() {
	s.over.Do(func() {
		s.in.p.report(fmt.Errorf("cluster: the master asks and does not read the answers; giving up on it: %w", ErrBacklog))
		s.in.p.link.close()
	})
}

// handshakeTimeout bounds the wait for the master's word that it knows that
// this worker's end is voluntary.
const handshakeTimeout = 5 * time.Second

// sayVoluntary tells the master that what follows was asked for, and waits until
// it knows.
func (in *inside) sayVoluntary(ctx context.Context) {
	in.p.voluntary.Store(true)
	known := make(chan struct{})
	in.p.link.ask(&wire{Act: actVoluntary}, func(_ *wire, h *handle) {
		h.release()
		close(known)
	})
	ctx, cancel := context.WithTimeout(ctx, handshakeTimeout)
	defer cancel()
	select {
	case <-known:
	case <-ctx.Done():
	}
}

func (in *inside) disconnect(ctx context.Context) error {
	if in.p.IsConnected() {
		in.sayVoluntary(ctx)
	}
	in.beginDrain(bySelf, in.hello.ShutdownTimeout)
	select {
	case <-in.drain.closed:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (in *inside) kill(sig ...os.Signal) error {
	for _, s := range sig {
		if err := deliverable(s); err != nil {
			return callError("Kill", err)
		}
	}
	if in.p.IsConnected() {
		in.sayVoluntary(context.Background())
		ctx, cancel := context.WithTimeout(context.Background(), handshakeTimeout)
		in.p.link.flush(ctx)
		cancel()
	}
	if len(sig) == 0 {
		os.Exit(0)
	}
	self, err := os.FindProcess(os.Getpid())
	if err != nil {
		return callError("Kill", err)
	}
	for _, s := range sig {
		if err := self.Signal(s); err != nil {
			return callError("Kill", err)
		}
	}
	return nil
}

func (in *inside) ready() error {
	if !in.p.IsConnected() {
		return callError("Ready", ErrClosed)
	}
	in.p.advance(Ready)
	if !in.goMaster() {
		return nil
	}
	return in.p.link.orderOurs(actReady)
}
