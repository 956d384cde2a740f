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
	"path"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"time"
)

const (
	// answerTime is how long a master may take to say that it is there. What it does then
	// may take as long as it takes.
	answerTime = 1500 * time.Millisecond
	// maxAnswer bounds, in bytes, an answer that is kept.
	maxAnswer = 64 << 20
	// maxLine bounds a line of those that come one by one.
	maxLine = 4 << 20
)

// master is a master that answers.
type master struct {
	socket
	client *http.Client
	listen atomic.Int64 // the pid of who listens; 0 if that is not known
}

func newMaster(s socket) *master {
	m := &master{socket: s}
	m.client = &http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		c, err := new(net.Dialer).DialContext(ctx, "unix", m.path)
		if err == nil {
			m.listen.Store(int64(listenerOf(c)))
		}
		return c, err
	}}}
	return m
}

// connect is the master that the flags name. It has answered: what it is told next it
// will hear.
func (g *global) connect() (*master, error) {
	s, err := g.choose()
	if err != nil {
		return nil, err
	}
	m := newMaster(s)
	return m, m.alive()
}

// alive asks the master whether it is there.
func (m *master) alive() error {
	ctx, cancel := context.WithTimeout(context.Background(), answerTime)
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, "GET", "http://cluster/healthz", nil)
	if err != nil {
		return failed("%w", err)
	}
	a, err := m.health(r)
	if errors.Is(err, io.EOF) || errors.Is(err, syscall.ECONNRESET) { // just when the program was replaced
		a, err = m.health(r)
	}
	switch {
	case err == nil && a.StatusCode == http.StatusOK:
		return nil
	case err == nil:
		return failed("%s: %s is no master's socket: it answers %s", m.name, m.path, a.Status)
	case gone(err):
		return none("%s: %w", m.path, errGone)
	case busy(err) || errors.Is(err, context.DeadlineExceeded):
		why := "it is busy"
		if stopped(m.number()) {
			why = "it is stopped"
		}
		return failed("%s: the master (pid %s) does not answer: %s", m.name, m.numberText(), why)
	}
	return failed("%s: %w", m.name, err)
}

// health asks, and reads the answer.
func (m *master) health(r *http.Request) (*http.Response, error) {
	a, err := m.client.Do(r)
	if err == nil {
		_, err = io.Copy(io.Discard, io.LimitReader(a.Body, 1<<10))
		a.Body.Close()
	}
	return a, err
}

// number is the master's pid, 0 if that is not known.
func (m *master) number() int {
	if pid := int(m.listen.Load()); pid > 0 {
		return pid
	}
	pid, _ := strconv.Atoi(m.pid)
	return pid
}

func (m *master) numberText() string {
	if pid := m.number(); pid > 0 {
		return strconv.Itoa(pid)
	}
	return "unknown"
}

// unknownPath is what package net/http says of what nobody serves.
const unknownPath = "404 page not found"

// answer is what the master says to a question or an order, which is to be closed.
// Anything but 200 is an error with its reason.
func (m *master) answer(ctx context.Context, method, where, accept string) (io.ReadCloser, error) {
	r, err := http.NewRequestWithContext(ctx, method, "http://cluster"+where, nil)
	if err != nil {
		return nil, failed("%w", err)
	}
	if asked := r.URL.EscapedPath(); path.Clean(asked) != asked {
		// By a name that is "", "." or "..": the master would take it for another path.
		return nil, failed("%s: nobody has that name, in %s", m.name, asked)
	}
	r.Header.Set("X-Cluster", "1")
	if accept != "" {
		r.Header.Set("Accept", accept)
	}
	a, err := m.client.Do(r)
	if err != nil {
		return nil, m.broken(err)
	}
	if a.StatusCode != http.StatusOK {
		defer a.Body.Close()
		if why := reason(a); why != unknownPath {
			return nil, failed("%s: %s", m.name, unnamed(why))
		}
		return nil, failed("%s: the master's package admin does not know that yet, it is an older one", m.name)
	}
	return a.Body, nil
}

