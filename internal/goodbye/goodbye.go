// Package goodbye tells HTTP/1 clients that their connection ends, for servers that
// do not say it themselves.
//
// A client that keeps its connection learns from an answer with "Connection: close"
// that it must send no further request on it. net/http's server can be made to say
// so as soon as a drain begins. Others say it late, when their own shutdown has
// begun, and then close connections on which a request may just be arriving. So the
// connection says it for them: into the first write after a read, which begins an
// answer, it puts the header.
//
// A Conn follows what is read and written on one connection, looks at the first
// bytes of each, and knows what is no HTTP/1, or not any more: TLS, HTTP/2, a
// connection that was upgraded, the tunnel of a CONNECT. It owns nothing, holds no
// bytes and has no lock: its methods may be called by a reader and a writer at once.
// Locate is the decoder; it is fuzzed against net/http's.
//
// It takes an answer's beginning to be at the beginning of a write. So it is with
// the servers that buffer what they write. Of two answers in one write, to a client
// that pipelines, the first gets the header.
package goodbye

import (
	"bytes"
	"sync/atomic"
)

// Header is the line that is put into an answer.
const Header = "Connection: close\r\n"

// Conn is what is known of one connection. Its zero value is that of a new one.
type Conn struct {
	pending atomic.Bool // something was read, and no answer has begun
	speaks  atomic.Bool // an answer was HTTP/1.1
	opaque  atomic.Bool // what follows is not HTTP
}

// Read is told what was read.
func (c *Conn) Read(p []byte) {
	if len(p) == 0 || c.pending.Load() {
		return
	}
	if bytes.HasPrefix(p, connect) {
		c.opaque.Store(true)
	}
	c.pending.Store(true)
}

var connect = []byte("CONNECT ")

// Write is told what is about to be written. It returns where in it Header belongs,
// -1 for nowhere.
func (c *Conn) Write(p []byte) (at int) {
	if len(p) == 0 || !c.pending.Load() || c.opaque.Load() {
		return -1
	}
	at, what := Locate(p)
	switch what {
	case Interim:
		return -1 // the answer is still to come
	case Final:
		c.speaks.Store(true)
	case Switch:
		c.opaque.Store(true)
	}
	c.pending.Store(false)
	return at
}

// Wrote is told that something was written that Write was not shown.
func (c *Conn) Wrote() { c.pending.Store(false) }

// Pending reports whether a request has been read, in part at least, whose answer has
// not begun.
func (c *Conn) Pending() bool { return c.pending.Load() }

// Speaks reports whether the connection is known to speak HTTP/1, still.
func (c *Conn) Speaks() bool { return c.speaks.Load() && !c.opaque.Load() }

// Kind is what a write begins with.
type Kind int

// The kinds of write.
const (
	Other   Kind = iota // no HTTP/1.1, or not enough of it to tell
	Interim             // answers of 1xx, and nothing behind them
	Final               // an answer
	Switch              // 101: another protocol follows
)

// Locate looks at the beginning of an answer. It returns where Header belongs in it:
// behind the status line, unless there is a Connection header already. Answers of
// 1xx before it are passed over.
func Locate(p []byte) (at int, what Kind) {
	for at = 0; ; {
		code, line := status(p[at:])
		switch {
		case line < 0:
			return -1, Other
		case code == "101":
			return -1, Switch
		}
		at += line
		end, named := header(p[at:])
		switch {
		case code[0] != '1' && named:
			return -1, Final
		case code[0] != '1':
			return at, Final
		case end < 0, at+end == len(p):
			return -1, Interim
		}
		at += end
	}
}

// status reads a status line, and returns its code and its length, -1 if it is none.
func status(p []byte) (code string, length int) {
	rest, ok := bytes.CutPrefix(p, version)
	end := bytes.IndexByte(p, '\n')
	if !ok || end < 0 || len(rest) < 4 || rest[3] != ' ' && rest[3] != '\r' && rest[3] != '\n' {
		return "", -1
	}
	for _, digit := range rest[:3] {
		if digit < '0' || digit > '9' {
			return "", -1
		}
	}
	return string(rest[:3]), end + 1
}

var version = []byte("HTTP/1.1 ")

// header looks through the header fields. It returns the length of the header with the
// empty line behind it, -1 if that is not there yet, and whether one of the fields is
// Connection.
func header(p []byte) (length int, named bool) {
	for at := 0; ; {
		n := bytes.IndexByte(p[at:], '\n')
		if n < 0 {
			return -1, named
		}
		line := bytes.TrimSuffix(p[at:at+n], []byte("\r"))
		at += n + 1
		if len(line) == 0 {
			return at, named
		}
		name, _, _ := bytes.Cut(line, []byte(":"))
		named = named || bytes.EqualFold(name, []byte("Connection"))
	}
}
