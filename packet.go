package cluster

import (
	"net"
	"sync"
	"syscall"
	"time"
)

// packetConn is a worker's datagram socket. Its reads wait during a drain;
// writes still work, so that what was read can be answered.
type packetConn struct {
	net.PacketConn
	in      *inside
	addr    net.Addr
	release func()

	once   sync.Once
	closed chan struct{}
}

func (in *inside) newPacketConn(t target, c net.PacketConn, release func()) net.PacketConn {
	p := &packetConn{PacketConn: c, in: in, addr: t.addr(c.LocalAddr()), release: release, closed: make(chan struct{})}
	in.enter(p)
	in.opened(t, p.addr)
	return p
}

func (c *packetConn) LocalAddr() net.Addr { return c.addr }

func (c *packetConn) ReadFrom(b []byte) (int, net.Addr, error) {
	for {
		if c.in.draining() {
			<-c.closed
			return 0, nil, &net.OpError{Op: "read", Net: c.addr.Network(), Addr: c.addr, Err: net.ErrClosed}
		}
		n, from, err := c.PacketConn.ReadFrom(b)
		if err != nil && c.in.draining() && isTimeout(err) {
			continue
		}
		return n, from, err
	}
}

func (c *packetConn) Close() error {
	err := error(&net.OpError{Op: "close", Net: c.addr.Network(), Addr: c.addr, Err: net.ErrClosed})
	c.once.Do(func() {
		close(c.closed)
		c.in.leave(c)
		err = c.PacketConn.Close()
		c.release()
	})
	return err
}

// stop interrupts a read under way. A plain SetDeadline would stop writes too.
func (c *packetConn) stop() { c.PacketConn.SetReadDeadline(time.Unix(1, 0)) }

func (c *packetConn) SetReadDeadline(t time.Time) error {
	err := c.PacketConn.SetReadDeadline(t)
	if c.in.draining() {
		c.stop()
	}
	return err
}

func (c *packetConn) SetDeadline(t time.Time) error {
	if err := c.PacketConn.SetWriteDeadline(t); err != nil {
		return err
	}
	return c.SetReadDeadline(t)
}

// SyscallConn, SetReadBuffer and SetWriteBuffer are what protocols over UDP
// look for.
func (c *packetConn) SyscallConn() (syscall.RawConn, error) {
	return c.PacketConn.(syscall.Conn).SyscallConn()
}

func (c *packetConn) SetReadBuffer(bytes int) error {
	return c.PacketConn.(interface{ SetReadBuffer(int) error }).SetReadBuffer(bytes)
}

func (c *packetConn) SetWriteBuffer(bytes int) error {
	return c.PacketConn.(interface{ SetWriteBuffer(int) error }).SetWriteBuffer(bytes)
}
