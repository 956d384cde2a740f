package quic

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/netip"
	"sync"
	"time"

	"github.com/go-cluster/cluster"
	"github.com/go-cluster/cluster/internal/flow"
	quicgo "github.com/quic-go/quic-go"
)

// Listener accepts the QUIC connections of this process. [Serve] serves them with an
// http3.Server. Any goroutine may call its methods.
type Listener struct {
	addr      net.Addr
	place     flow.Place // nil in a process that is neither worker nor master
	transport *quicgo.Transport
	quic      accepter // nil in a master
	sockets   sockets

	take     sync.Once     // at the first Accept
	stopped  chan struct{} // closed when shares are read no more
	closed   chan struct{} // closed by Close
	once     sync.Once     // closes closed
	finished sync.Once     // at the end

	mu       sync.Mutex
	conns    map[*connection]struct{} // that are there, those of which the handshake is under way too
	begun    int                      // of them, ever
	unproven int                      // of conns, those with unproven set
	changed  chan struct{}            // closed at the next change of conns
}

// connection is a connection of a Listener.
type connection struct {
	conn     *quicgo.Conn // nil before Accept has returned it
	from     netip.AddrPort
	ctx      context.Context // ends with the connection
	accepted func()          // counts the connection; nil before it has a place
	unproven bool            // nobody has proved the client's address
}

// connectionKey is the key of the connection in its context.
type connectionKey struct{}

// accepter is a quicgo.Listener or a quicgo.EarlyListener.
type accepter interface {
	Accept(context.Context) (*quicgo.Conn, error)
	Close() error
}

// sockets are what a Transport reads from.
type sockets interface {
	net.PacketConn
	// take begins to read the datagrams that begin connections, and leave ends that. leave
	// returns when the Transport has all that was read.
	take()
	leave()
}

// Listen listens for QUIC on the UDP address, for instance ":443". All workers listen on the
// same port, and a connection stays with its worker over a reload: see the package's doc.
//
// conf may be nil. tlsConf must name the application's protocols (NextProtos);
// http3.ConfigureTLSConfig does so for HTTP/3. Listen clones tlsConf. Unless it has a
// SessionTicketKey, the workers share the cluster's ticket keys: see cluster.ShareTickets. If
// conf.Allow0RTT is set, Accept returns connections before their handshake is over, as quic-go's
// EarlyListener does.
//
// In a master that has forked, Listen holds the address open for the workers, and Accept waits
// until Close. In a process that is not a worker and has not forked, it is quic-go's Listen. So
// call cluster.AutoFork first: workers cannot have an address that the master itself has opened
// before.
//
// At its first Accept the worker counts as ready, and gets its part of the new connections. In a
// drain Accept returns the connections whose handshake has begun, for which it has five seconds,
// and then waits. The drain goes on until all connections are closed, by either side. When
// Options.ShutdownTimeout is over, those that are left are closed with the code 0. When the
// master has died they are closed at once, since the next master needs the address.
//
// The error wraps the system's, above all EADDRINUSE. It wraps cluster.ErrNotSupported if this
// is not Linux, if the system refuses the master SO_ATTACH_REUSEPORT_CBPF, or if the master is
// node's. Then each worker can have a port of its own: cluster.ListenConfig{Exclusive:
// true}.ListenPacket, and a Transport of quic-go.
func Listen(address string, tlsConf *tls.Config, conf *quicgo.Config) (*Listener, error) {
	return ListenContext(context.Background(), address, tlsConf, conf)
}

// ListenContext is [Listen] with a ctx that bounds the wait for the master. The listener goes on
// after ctx has ended.
func ListenContext(ctx context.Context, address string, tlsConf *tls.Config, conf *quicgo.Config) (*Listener, error) {
	l := &Listener{stopped: make(chan struct{}), closed: make(chan struct{}), changed: make(chan struct{}), conns: make(map[*connection]struct{})}
	core, _ := cluster.Context().Value(flow.Key{}).(flow.Core)
	place, err := core.Join(ctx, "udp", address)
	if err != nil {
		return nil, err
	}
	l.place = place
	l.transport = &quicgo.Transport{ConnContext: l.began}
	switch {
	case place == nil:
		c, err := net.ListenPacket("udp", address)
		if err != nil {
			return nil, err
		}
		l.addr, l.sockets, l.transport.Conn = c.LocalAddr(), plainSockets{c}, c
	case !cluster.IsWorker():
		l.addr = place.Addr()
		return l, nil
	default:
		l.addr = place.Addr()
		if l.sockets, err = newConn(ctx, place, l.begins); err != nil {
			place.Close()
			return nil, err
		}
		l.transport.Conn = l.sockets
		reset, token := place.Keys()
		l.transport.StatelessResetKey, l.transport.TokenGeneratorKey = (*quicgo.StatelessResetKey)(&reset), (*quicgo.TokenGeneratorKey)(&token)
		l.transport.ConnectionIDGenerator, l.transport.VerifySourceAddress = newIDs(place), l.doubts
	}
	if err := l.serve(tlsConf, conf); err != nil {
		l.transport.Close()
		l.sockets.Close()
		if place != nil {
			place.Close()
		}
		return nil, err
	}
	if cluster.IsWorker() {
		l.endWithWorker()
	}
	return l, nil
}

