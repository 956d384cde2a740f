package drain

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

	"github.com/go-cluster/cluster/internal/goodbye"
)

// conn watches one accepted connection, so that a drain knows whether it is idle without
// knowing the protocol. If the server has read nothing since its last write, and reads
// now, it waits for the next request. An *http.Server in Serve knows more, and reports
// the state.
type conn struct {
	tracker  *Tracker
	listener *Listener // that accepted it; nil if another process did
	raw      net.Conn
	bye      *goodbye.Conn // of a ServeFunc; else nil

	prev, next *conn // in the Tracker's list, and under its lock

	ops     atomic.Uint32 // finished reads and writes
	reading atomic.Int32  // reads of more than one byte under way
	writing atomic.Int32
	busy    atomic.Bool // read something since the last write

	phase atomic.Int32 // what an *http.Server has reported
	old   atomic.Bool  // the request in flight began before the drain
	tls   atomic.Bool  // what is read and written are TLS records

	cut    atomic.Bool // the drain ends the read that waits for a request
	closed atomic.Bool

	sight sighting // of the drain's goroutine alone

	mu    sync.Mutex
	limit time.Time // the application's read deadline
}

// begin makes c that of raw.
func (c *conn) begin(t *Tracker, l *Listener, raw net.Conn) *conn {
	c.tracker, c.listener, c.raw = t, l, raw
	if l != nil && l.tells.Load() {
		c.bye = new(goodbye.Conn)
	}
	return c
}

// The phases of a connection.
const (
	phaseUnknown int32 = iota
	phaseActive        // a request is in flight
	phaseIdle          // between requests, or before the first
)

// abandoned reports whether the connection's server has shut down, so that nobody serves
// it any more.
func (c *conn) abandoned() bool { return c.listener != nil && c.listener.over.Load() }

// enter takes the state that the server reports.
func (c *conn) enter(state http.ConnState) {
	switch state {
	case http.StateActive:
		c.phase.Store(phaseActive)
		return
	case http.StateIdle:
		c.phase.Store(phaseIdle)
	default:
		c.phase.Store(phaseUnknown)
	}
	c.old.Store(false)
}

// idle reports whether the server waits for the next request.
func (c *conn) idle() bool {
	if c.bye != nil && c.bye.Pending() {
		return false // what was written since was no answer yet
	}
	return c.phase.Load() != phaseActive && c.reading.Load() > 0 && c.writing.Load() == 0 && !c.busy.Load()
}

// cuttable reports whether a drain may close the connection when it is idle. It may not if
// the server closes idle connections itself. A server of ServeFunc is not relied on for
// that: there a connection of HTTP/1, or one that was never used, is cut.
func (c *conn) cuttable() bool {
	if c.bye != nil {
		return c.ops.Load() == 0 || c.bye.Speaks()
	}
	return c.listener == nil || !c.listener.foreign.Load()
}

// answering reports whether an answer is being written that began without a word that the
// connection ends.
func (c *conn) answering() bool {
	return c.bye != nil && c.bye.Speaks() && !c.bye.Pending() && !c.idle()
}

// patience is how long a drain lets the connection be idle before it closes it. A server
// that reports no states reads whole records under TLS all the time, so that a pause in
// an answer looks like the wait for a request.
func (c *conn) patience() time.Duration {
	if c.tls.Load() && c.phase.Load() == phaseUnknown {
		return tlsLameDuck
	}
	return lameDuck
}

// cutIdle makes a read that waits for a request end.
func (c *conn) cutIdle() {
	c.cut.Store(true)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.raw.SetReadDeadline(past)
}

// read is Read. While a handler runs, net/http reads a single byte to notice when the
// client goes: that is no wait for a request.
func (c *conn) read(p []byte) (n int, err error) {
	wait := len(p) > 1
	if wait {
		c.reading.Add(1)
		defer c.reading.Add(-1)
	}
	for {
		if wait && c.cut.Load() && !c.busy.Load() {
			return c.lastRead(p)
		}
		n, err = c.raw.Read(p)
		if n > 0 {
			if c.ops.Load() == 0 && p[0] == tlsHandshake {
				c.tls.Store(true)
			}
			c.heard(p[:n])
		}
		if err != nil && c.cut.Load() && errors.Is(err, os.ErrDeadlineExceeded) && n == 0 {
			if c.restoreDeadline() {
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
func (c *conn) lastRead(p []byte) (n int, err error) {
	c.raw.SetReadDeadline(time.Time{})
	s, ok := c.raw.(syscall.Conn)
	if !ok {
		return 0, io.EOF
	}
	rc, err := s.SyscallConn()
	if err != nil {
		return 0, io.EOF
	}
	readErr := rc.Read(func(fd uintptr) bool {
		n, err = readNow(fd, p)
		return true
	})
	if readErr != nil || err != nil || n <= 0 {
		return 0, io.EOF
	}
	c.heard(p[:n])
	c.restoreDeadline()
	return n, nil
}

// heard notes what was read.
func (c *conn) heard(p []byte) {
	if c.bye != nil {
		c.bye.Read(p)
	}
	c.busy.Store(true)
	c.ops.Add(1)
}

// restoreDeadline puts the application's read deadline back after cutIdle has
// set its own. It reports whether that has passed.
func (c *conn) restoreDeadline() (passed bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.raw.SetReadDeadline(c.limit)
	return !c.limit.IsZero() && !time.Now().Before(c.limit)
}

func (c *conn) write(p []byte) (int, error) {
	c.writing.Add(1)
	defer c.wrote()
	if c.bye != nil {
		if at := c.bye.Write(p); at >= 0 && c.tracker.Draining() {
			return c.writeGoodbye(p, at)
		}
	}
	return c.raw.Write(p)
}

// writeGoodbye writes p with goodbye.Header inserted at the index at. The count that it
// returns is of the bytes of p.
func (c *conn) writeGoodbye(p []byte, at int) (int, error) {
	parts := net.Buffers{p[:at], []byte(goodbye.Header), p[at:]}
	written, err := parts.WriteTo(c.raw)
	n := int(written)
	if n > at {
		n = max(at, n-len(goodbye.Header))
	}
	return n, err
}

func (c *conn) wrote() {
	c.busy.Store(false)
	c.ops.Add(1)
	c.writing.Add(-1)
}

// readFrom uses sendfile for a regular file. Any other source may make it wait with
// nothing to write, and an echo or a proxy would look busy for as long as it runs. So
// bytes from there are written piece by piece.
func (c *conn) readFrom(dst io.ReaderFrom, src io.Reader) (int64, error) {
	if !isRegularFile(src) {
		return io.Copy(connWriter{c}, src)
	}
	c.writing.Add(1)
	if c.bye != nil {
		c.bye.Wrote()
	}
	n, err := dst.ReadFrom(src)
	c.wrote()
	return n, err
}

// connWriter writes to the connection of a conn.
type connWriter struct{ c *conn }

func (w connWriter) Write(p []byte) (int, error) { return w.c.write(p) }

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

func (c *conn) close() error {
	if !c.closed.Swap(true) {
		defer c.tracker.forget(c)
	}
	return c.raw.Close()
}

func (c *conn) setReadDeadline(d time.Time) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.limit = d
	return c.raw.SetReadDeadline(d)
}

func (c *conn) setDeadline(d time.Time) error {
	if err := c.raw.SetWriteDeadline(d); err != nil {
		return err
	}
	return c.setReadDeadline(d)
}
