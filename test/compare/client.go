package main

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"os"
	"slices"
	"sync"
	"time"
)

const (
	request  = "GET / HTTP/1.1\r\nHost: compare\r\n\r\n"
	ending   = "hello\n" // of each answer
	patience = time.Minute
)

// client has the connections to one server.
type client struct {
	conns []*conn
}

// conn is one connection. It does as little as possible, since it uses the same cores as the
// servers.
type conn struct {
	net.Conn
	buf   []byte
	times []time.Duration // of the measurement under way
}

// connect opens the connections, the same number to each process that serves. Each answer names
// the process. A connection to a process that has enough is closed again.
func connect(address string, conns, processes int) (*client, error) {
	c := &client{}
	each := map[string]int{}
	for deadline := time.Now().Add(patience); len(c.conns) < conns/processes*processes; {
		nc, err := net.Dial("tcp", address)
		if err != nil { // it has only just been started
			if time.Now().After(deadline) {
				return nil, err
			}
			time.Sleep(20 * time.Millisecond)
			continue
		}
		k := &conn{Conn: nc, buf: make([]byte, 4096)}
		body, err := k.exchange()
		if err != nil {
			return nil, err
		}
		if pid := string(body); each[pid] < conns/processes {
			each[pid]++
			c.conns = append(c.conns, k)
			continue
		}
		nc.Close()
		if time.Now().After(deadline) {
			return nil, fmt.Errorf("the connections spread as %v: no even share", each)
		}
	}
	return c, nil
}

func (c *client) close() {
	for _, k := range c.conns {
		k.Close()
	}
}

// exchange sends a request and returns the last line of its answer.
func (k *conn) exchange() (line []byte, err error) {
	if _, err := k.Write([]byte(request)); err != nil {
		return nil, err
	}
	n := 0
	for {
		m, err := k.Read(k.buf[n:])
		if err != nil {
			return nil, err
		}
		n += m
		if got := k.buf[:n]; bytes.HasSuffix(got, []byte(ending)) {
			return got[bytes.LastIndexByte(got[:n-1], '\n')+1:], nil
		}
		if n == len(k.buf) {
			return nil, errors.New("an answer without an end")
		}
	}
}

// each runs do on every connection at once.
func (c *client) each(do func(i int, k *conn) error) error {
	errs := make([]error, len(c.conns))
	var wg sync.WaitGroup
	for i, k := range c.conns {
		wg.Go(func() { errs[i] = do(i, k) })
	}
	wg.Wait()
	return errors.Join(errs...)
}

// rate returns the requests per second when every connection sends its next one
// as soon as it can.
func (c *client) rate(d time.Duration) (float64, error) {
	counts := make([]int, len(c.conns))
	begun := time.Now()
	err := c.each(func(i int, k *conn) error {
		for time.Since(begun) < d {
			if _, err := k.exchange(); err != nil {
				return err
			}
			counts[i]++
		}
		return nil
	})
	n := 0
	for _, count := range counts {
		n += count
	}
	return float64(n) / time.Since(begun).Seconds(), err
}

// latencies sends requests at the given rate and returns their times, sorted. If a request is due
// while its connection still waits for an answer, the server is the cause of the delay, and the
// time counts from when the request was due. If only this process is late, since a timer was,
// the time counts from when the request was sent.
func (c *client) latencies(d time.Duration, perSecond float64) ([]time.Duration, error) {
	gap := time.Duration(float64(time.Second) * float64(len(c.conns)) / perSecond)
	begun := time.Now()
	err := c.each(func(i int, k *conn) error {
		k.times = k.times[:0]
		due := gap * time.Duration(i) / time.Duration(len(c.conns))
		for free := time.Duration(0); due < d; due += gap {
			from := due
			if free <= due {
				time.Sleep(due - time.Since(begun))
				from = time.Since(begun)
			}
			if _, err := k.exchange(); err != nil {
				return err
			}
			free = time.Since(begun)
			k.times = append(k.times, free-from)
		}
		return nil
	})
	var all []time.Duration
	for _, k := range c.conns {
		all = append(all, k.times...)
	}
	slices.Sort(all)
	return all, err
}

// freeAddress returns an address on which nothing listens.
func freeAddress() (string, error) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	defer ln.Close()
	return ln.Addr().String(), nil
}

// note writes the progress of the measurement to the standard error, apart from the tables.
func note(format string, args ...any) { fmt.Fprintf(os.Stderr, format, args...) }
