//go:build unix

package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"syscall"
	"time"

	"github.com/go-cluster/cluster"
)

// loss is a request that got no answer.
type loss struct {
	kind    string
	nth     int // on its connection
	began   time.Time
	sent    time.Time
	failed  time.Time
	workers []int // the pids of those that accepted it
	err     error
}

func (l loss) String() string {
	return fmt.Sprintf("%s, request %d of its connection to workers %v, at %s after %v: %v",
		l.kind, l.nth, l.workers, l.failed.Format(time.StampMilli), l.failed.Sub(l.sent).Round(time.Millisecond), l.err)
}

// patience is how long a request may take: a worker may be stopped meanwhile.
const patience = 30 * time.Second

func listenOnce(addresses chan<- string) func(*cluster.Process, net.Addr) {
	return func(_ *cluster.Process, addr net.Addr) {
		select {
		case addresses <- addr.String():
		default:
		}
	}
}

// keepAlive sends requests one after another, on one connection as long as the
// server keeps it. It repeats none: net/http's client would hide a loss.
func (s *soak) keepAlive(ctx context.Context) {
	for ctx.Err() == nil {
		s.connection(ctx, "keep-alive", func() bool { return ctx.Err() == nil })
	}
}

// oneShot sends each request on a connection of its own.
func (s *soak) oneShot(ctx context.Context) {
	for ctx.Err() == nil {
		s.connection(ctx, "one-shot", func() bool { return false })
		time.Sleep(2 * time.Millisecond)
	}
}

// connection sends requests while more says so and the server keeps it open.
func (s *soak) connection(ctx context.Context, kind string, more func() bool) {
	began := time.Now()
	c, err := net.DialTimeout("tcp", s.address, patience)
	if err != nil {
		s.failed(loss{kind: kind, began: began, err: err}, nil)
		return
	}
	defer c.Close()
	r := bufio.NewReader(c)
	for n := 1; ; n++ {
		sent := time.Now()
		c.SetDeadline(sent.Add(patience))
		last, err := request(c, r, n)
		if err != nil {
			s.failed(loss{kind: kind, nth: n, began: began, sent: sent, err: err}, c)
			return
		}
		s.count(&s.served)
		if last || !more() {
			return
		}
	}
}

// request sends one, every third with a body. It reports whether the server
// closes the connection after it.
func request(c net.Conn, r *bufio.Reader, n int) (last bool, err error) {
	text := "GET / HTTP/1.1\r\nHost: soak\r\n\r\n"
	if n%3 == 0 {
		const size = 16 << 10
		text = fmt.Sprintf("POST / HTTP/1.1\r\nHost: soak\r\nContent-Length: %d\r\n\r\n%s", size, strings.Repeat("x", size))
	}
	if _, err := io.WriteString(c, text); err != nil {
		return false, err
	}
	resp, err := http.ReadResponse(r, nil)
	if err != nil {
		return false, err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return false, errors.New(resp.Status)
	}
	_, err = io.Copy(io.Discard, resp.Body)
	return resp.Close, err
}

// failed notes a lost request. It is excused if the worker that had it died; that
// nobody listened is never.
func (s *soak) failed(l loss, c net.Conn) {
	l.failed = time.Now()
	if c != nil {
		l.workers = s.accepts.by(c.LocalAddr(), l.began)
	}
	excused := !errors.Is(l.err, syscall.ECONNREFUSED) && s.deaths.explain(l)
	s.mu.Lock()
	defer s.mu.Unlock()
	if excused {
		s.excused++
	} else {
		s.lost = append(s.lost, l)
	}
}
