// Package goodbye tells HTTP/1 clients that their connection ends, for servers that
// do not say it themselves.
//
// A client that keeps its connection learns from an answer with "Connection: close"
// that it must send no further request on it. net/http's server can be made to say
// so as soon as a drain begins. Other servers say it late, when their own shutdown has
// begun, and then close connections on which a request may just be arriving. So the
// connection says it for them: the first write after a read begins an answer, and the
// connection puts the header into that write.
//
// A Conn follows what is read and written on one connection. From the first bytes of each
// it knows what is not HTTP/1, or no longer HTTP/1: TLS, HTTP/2, a connection that was
// upgraded, the tunnel of a CONNECT. It owns nothing, holds no bytes and has no lock. A
// reader and a writer may call its methods at the same time. Locate is the decoder; it is
// fuzzed against net/http's.
//
// A Conn expects that an answer begins where a write begins. That is so with servers that
// buffer what they write. If one write has two answers, for a client that pipelines, the
// first of them gets the header.
package goodbye

import (
	"bytes"
	"sync/atomic"
)

// Header is the line that is put into an answer.
const Header = "Connection: close\r\n"

// Conn is what is known of one connection. The zero value is a new connection.
type Conn struct {
	pending atomic.Bool // something was read, and no answer has begun
	speaks  atomic.Bool // an answer was HTTP/1.1
	opaque  atomic.Bool // what follows is not HTTP
}

// Read notes that p was read.
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

// Write notes that p is about to be written. It returns where in p Header belongs, or -1
// if nowhere.
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

// Wrote notes that something was written which Write was not called with.
func (c *Conn) Wrote() { c.pending.Store(false) }

// Pending reports whether at least a part of a request was read, and its answer has not
// begun.
func (c *Conn) Pending() bool { return c.pending.Load() }

// Speaks reports whether the connection is known to speak HTTP/1, and still does.
func (c *Conn) Speaks() bool { return c.speaks.Load() && !c.opaque.Load() }

// Kind is what a write begins with.
type Kind int

// The kinds of write.
const (
	Other   Kind = iota // not HTTP/1.1, or not enough of it to tell
	Interim             // only answers of status 1xx
	Final               // an answer
	Switch              // status 101: another protocol follows
)

// Locate looks at the beginning of an answer. It returns where Header belongs in p: behind
// the status line, or nowhere (-1) if there is a Connection header already. It passes over
// answers of status 1xx that come first.
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

// status reads a status line. It returns the code and the length of the line, -1 if p does
// not begin with one.
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

// header looks through the header fields. It returns the length of the header, with the
// empty line that ends it, or -1 if that line is not there yet. named says that one of the
// fields is Connection.
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
