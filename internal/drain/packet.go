package drain

import (
	"errors"
	"net"
	"sync"
	"syscall"
	"time"
)

// PacketSource is a datagram socket as package net has them.
type PacketSource interface {
	net.PacketConn
	syscall.Conn
	SetReadBuffer(bytes int) error
	SetWriteBuffer(bytes int) error
}

// packetConn is a worker's datagram socket. Its reads wait during a drain;
// writes still work, so that what was read can be answered.
type packetConn struct {
	PacketSource
	tracker *Tracker
	addr    net.Addr
	release func()
	asks    func() // the program asks for a datagram
	calls   calls

	once   sync.Once // closes
	closed chan struct{}
}

// PacketConn wraps source, whose address is given as addr. release is called when
// it is closed.
func (t *Tracker) PacketConn(source PacketSource, addr net.Addr, release func()) net.PacketConn {
	return t.packetConn(source, addr, release, t.asks)
}

func (t *Tracker) packetConn(source PacketSource, addr net.Addr, release, asks func()) net.PacketConn {
	c := &packetConn{PacketSource: source, tracker: t, addr: addr, release: release, asks: asks, closed: make(chan struct{})}
	t.enter(c)
	if udp, ok := source.(udpSource); ok {
		return &udpConn{c, udp}
	}
	return c
}

// SyscallConn gives access to this worker's descriptor of the socket.
func (c *packetConn) SyscallConn() (syscall.RawConn, error) {
	raw, err := c.PacketSource.SyscallConn()
	if err != nil {
		return nil, err
	}
	return &rawPacketConn{raw, c}, nil
}

// Unsendable returns why another process cannot have the socket, or nil if it can.
func (c *packetConn) Unsendable() error { return unsendable(c.PacketSource) }

// rawPacketConn gives a program the descriptor to read from, as x/net does for batches. In
// a drain such a read waits like any other.
type rawPacketConn struct {
	syscall.RawConn
	c *packetConn
}

func (r *rawPacketConn) Read(f func(fd uintptr) (done bool)) error {
	return r.c.read(func() error { return r.RawConn.Read(f) })
}

func (c *packetConn) LocalAddr() net.Addr { return c.addr }

func (c *packetConn) ReadFrom(b []byte) (n int, from net.Addr, err error) {
	err = c.read(func() (err error) { n, from, err = c.PacketSource.ReadFrom(b); return err })
	return n, from, err
}

// read reads by fn. In a drain it waits until the socket is closed.
func (c *packetConn) read(fn func() error) error {
	for !c.tracker.Draining() {
		c.asks()
		n := c.calls.begin()
		err := fn()
		c.calls.end(n)
		if isTimeout(err) && c.isClosed() {
			break // the deadline was that of Close
		}
		if err == nil || !c.tracker.Draining() || !isTimeout(err) && !errors.Is(err, net.ErrClosed) {
			return err
		}
	}
	<-c.closed
	return c.errClosed("read")
}

func (c *packetConn) Close() error {
	err := c.errClosed("close")
	c.once.Do(func() {
		close(c.closed)
		c.tracker.leave(c)
		c.PacketSource.SetReadDeadline(past)
		c.calls.rouse(c.PacketSource)
		err = c.PacketSource.Close()
		if c.tracker.orphaned.Load() && errors.Is(err, net.ErrClosed) {
			err = nil // the drain was first
		}
		c.release()
	})
	return err
}

func (c *packetConn) isClosed() bool {
	select {
	case <-c.closed:
		return true
	default:
		return false
	}
}

func (c *packetConn) errClosed(op string) error {
	return &net.OpError{Op: op, Net: c.addr.Network(), Addr: c.addr, Err: net.ErrClosed}
}

// stop interrupts a read under way. A plain SetDeadline would stop writes too. If the
// master is gone the socket is closed, so that the next master can have the address.
func (c *packetConn) stop() {
	c.PacketSource.SetReadDeadline(past)
	c.calls.rouse(c.PacketSource)
	if c.tracker.orphaned.Load() {
		c.PacketSource.Close()
	}
}

func (c *packetConn) SetReadDeadline(t time.Time) error {
	err := c.PacketSource.SetReadDeadline(t)
	if c.tracker.Draining() {
		c.stop()
	}
	return err
}

func (c *packetConn) SetDeadline(t time.Time) error {
	if err := c.PacketSource.SetWriteDeadline(t); err != nil {
		return err
	}
	return c.SetReadDeadline(t)
}