// serve makes quic-go listen.
func (l *Listener) serve(tlsConf *tls.Config, conf *quicgo.Config) (err error) {
	if tlsConf == nil {
		return errors.New("quic: Listen needs a tls.Config")
	}
	tlsConf = tlsConf.Clone()
	//lint:ignore SA1019 a program may have set it
	if tlsConf.SessionTicketKey == [32]byte{} {
		cluster.ShareTickets(tlsConf)
	}
	choose := tlsConf.GetConfigForClient
	tlsConf.GetConfigForClient = func(hello *tls.ClientHelloInfo) (*tls.Config, error) {
		l.admit(hello.Context())
		if choose == nil {
			return nil, nil
		}
		return choose(hello)
	}
	if conf != nil && conf.Allow0RTT {
		l.quic, err = l.transport.ListenEarly(tlsConf, conf)
	} else {
		l.quic, err = l.transport.Listen(tlsConf, conf)
	}
	return err
}

// endWithWorker ends the listener as its worker ends.
func (l *Listener) endWithWorker() {
	go func() {
		select {
		case <-cluster.Context().Done():
		case <-l.closed:
		}
		l.sockets.leave()
		close(l.stopped)
	}()
	unregister := cluster.OnShutdown(func(ctx context.Context) error {
		l.finish(ctx)
		return nil
	})
	go func() {
		defer unregister()
		select {
		case <-l.place.Orphaned():
			l.end()
		case <-l.closed:
		}
	}()
}

// plainSockets is the one socket of a process that is not a worker.
type plainSockets struct{ net.PacketConn }

func (plainSockets) take()  {}
func (plainSockets) leave() {}

// Addr returns the address, a *net.UDPAddr.
func (l *Listener) Addr() net.Addr { return l.addr }

// Accept returns the next connection. The error is that of ctx if ctx ends, and quic-go's
// ErrServerClosed if the listener is closed.
func (l *Listener) Accept(ctx context.Context) (*quicgo.Conn, error) {
	if l.quic == nil {
		return nil, l.wait(ctx)
	}
	l.take.Do(l.sockets.take)
	conn, err := l.quic.Accept(ctx)
	if err != nil {
		if cluster.IsWorker() && cluster.Context().Err() != nil {
			err = l.wait(ctx) // most programs would exit at an error
		}
		return nil, err
	}
	if c, _ := conn.Context().Value(connectionKey{}).(*connection); c != nil {
		accepted := func() {}
		l.change(func() {
			c.conn = conn
			if c.accepted != nil {
				accepted = c.accepted
			}
		})
		accepted()
		l.provenBy(c, conn)
	}
	return conn, nil
}

// wait waits until nobody waits for a connection any more.
func (l *Listener) wait(ctx context.Context) error {
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-l.closed:
		return quicgo.ErrServerClosed
	}
}

// Close ends Accept. Connections go on, except those that Accept has not returned: they are
// refused.
func (l *Listener) Close() error {
	first := false
	l.once.Do(func() {
		first = true
		close(l.closed)
	})
	if !first {
		return net.ErrClosed
	}
	if l.place != nil {
		l.place.Close()
	}
	if l.quic == nil {
		return nil
	}
	err := l.quic.Close()
	go func() {
		l.await(context.Background(), func() bool { return len(l.conns) == 0 })
		l.end()
	}()
	return err
}

// ---- connections

// began notes a connection whose first datagram has come.
func (l *Listener) began(ctx context.Context, client *quicgo.ClientInfo) (context.Context, error) {
	c := &connection{from: addrPort(client.RemoteAddr), ctx: ctx, unproven: !client.AddrVerified}
	l.change(func() {
		l.conns[c] = struct{}{}
		l.begun++
		if c.unproven {
			l.unproven++
		}
	})
	context.AfterFunc(ctx, func() {
		l.change(func() {
			delete(l.conns, c)
			l.proven(c)
		})
	})
	return context.WithValue(ctx, connectionKey{}, c), nil
}

