//go:build unix

package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"sync"
	"syscall"
	"time"
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

// patience bounds a request. It is long, since a worker may be stopped meanwhile.
const patience = 30 * time.Second

// clients is the process of the clients. It is a child of the master, and an upgrade does not
// end it.
type clients struct {
	address string
	accepts accepts
	deaths  deaths

	mu sync.Mutex
	tally
}

// tally is what the clients tell the master at the end.
type tally struct {
	Served, Excused int
	Lost            []string
}

// clientsEnv tells the process of the clients the address.
const clientsEnv = "SOAK_CLIENTS"

// beClients is the main function of the clients. They go on until the master wants them to
// stop, or is gone.
func beClients(s *state, perKind int) {
	c := &clients{address: os.Getenv(clientsEnv)}
	var err error
	c.accepts, err = openAccepts(s.file("accepts"))
	check(err)
	c.deaths, err = openDeaths(s.file("deaths"))
	check(err)
	ctx, cancel := context.WithCancel(context.Background())
	var all sync.WaitGroup
	for range perKind {
		all.Go(func() { c.keepAlive(ctx) })
		all.Go(func() { c.oneShot(ctx) })
	}
	for master := os.Getppid(); os.Getppid() == master && !s.exists("stop"); {
		time.Sleep(10 * time.Millisecond)
	}
	cancel()
	all.Wait()
	text, err := json.Marshal(c.tally)
	check(err)
	check(os.WriteFile(s.file("tally.new"), text, 0o600))
	check(os.Rename(s.file("tally.new"), s.file("tally")))
}

// keepAlive sends requests one after another, on one connection as long as the server keeps it.
// It repeats none. (net/http's client would, and hide a loss.)
func (c *clients) keepAlive(ctx context.Context) {
	for ctx.Err() == nil {
		c.connection(ctx, "keep-alive", func() bool { return ctx.Err() == nil })
	}
}

// oneShot sends each request on a connection of its own.
func (c *clients) oneShot(ctx context.Context) {
	for ctx.Err() == nil {
		c.connection(ctx, "one-shot", func() bool { return false })
		time.Sleep(2 * time.Millisecond)
	}
}

// connection sends requests on one connection, while more returns true and the server keeps it
// open.
func (c *clients) connection(ctx context.Context, kind string, more func() bool) {
	began := time.Now()
	conn, err := net.DialTimeout("tcp", c.address, patience)
	if err != nil {
		c.failed(loss{kind: kind, began: began, err: err}, nil)
		return
	}
	defer conn.Close()
	r := bufio.NewReader(conn)
	for n := 1; ; n++ {
		sent := time.Now()
		conn.SetDeadline(sent.Add(patience))
		last, err := request(conn, r, n)
		if err != nil {
			c.failed(loss{kind: kind, nth: n, began: began, sent: sent, err: err}, conn)
			return
		}
		c.mu.Lock()
		c.Served++
		c.mu.Unlock()
		if last || !more() {
			return
		}
	}
}

// request sends a request, every third one with a body. It reports whether the server closes the
// connection after the answer.
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

// failed notes a lost request. The loss is excused if the worker that had the request died. A
// refused connection is never excused.
func (c *clients) failed(l loss, conn net.Conn) {
	l.failed = time.Now()
	if conn != nil {
		l.workers = c.accepts.by(conn.LocalAddr(), l.began)
	}
	excused := !errors.Is(l.err, syscall.ECONNREFUSED) && c.deaths.explain(l)
	c.mu.Lock()
	defer c.mu.Unlock()
	if excused {
		c.Excused++
	} else {
		c.Lost = append(c.Lost, l.String())
	}
}
