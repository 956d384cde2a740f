package quic

import (
	"context"
	"errors"
	"net"
	"os"
	"slices"
	"sync"
	"time"

	"github.com/go-cluster/cluster/internal/flow"
	"golang.org/x/net/ipv4"
	"golang.org/x/sys/unix"
)

// conn is the PacketConn of a Transport. It writes by the worker's own socket, and reads from
// that socket and from the shares. It has the methods of a *net.UDPConn that quic-go uses for
// ECN, GSO and batches, and ReadBatch.
type conn struct {
	*net.UDPConn // the worker's own
	place        flow.Place
	begins       func(net.Addr) bool // whether a handshake with the client is under way
	batches      chan *batch
	pool         sync.Pool
	closed       chan struct{}
	once         sync.Once // closes it
	deadline     deadline

	rest *batch // datagrams that ReadBatch has not returned yet; only one goroutine calls it

	reading sync.WaitGroup // of shares
	wake    chan struct{}  // has one element when wanted has changed

	mu         sync.Mutex
	wanted     []int // shares
	left       bool  // none any more
	shares     map[int]*share
	readBuffer int // bytes; 0 is the system's
}

// share is a socket to which the datagrams come that begin connections.
type share struct {
	*net.UDPConn
	reads bool          // is to be read
	done  chan struct{} // closed when the last reader has ended; nil without one
}

// batch is what one read has brought.
type batch struct {
	messages []ipv4.Message
	share    bool // it was read from a share
	from, n  int  // messages[from:n] have not been returned
}

const (
	batchSize  = 8
	packetSize = 1500 // quic-go takes 1452 bytes
	oobSize    = 128
)

func newBatch() any {
	b := &batch{messages: make([]ipv4.Message, batchSize)}
	for i := range b.messages {
		b.messages[i].Buffers = [][]byte{make([]byte, packetSize)}
		b.messages[i].OOB = make([]byte, oobSize)
	}
	return b
}

// newConn gets the worker's own socket and begins to read it.
func newConn(ctx context.Context, place flow.Place, begins func(net.Addr) bool) (sockets, error) {
	own, err := place.Own(ctx)
	if err != nil {
		return nil, err
	}
	c := &conn{UDPConn: own, place: place, begins: begins, batches: make(chan *batch), closed: make(chan struct{}),
		wake: make(chan struct{}, 1), shares: make(map[int]*share)}
	c.pool.New = newBatch
	c.deadline.init()
	go c.readAll(own, false)
	go c.follow()
	return c, nil
}

// readAll reads s, which may be a share, until its read deadline has passed or it is
// closed.
func (c *conn) readAll(s *net.UDPConn, share bool) {
	source := ipv4.NewPacketConn(s)
	for {
		b := c.pool.Get().(*batch)
		n, err := source.ReadBatch(b.messages, 0)
		switch {
		case err == nil:
		case errors.Is(err, os.ErrDeadlineExceeded), errors.Is(err, net.ErrClosed):
			return
		default: // the error is about a datagram that could not be sent; the next read may succeed
			select {
			case <-time.After(time.Millisecond):
				continue
			case <-c.closed:
				return
			}
		}
		if share {
			c.place.Received()
		}
		b.share, b.from, b.n = share, 0, n
		select {
		case c.batches <- b:
		case <-c.closed:
			return
		}
	}
}

// ---- shares

// take begins to read the shares that the master says from now on.
func (c *conn) take() {
	c.place.Take(func(shares []int) {
		c.mu.Lock()
		if !c.left {
			c.wanted = shares
		}
		c.mu.Unlock()
		select {
		case c.wake <- struct{}{}:
		default:
		}
	})
}

// leave ends the reads of shares. It returns when the Transport has all that was read.
func (c *conn) leave() {
	c.mu.Lock()
	c.left, c.wanted = true, nil
	c.mu.Unlock()
	c.readWanted()
	c.reading.Wait()
}

// againTime is the time until a share that could not be opened is tried again.
const againTime = time.Second

// follow opens the shares that are wanted, and begins to read them, until Close.
func (c *conn) follow() {
	ctx, cancel := context.WithCancel(context.Background())
	go func() {
		<-c.closed
		cancel()
	}()
	var again <-chan time.Time
	for {
		select {
		case <-c.wake:
		case <-again:
		case <-c.closed:
			return
		}
		again = nil
		for _, index := range c.missing() {
			s, err := c.place.Share(ctx, index)
			if err != nil { // no descriptor is free; or the channel is closed, or this conn
				again = time.After(againTime)
				break
			}
			c.mu.Lock()
			c.prepare(s)
			c.shares[index] = &share{UDPConn: s}
			c.mu.Unlock()
		}
		c.readWanted()
	}
}

// missing returns the shares that are wanted and not open.
func (c *conn) missing() (all []int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, index := range c.wanted {
		if c.shares[index] == nil {
			all = append(all, index)
		}
	}
	return all
}

// readWanted begins to read the open shares that are wanted, and ends the reads of the others.
// After Close it closes all shares.
func (c *conn) readWanted() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for index, s := range c.shares {
		if c.isClosed() {
			s.Close()
			continue
		}
		wanted := slices.Contains(c.wanted, index)
		if wanted && !s.reads {
			before, done := s.done, make(chan struct{})
			s.done = done
			c.reading.Go(func() { c.readShare(s, before, done) })
		} else if s.reads && !wanted {
			s.SetReadDeadline(time.Unix(1, 0))
		}
		s.reads = wanted
	}
}

