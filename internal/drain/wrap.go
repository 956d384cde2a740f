package drain

import (
	"io"
	"net"
	"os"
	"syscall"
	"time"
)

// What Accept returns: types that keep what the connections of package net can do
// beyond net.Conn (half-close, sendfile, socket options), and whose reads and
// writes go through a conn.

// track wraps raw. The conn is in flight once the Tracker knows it. It is a part of what
// wraps it, so that a connection costs one allocation.
func (t *Tracker) track(l *Listener, raw net.Conn) (net.Conn, *conn) {
	switch typed := raw.(type) {
	case *net.TCPConn:
		w := &tcpConn{tcpMethods: typed}
		return w, w.c.begin(t, l, raw)
	case *net.UnixConn:
		w := &unixConn{unixMethods: typed}
		return w, w.c.begin(t, l, raw)
	case StreamConn:
		w := &streamConn{StreamConn: typed}
		return w, w.c.begin(t, l, raw)
	}
	w := &otherConn{Conn: raw}
	return w, w.c.begin(t, l, raw)
}

// connOf finds what Accept returned below c, which TLS may have wrapped. It is
// nil if that was no Accept of ours.
func connOf(c net.Conn) *conn {
	for {
		switch w := c.(type) {
		case *tcpConn:
			return &w.c
		case *unixConn:
			return &w.c
		case *streamConn:
			return &w.c
		case *otherConn:
			return &w.c
		case interface{ NetConn() net.Conn }:
			c = w.NetConn()
		default:
			return nil
		}
	}
}

// The types embed interfaces: those of package net have methods without a name
// outside, by which net.Buffers writes past Write.

// tcpMethods are the methods of a *net.TCPConn.
type tcpMethods interface {
	StreamConn
	io.ReaderFrom
	File() (*os.File, error)
	MultipathTCP() (bool, error)
}

type tcpConn struct {
	tcpMethods
	c conn
}

func (w *tcpConn) Read(p []byte) (int, error)          { return w.c.read(p) }
func (w *tcpConn) Write(p []byte) (int, error)         { return w.c.write(p) }
func (w *tcpConn) ReadFrom(r io.Reader) (int64, error) { return w.c.readFrom(w.tcpMethods, r) }
func (w *tcpConn) WriteTo(dst io.Writer) (int64, error) {
	return io.Copy(dst, onlyReader{w})
}
func (w *tcpConn) Close() error                      { return w.c.close() }
func (w *tcpConn) SetDeadline(d time.Time) error     { return w.c.setDeadline(d) }
func (w *tcpConn) SetReadDeadline(d time.Time) error { return w.c.setReadDeadline(d) }

// onlyReader hides WriteTo, so that io.Copy does not call it again.
type onlyReader struct{ io.Reader }

// unixMethods are the methods of a *net.UnixConn.
type unixMethods interface {
	net.Conn
	syscall.Conn
	CloseRead() error
	CloseWrite() error
	File() (*os.File, error)
	SetReadBuffer(bytes int) error
	SetWriteBuffer(bytes int) error
	ReadFrom(p []byte) (int, net.Addr, error)
	ReadFromUnix(p []byte) (int, *net.UnixAddr, error)
	ReadMsgUnix(p, oob []byte) (n, oobn, flags int, addr *net.UnixAddr, err error)
	WriteTo(p []byte, addr net.Addr) (int, error)
	WriteToUnix(p []byte, addr *net.UnixAddr) (int, error)
	WriteMsgUnix(p, oob []byte, addr *net.UnixAddr) (n, oobn int, err error)
}

type unixConn struct {
	unixMethods
	c conn
}

func (w *unixConn) Read(p []byte) (int, error)        { return w.c.read(p) }
func (w *unixConn) Write(p []byte) (int, error)       { return w.c.write(p) }
func (w *unixConn) Close() error                      { return w.c.close() }
func (w *unixConn) SetDeadline(d time.Time) error     { return w.c.setDeadline(d) }
func (w *unixConn) SetReadDeadline(d time.Time) error { return w.c.setReadDeadline(d) }

// StreamConn is a TCP connection that is none of package net's, with what those
// can do: what a shared socket on Windows accepts.
type StreamConn interface {
	net.Conn
	syscall.Conn
	CloseRead() error
	CloseWrite() error
	SetKeepAlive(on bool) error
	SetKeepAliveConfig(config net.KeepAliveConfig) error
	SetKeepAlivePeriod(d time.Duration) error
	SetLinger(sec int) error
	SetNoDelay(noDelay bool) error
	SetReadBuffer(bytes int) error
	SetWriteBuffer(bytes int) error
}

type streamConn struct {
	StreamConn
	c conn
}

func (w *streamConn) Read(p []byte) (int, error)        { return w.c.read(p) }
func (w *streamConn) Write(p []byte) (int, error)       { return w.c.write(p) }
func (w *streamConn) Close() error                      { return w.c.close() }
func (w *streamConn) SetDeadline(d time.Time) error     { return w.c.setDeadline(d) }
func (w *streamConn) SetReadDeadline(d time.Time) error { return w.c.setReadDeadline(d) }

type otherConn struct {
	net.Conn
	c conn
}

func (w *otherConn) Read(p []byte) (int, error)        { return w.c.read(p) }
func (w *otherConn) Write(p []byte) (int, error)       { return w.c.write(p) }
func (w *otherConn) Close() error                      { return w.c.close() }
func (w *otherConn) SetDeadline(d time.Time) error     { return w.c.setDeadline(d) }
func (w *otherConn) SetReadDeadline(d time.Time) error { return w.c.setReadDeadline(d) }