// admit takes one of the worker's places for a connection whose ClientHello has come. It is not
// called earlier: if a client's first datagrams come to two workers, one of them never gets the
// ClientHello.
func (l *Listener) admit(ctx context.Context) {
	c, _ := ctx.Value(connectionKey{}).(*connection)
	if c == nil || l.place == nil || c.ctx.Err() != nil {
		return
	}
	accepted, ended := l.place.Connects()
	l.change(func() { c.accepted = accepted })
	context.AfterFunc(c.ctx, ended)
}

// begins reports whether a client at the address has a connection here that Accept has not
// returned.
func (l *Listener) begins(addr net.Addr) bool {
	from := addrPort(addr)
	l.mu.Lock()
	defer l.mu.Unlock()
	for c := range l.conns {
		if c.conn == nil && c.from == from {
			return true
		}
	}
	return false
}

func addrPort(addr net.Addr) netip.AddrPort {
	if udp, ok := addr.(*net.UDPAddr); ok {
		return udp.AddrPort()
	}
	return netip.AddrPort{}
}

// change changes the connections, and wakes the callers of await.
func (l *Listener) change(fn func()) {
	l.mu.Lock()
	defer l.mu.Unlock()
	fn()
	close(l.changed)
	l.changed = make(chan struct{})
}

// await returns nil when reached, which is called with l.mu held, returns true.
func (l *Listener) await(ctx context.Context, reached func() bool) error {
	for {
		l.mu.Lock()
		ok, changed := reached(), l.changed
		l.mu.Unlock()
		if ok {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// handshakes counts the connections that Accept has not returned. l.mu is held.
func (l *Listener) handshakes() (n int) {
	for c := range l.conns {
		if c.conn == nil {
			n++
		}
	}
	return n
}

// settleTime is how long no connection must have begun until none is expected any more: quic-go
// takes a moment for what was read.
const settleTime = 100 * time.Millisecond

// handshakeTime bounds a handshake in a drain. If a client's datagrams have come to two workers,
// because its share changed hands just then, one of the two waits in vain.
const handshakeTime = 5 * time.Second

// settle waits in a drain until no handshake is under way any more, or until their time is over.
// No other worker could go on with them.
func (l *Listener) settle(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, handshakeTime)
	defer cancel()
	select {
	case <-l.stopped:
	case <-ctx.Done():
		return ctx.Err()
	}
	for {
		begun := 0
		if err := l.await(ctx, func() bool { begun = l.begun; return l.handshakes() == 0 }); err != nil {
			return err
		}
		quiet, cancel := context.WithTimeout(ctx, settleTime)
		err := l.await(quiet, func() bool { return l.begun != begun })
		cancel()
		if err != nil {
			return ctx.Err()
		}
	}
}

// finish ends the listener in a drain: it waits for the connections, until shortly before ctx
// ends.
func (l *Listener) finish(ctx context.Context) {
	if deadline, ok := ctx.Deadline(); ok {
		var cancel context.CancelFunc
		ctx, cancel = context.WithDeadline(ctx, deadline.Add(-min(time.Until(deadline)/10, time.Second)))
		defer cancel()
	}
	l.settle(ctx)
	l.await(ctx, func() bool { return len(l.conns) == l.handshakes() })
	l.end()
}

// end closes everything.
func (l *Listener) end() {
	l.finished.Do(func() {
		l.mu.Lock()
		var open []*quicgo.Conn
		for c := range l.conns {
			if c.conn != nil {
				open = append(open, c.conn)
			}
		}
		l.mu.Unlock()
		var all sync.WaitGroup
		for _, c := range open {
			all.Go(func() { c.CloseWithError(0, "") })
		}
		all.Wait()
		l.transport.Close()
		l.sockets.Close()
		if l.place != nil {
			l.place.Close()
		}
	})
}

// ids makes connection IDs that lead to this worker.
type ids struct{ prefix []byte }

func newIDs(p flow.Place) ids {
	tag, cookie := p.ID()
	return ids{flow.AppendID(nil, tag, cookie)}
}

func (i ids) ConnectionIDLen() int { return flow.IDLength }

func (i ids) GenerateConnectionID() (quicgo.ConnectionID, error) {
	b := make([]byte, flow.IDLength)
	if _, err := io.ReadFull(rand.Reader, b[copy(b, i.prefix):]); err != nil {
		return quicgo.ConnectionID{}, err
	}
	return quicgo.ConnectionIDFromBytes(b), nil
}
