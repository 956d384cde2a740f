package cluster

import (
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// track watches one accepted connection, so that a drain knows whether it is
// idle without knowing the protocol: a server waits on it for the next request
// if it has read nothing since it wrote last, and reads now. An *http.Server in
// Serve knows better, and says so.
type track struct {
	listener *listener // that accepted it
	conn     net.Conn
	rc       syscall.RawConn

	ops     atomic.Uint32 // finished reads and writes
	reading atomic.Int32  // reads of more than one byte under way
	writing atomic.Int32
	busy    atomic.Bool // read something since the last write

	phase atomic.Int32 // what the server says of it
	old   atomic.Bool  // the request in flight began before the drain
	tls   atomic.Bool  // what is read and written are TLS records

	cut    atomic.Bool // an idle read is to end
	closed atomic.Bool

	mu    sync.Mutex
	limit time.Time // the application's read deadline
}

// The phases of a connection.
const (
	phaseUnknown int32 = iota
	phaseActive        // a request is in flight
	phaseIdle          // between requests, or before the first
)

// enter is told by the server what the connection is doing.
func (t *track) enter(state http.ConnState) {
	switch state {
	case http.StateActive:
		t.phase.Store(phaseActive)
		return
	case http.StateIdle:
		t.phase.Store(phaseIdle)
	default:
		t.phase.Store(phaseUnknown)
	}
	t.old.Store(false)
}

// trackOf finds the track below c, which TLS may have wrapped.
func trackOf(c net.Conn) *track {
	for {
		switch w := c.(type) {
		case *tcpConn:
			return w.t
		case *unixConn:
			return w.t
		case *socketTrack:
			return w.t
		case *otherConn:
			return w.t
		case interface{ NetConn() net.Conn }:
			c = w.NetConn()
		default:
			return nil
		}
	}
}

// trackConn wraps c. The types keep what package net's connections can do
// beyond net.Conn: half-close, sendfile, socket options.
func (l *listener) trackConn(c net.Conn) (net.Conn, *track) {
	t := &track{listener: l, conn: c}
	if s, ok := c.(syscall.Conn); ok {
		t.rc, _ = s.SyscallConn()
	}
	switch c := c.(type) {
	case *net.TCPConn:
		return &tcpConn{c, t}, t
	case *net.UnixConn:
		return &unixConn{c, t}, t
	case streamConn:
		return &socketTrack{c, t}, t
	}
	return &otherConn{c, t}, t
}

type tcpConn struct {
	*net.TCPConn
	t *track
}

func (c *tcpConn) Read(p []byte) (int, error)          { return c.t.read(p) }
func (c *tcpConn) Write(p []byte) (int, error)         { return c.t.write(p) }
func (c *tcpConn) ReadFrom(r io.Reader) (int64, error) { return c.t.readFrom(c.TCPConn, r) }
func (c *tcpConn) WriteTo(w io.Writer) (int64, error)  { return io.Copy(w, onlyReader{c}) }
func (c *tcpConn) Close() error                        { return c.t.close() }
func (c *tcpConn) SetDeadline(d time.Time) error       { return c.t.setDeadline(d) }
func (c *tcpConn) SetReadDeadline(d time.Time) error   { return c.t.setReadDeadline(d) }

type unixConn struct {
	*net.UnixConn
	t *track
}

func (c *unixConn) Read(p []byte) (int, error)        { return c.t.read(p) }
func (c *unixConn) Write(p []byte) (int, error)       { return c.t.write(p) }
func (c *unixConn) Close() error                      { return c.t.close() }
func (c *unixConn) SetDeadline(d time.Time) error     { return c.t.setDeadline(d) }
func (c *unixConn) SetReadDeadline(d time.Time) error { return c.t.setReadDeadline(d) }

// streamConn is a TCP connection that is none of package net's, with what those
// can do: what a shared socket on Windows accepts.
type streamConn interface {
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

type socketTrack struct {
	streamConn
	t *track
}

func (c *socketTrack) Read(p []byte) (int, error)        { return c.t.read(p) }
func (c *socketTrack) Write(p []byte) (int, error)       { return c.t.write(p) }
func (c *socketTrack) Close() error                      { return c.t.close() }
func (c *socketTrack) SetDeadline(d time.Time) error     { return c.t.setDeadline(d) }
func (c *socketTrack) SetReadDeadline(d time.Time) error { return c.t.setReadDeadline(d) }

type otherConn struct {
	net.Conn
	t *track
}

func (c *otherConn) Read(p []byte) (int, error)        { return c.t.read(p) }
func (c *otherConn) Write(p []byte) (int, error)       { return c.t.write(p) }
func (c *otherConn) Close() error                      { return c.t.close() }
func (c *otherConn) SetDeadline(d time.Time) error     { return c.t.setDeadline(d) }
func (c *otherConn) SetReadDeadline(d time.Time) error { return c.t.setReadDeadline(d) }

// onlyReader hides WriteTo, so that io.Copy does not call it again.
type onlyReader struct{ io.Reader }

// read is Read. A single byte is what net/http reads while a handler runs, to
// notice when the client goes: that is no wait for a request.
func (t *track) read(p []byte) (n int, err error) {
	wait := len(p) > 1
	if wait {
		t.reading.Add(1)
		defer t.reading.Add(-1)
	}
	for {
		if wait && t.cut.Load() && !t.busy.Load() {
			return t.lastRead(p)
		}
		n, err = t.conn.Read(p)
		if n > 0 {
			if t.ops.Load() == 0 && p[0] == tlsHandshake {
				t.tls.Store(true)
			}
			t.busy.Store(true)
			t.ops.Add(1)
		}
		if err != nil && t.cut.Load() && errors.Is(err, os.ErrDeadlineExceeded) && n == 0 {
			if t.restoreDeadline() {
				return n, err // the application's own
			}
			continue
		}
		return n, err
	}
}

// tlsHandshake is the first byte that a TLS client sends.
const tlsHandshake = 22

// lastRead ends the wait for a request that does not come, unless it has just
// come. The server then closes the connection as if the client had.
func (t *track) lastRead(p []byte) (n int, err error) {
	t.conn.SetReadDeadline(time.Time{})
	if t.rc == nil {
		return 0, io.EOF
	}
	readErr := t.rc.Read(func(fd uintptr) bool {
		n, err = readNow(fd, p)
		return true
	})
	if readErr != nil || err != nil || n <= 0 {
		return 0, io.EOF
	}
	t.busy.Store(true)
	t.ops.Add(1)
	t.restoreDeadline()
	return n, nil
}

// restoreDeadline puts the application's read deadline back after cutIdle has
// set its own. It reports whether that has passed.
func (t *track) restoreDeadline() (passed bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.conn.SetReadDeadline(t.limit)
	return !t.limit.IsZero() && !time.Now().Before(t.limit)
}

func (t *track) write(p []byte) (int, error) {
	t.writing.Add(1)
	n, err := t.conn.Write(p)
	t.wrote()
	return n, err
}

func (t *track) wrote() {
	t.busy.Store(false)
	t.ops.Add(1)
	t.writing.Add(-1)
}

// readFrom keeps sendfile. Any other source may let it wait, with nothing to
// write: an echo or a proxy would look busy for as long as it runs. So what
// comes from there is written piece by piece.
func (t *track) readFrom(dst io.ReaderFrom, src io.Reader) (int64, error) {
	if !isRegularFile(src) {
		return io.Copy(trackWriter{t}, src)
	}
	t.writing.Add(1)
	n, err := dst.ReadFrom(src)
	t.wrote()
	return n, err
}

// trackWriter writes to the connection of a track.
type trackWriter struct{ t *track }

func (w trackWriter) Write(p []byte) (int, error) { return w.t.write(p) }

// isRegularFile reports whether r, or what it is a part of, is a file whose
// reads do not wait for anybody.
func isRegularFile(r io.Reader) bool {
	if l, ok := r.(*io.LimitedReader); ok {
		r = l.R
	}
	f, ok := r.(*os.File)
	if !ok {
		return false
	}
	info, err := f.Stat()
	return err == nil && info.Mode().IsRegular()
}

func (t *track) close() error {
	if !t.closed.Swap(true) {
		defer t.listener.in.forget(t)
	}
	return t.conn.Close()
}

func (in *inside) forget(t *track) {
	in.mu.Lock()
	defer in.mu.Unlock()
	delete(in.conns, t)
}

func (t *track) setReadDeadline(d time.Time) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.limit = d
	return t.conn.SetReadDeadline(d)
}

func (t *track) setDeadline(d time.Time) error {
	if err := t.conn.SetWriteDeadline(d); err != nil {
		return err
	}
	return t.setReadDeadline(d)
}

// idle reports whether the server waits for the next request.
func (t *track) idle() bool {
	return t.phase.Load() != phaseActive && t.reading.Load() > 0 && t.writing.Load() == 0 && !t.busy.Load()
}

// patience is for how long a drain lets the connection be idle before it closes
// it. Under TLS a server that says nothing of it reads whole records all the
// time, so that a pause in an answer looks like the wait for a request.
func (t *track) patience() time.Duration {
	if t.tls.Load() && t.phase.Load() == phaseUnknown {
		return tlsLameDuck
	}
	return lameDuck
}

// cutIdle makes a read that waits for a request end.
func (t *track) cutIdle() {
	t.cut.Store(true)
	t.mu.Lock()
	defer t.mu.Unlock()
	t.conn.SetReadDeadline(time.Unix(1, 0))
}