// hungUp is that an answer has not come, or has ended early.
type hungUp struct{ error }

// broken says what an answer that ends early means.
func (m *master) broken(err error) error {
	return failed("%s: the master (pid %s) has ended, or hung up, before it was done: %w", m.name, m.numberText(), hungUp{err})
}

// reason is why an answer is none.
func reason(a *http.Response) string {
	b, _ := io.ReadAll(io.LimitReader(a.Body, maxLine))
	var f struct{ Error string }
	if json.Unmarshal(b, &f) == nil && f.Error != "" {
		return f.Error
	}
	if text := strings.TrimSpace(string(b)); text != "" {
		return text
	}
	return a.Status
}

// get asks, and reads all of the answer: once more if the master's program was replaced
// meanwhile.
func (m *master) get(path string) ([]byte, error) { return m.getContext(context.Background(), path) }

func (m *master) getContext(ctx context.Context, path string) ([]byte, error) {
	b, err := m.getOnce(ctx, path)
	if _, cut := errors.AsType[hungUp](err); cut && ctx.Err() == nil && m.comesBack() {
		b, err = m.getOnce(ctx, path)
	}
	return b, err
}

func (m *master) getOnce(ctx context.Context, path string) ([]byte, error) {
	body, err := m.answer(ctx, "GET", path, "")
	if err != nil {
		return nil, err
	}
	defer body.Close()
	b, err := io.ReadAll(io.LimitReader(body, maxAnswer))
	if err != nil {
		return nil, m.broken(err)
	}
	return b, nil
}

// lines asks, or orders, and calls fn with each line of the answer until its end, or an
// error of fn.
func (m *master) lines(method, path string, fn func(line []byte) error) error {
	return m.linesContext(context.Background(), method, path, fn)
}

func (m *master) linesContext(ctx context.Context, method, path string, fn func(line []byte) error) error {
	body, err := m.answer(ctx, method, path, "application/x-ndjson")
	if err != nil {
		return err
	}
	defer body.Close()
	s := bufio.NewScanner(body)
	s.Buffer(make([]byte, 64<<10), maxLine)
	for s.Scan() {
		if len(s.Bytes()) == 0 {
			continue // to keep the connection alive
		}
		if err := fn(s.Bytes()); err != nil {
			return err
		}
	}
	if err := s.Err(); err != nil {
		return m.broken(err)
	}
	return nil
}

// comeTime bounds the wait for a master whose program is being replaced, shortTime where it
// is not known whether that is so.
const (
	comeTime  = 2 * time.Minute
	shortTime = answerTime
)

// follow asks for lines until the master ends. A master whose program is replaced by another
// hangs up, and goes on at the same socket: it is asked again, for path(), which tells where
// to go on.
func (m *master) follow(path func() string, fn func(line []byte) error) error {
	for {
		err := m.lines("GET", path(), fn)
		if _, cut := errors.AsType[hungUp](err); !cut || errors.Is(err, bufio.ErrTooLong) || !m.comesBack() {
			return err
		}
	}
}

// comesBack reports whether the process that has hung up answers again.
func (m *master) comesBack() bool {
	pid := m.listen.Load()
	wait := comeTime
	if pid == 0 {
		wait = shortTime
	}
	m.client.CloseIdleConnections()
	for end := time.Now().Add(wait); time.Now().Before(end); time.Sleep(betweenPrograms) {
		err := m.alive()
		now := m.listen.Load()
		switch {
		case pid > 0 && (isOver(int(pid)) || now > 0 && now != pid):
			return false
		case err == nil:
			return true
		}
	}
	return false
}

// printJSON prints a master's JSON, one line, harmless for a terminal.
func printJSON(b []byte) error {
	_, err := fmt.Println(plainLine(strings.TrimSpace(string(b))))
	return err
}

// printValue prints a value of one's own so.
func printValue(v any) error {
	b, err := json.Marshal(v)
	if err != nil {
		return failed("%w", err)
	}
	return printJSON(b)
}
