package cluster

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/signal"
	"sync"
	"sync/atomic"
	"syscall"
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
	in.watchSignals() // before online: whoever has seen that may send one
	online := &wire{Act: actOnline}
	if in.goMaster() {
		online.Go = &extension{Version: protocolVersion}
	}
	p.link.order(online)
	go p.link.read()
	return p
}

// goMaster reports whether the master speaks more than node's protocol.
func (in *inside) goMaster() bool { return in.hello.Version >= protocolVersion }

// watchSignals makes SIGTERM a drain, and leaves to the master what a terminal
// sends to all its processes at once.
func (in *inside) watchSignals() {
	// Not signal.Ignore, which this worker's own children would inherit.
	signal.Notify(make(chan os.Signal, 1), groupSignals...)
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

// ---- listening

// grant is what the master gave for an address: a shared socket, or the key of
// one that it accepts on itself.
type grant struct {
	key  string
	h    *handle
	addr net.Addr
}

// ask asks the master for t, whose index it sets. It waits while the worker is
// being drained.
func (in *inside) ask(ctx context.Context, t *target) (g grant, err error) {
	if err := in.waitDrained(ctx); err != nil {
		return g, listenError(*t, err, "")
	}
	if t.address != "" && t.network == "unixgram" && !in.goMaster() {
		return g, listenError(*t, fmt.Errorf("a node primary shares no unixgram sockets: %w", ErrNotSupported), "")
	}
	in.takeIndex(t)
	if !in.goMaster() && t.index > 0 && t.port() != 0 {
		// Node's versions each go wrong in their own way about the second listen of
		// one worker on one address; some give the first one's socket again.
		in.dropIndex(*t)
		return g, listenError(*t, syscall.EADDRINUSE, "this worker listens there already")
	}
	type reply struct {
		w *wire
		h *handle
	}
	replied := make(chan reply, 1)
	in.p.link.ask(t.query(), func(w *wire, h *handle) { replied <- reply{w, h} })
	var r reply
	select {
	case r = <-replied:
	case <-ctx.Done():
		go func() { // the socket may still come
			r := <-replied
			r.h.release()
			if r.w != nil && r.w.Key != "" {
				in.p.link.order(&wire{Act: actClose, Key: r.w.Key})
			}
			in.dropIndex(*t)
		}()
		return g, listenError(*t, ctx.Err(), "")
	}
	if r.w == nil {
		// The channel is closed, so this worker is at its end: as in a drain.
		<-ctx.Done()
		return g, listenError(*t, ctx.Err(), "")
	}
	if g, err = in.granted(*t, r.w, r.h); err != nil {
		r.h.release()
		in.dropIndex(*t)
		return grant{}, err
	}
	return g, nil
}

// granted reads the master's answer.
func (in *inside) granted(t target, w *wire, h *handle) (grant, error) {
	if w.Errno != nil && *w.Errno != 0 {
		return grant{}, remoteListenError(t, w)
	}
	g := grant{key: w.Key, h: h}
	if h == nil {
		g.addr = sockaddrOf(t, w.Sockname)
	} else if (w.Go == nil || !w.Go.Listening) && !isPacket(t.network) {
		if err := listenBound(h, t); err != nil {
			// The primary believes that this worker has it, and a second question
			// for the same would crash node 20.
			in.p.link.order(&wire{Act: actClose, Key: w.Key})
			return grant{}, listenError(t, err, "")
		}
	}
	in.mu.Lock()
	in.keys[g.key] = true
	in.mu.Unlock()
	return g, nil
}

// remoteListenError is why the master did not open the address.
func remoteListenError(t target, w *wire) error {
	err := error(errnoOf(*w.Errno))
	hint := "the primary opens it"
	if w.Go != nil {
		if w.Go.UID != nil {
			hint = uidText(*w.Go.UID)
		}
		if r := w.Go.Reason; r != "" {
			hint = r + "; " + hint
		}
	}
	return listenError(t, err, hint)
}

// takeIndex gives t the lowest index that is free for its address in this
// worker, so that the n-th listen on port 0 is the same in every worker.
func (in *inside) takeIndex(t *target) {
	in.mu.Lock()
	defer in.mu.Unlock()
	key := indexKey(*t)
	if in.indexes[key] == nil {
		in.indexes[key] = make(map[int]bool)
	}
	for t.index = 0; in.indexes[key][t.index]; t.index++ {
	}
	in.indexes[key][t.index] = true
}

func (in *inside) dropIndex(t target) {
	in.mu.Lock()
	defer in.mu.Unlock()
	key := indexKey(t)
	delete(in.indexes[key], t.index)
	if len(in.indexes[key]) == 0 {
		delete(in.indexes, key)
	}
}

func indexKey(t target) string { return t.network + " " + t.address }

// opened reports a listener to the master. The first one makes it ready.
func (in *inside) opened(t target, addr net.Addr) {
	in.p.link.order(t.listening(addr))
	if !in.hello.ManualReady {
		in.p.advance(Ready)
	}
}

// closed gives back what ask got.
func (in *inside) closed(t target, key string) {
	in.mu.Lock()
	delete(in.keys, key)
	in.mu.Unlock()
	in.p.link.order(&wire{Act: actClose, Key: key})
	in.dropIndex(t)
}

// listen is Listen in a worker.
func (in *inside) listen(ctx context.Context, t target, lc ListenConfig) (net.Listener, error) {
	if lc.Exclusive {
		if err := in.waitDrained(ctx); err != nil {
			return nil, listenError(t, err, "")
		}
		ln, err := openListener(ctx, t, lc.KeepAlive)
		if err != nil {
			return nil, listenError(t, err, "this worker opens it, for itself")
		}
		return in.newListener(t, ln, net.KeepAliveConfig{}, t.addr(ln.Addr()), in.ownFile(t)), nil
	}
	g, err := in.ask(ctx, &t)
	if err != nil {
		return nil, err
	}
	release := func() { in.closed(t, g.key) }
	if !in.goMaster() {
		// A node primary knows two modes of a socket's file, and not before bind.
		if err := t.chmod(); err != nil {
			g.h.release()
			release()
			return nil, listenError(t, err, "this worker sets the mode")
		}
	}
	if g.h == nil {
		r := in.newRobin(g.key)
		return in.newListener(t, r, lc.KeepAlive, t.addr(g.addr), release), nil
	}
	defer g.h.release()
	ln, err := listenerOf(g.h)
	if err != nil {
		release()
		return nil, listenError(t, err, "")
	}
	return in.newListener(t, ln, lc.KeepAlive, t.addr(ln.Addr()), release), nil
}

// ownFile sees to the file of a unix socket that is this worker's alone: it goes
// with release, or at the end of the drain.
func (in *inside) ownFile(t target) (release func()) {
	if !isUnix(t.network) {
		return func() {}
	}
	unlink := unlinker(t)
	in.mu.Lock()
	defer in.mu.Unlock()
	in.files[t.address] = unlink
	return func() {
		in.mu.Lock()
		delete(in.files, t.address)
		in.mu.Unlock()
		unlink()
	}
}

// removeFiles is the end of all that ownFile sees to.
func (in *inside) removeFiles() {
	in.mu.Lock()
	defer in.mu.Unlock()
	for _, unlink := range in.files {
		unlink()
	}
}

// listenPacket is ListenPacket in a worker.
func (in *inside) listenPacket(ctx context.Context, t target, lc ListenConfig) (net.PacketConn, error) {
	if lc.Exclusive {
		if err := in.waitDrained(ctx); err != nil {
			return nil, listenError(t, err, "")
		}
		c, err := openPacket(ctx, t)
		if err != nil {
			return nil, listenError(t, err, "this worker opens it, for itself")
		}
		return in.newPacketConn(t, c, in.ownFile(t)), nil
	}
	g, err := in.ask(ctx, &t)
	if err != nil {
		return nil, err
	}
	defer g.h.release()
	release := func() { in.closed(t, g.key) }
	if g.h == nil {
		release()
		return nil, listenError(t, ErrNotSupported, "the master sent no socket")
	}
	c, err := packetConnOf(g.h)
	if err != nil {
		release()
		return nil, listenError(t, err, "")
	}
	return in.newPacketConn(t, c, release), nil
}

// sockaddrOf is the address of a socket that stays in the master.
func sockaddrOf(t target, s *sockname) net.Addr {
	if isUnix(t.network) {
		return &net.UnixAddr{Name: t.named, Net: t.network}
	}
	if s == nil { // node's answer without one: what was asked for
		a, _ := net.ResolveTCPAddr("tcp", t.address)
		return a
	}
	return &net.TCPAddr{IP: net.ParseIP(s.Address), Port: s.Port}
}