// readShare reads s when its reader before has ended, if it is still wanted then.
func (c *conn) readShare(s *share, before, done chan struct{}) {
	defer close(done)
	if before != nil {
		<-before
	}
	c.mu.Lock()
	wanted := s.reads
	if wanted {
		s.SetReadDeadline(time.Time{})
	}
	c.mu.Unlock()
	if wanted {
		c.readAll(s.UDPConn, true)
	}
}

// prepare sets on a share the options that quic-go sets on the worker's own socket: those for
// ECN, and for the address to which the client has sent. If the socket has only one family,
// the options of the other one fail. c.mu is held.
func (c *conn) prepare(s *net.UDPConn) {
	if c.readBuffer > 0 {
		s.SetReadBuffer(c.readBuffer)
	}
	raw, err := s.SyscallConn()
	if err != nil {
		return
	}
	raw.Control(func(fd uintptr) {
		unix.SetsockoptInt(int(fd), unix.IPPROTO_IP, unix.IP_RECVTOS, 1)
		unix.SetsockoptInt(int(fd), unix.IPPROTO_IPV6, unix.IPV6_RECVTCLASS, 1)
		if c.place.Addr().(*net.UDPAddr).IP.IsUnspecified() {
			unix.SetsockoptInt(int(fd), unix.IPPROTO_IP, unix.IP_PKTINFO, 1)
			unix.SetsockoptInt(int(fd), unix.IPPROTO_IPV6, unix.IPV6_RECVPKTINFO, 1)
		}
	})
}

// ---- what the Transport calls

// ReadBatch returns datagrams of any of the sockets: at least one, or an error.
func (c *conn) ReadBatch(into []ipv4.Message, _ int) (n int, err error) {
	for n == 0 && len(into) > 0 {
		if c.rest == nil {
			select {
			case c.rest = <-c.batches:
			case <-c.deadline.passed():
				return 0, os.ErrDeadlineExceeded
			case <-c.closed:
				return 0, net.ErrClosed
			}
		}
		b := c.rest
		for ; n < len(into) && b.from < b.n; b.from++ {
			if b.share && c.place.Full() && !c.begins(b.messages[b.from].Addr) {
				continue // the worker is full: the client sends it again, and another worker may have room
			}
			copyMessage(&into[n], &b.messages[b.from])
			n++
		}
		if b.from == b.n {
			c.pool.Put(b)
			c.rest = nil
		}
	}
	return n, nil
}

// copyMessage copies a datagram.
func copyMessage(to, from *ipv4.Message) {
	to.N = copy(to.Buffers[0], from.Buffers[0][:from.N])
	to.NN = copy(to.OOB, from.OOB[:from.NN])
	to.Flags, to.Addr = from.Flags, from.Addr
}

// ReadMsgUDP is ReadBatch for one datagram.
func (c *conn) ReadMsgUDP(b, oob []byte) (n, oobn, flags int, from *net.UDPAddr, err error) {
	one := []ipv4.Message{{Buffers: [][]byte{b}, OOB: oob}}
	if _, err := c.ReadBatch(one, 0); err != nil {
		return 0, 0, 0, nil, err
	}
	from, _ = one[0].Addr.(*net.UDPAddr)
	return one[0].N, one[0].NN, one[0].Flags, from, nil
}

// ReadFrom is ReadBatch for one datagram.
func (c *conn) ReadFrom(b []byte) (n int, from net.Addr, err error) {
	n, _, _, udp, err := c.ReadMsgUDP(b, nil)
	if err != nil {
		return 0, nil, err
	}
	return n, udp, nil
}

// LocalAddr returns the address of the group.
func (c *conn) LocalAddr() net.Addr { return c.place.Addr() }

// SetReadBuffer sets the size of the receive buffer of all sockets, in bytes, and of those that
// are opened later.
func (c *conn) SetReadBuffer(bytes int) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.readBuffer = bytes
	for _, s := range c.shares {
		s.SetReadBuffer(bytes)
	}
	return c.UDPConn.SetReadBuffer(bytes)
}

// SetReadDeadline bounds ReadBatch. The reads of the sockets go on.
func (c *conn) SetReadDeadline(t time.Time) error {
	c.deadline.set(t)
	return nil
}

// SetDeadline sets the deadlines of reads and writes.
func (c *conn) SetDeadline(t time.Time) error {
	c.deadline.set(t)
	return c.UDPConn.SetWriteDeadline(t)
}

func (c *conn) isClosed() bool {
	select {
	case <-c.closed:
		return true
	default:
		return false
	}
}

// Close closes this worker's descriptors of all sockets. Other workers that have a share too go
// on reading it.
func (c *conn) Close() error {
	err := net.ErrClosed
	c.once.Do(func() {
		close(c.closed)
		err = c.UDPConn.Close()
		c.readWanted()
	})
	return err
}

// deadline is a time for which goroutines can wait.
type deadline struct {
	mu    sync.Mutex
	over  chan struct{} // closed when it has passed
	timer *time.Timer
}

func (d *deadline) init() { d.over = make(chan struct{}) }

func (d *deadline) passed() <-chan struct{} {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.over
}

// set sets the time; the zero Time never comes.
func (d *deadline) set(t time.Time) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.timer != nil && !d.timer.Stop() {
		d.timer = nil // the timer is about to close the channel
		d.over = make(chan struct{})
	}
	select {
	case <-d.over:
		d.over = make(chan struct{})
	default:
	}
	d.timer = nil
	if t.IsZero() {
		return
	}
	over := d.over
	if until := time.Until(t); until > 0 {
		d.timer = time.AfterFunc(until, func() { close(over) })
	} else {
		close(over)
	}
}
