// Sticky is the primary of socket.io's module @socket.io/sticky, in Go: its workers
// are node processes, and each client reaches the worker that has its session. With
// HTTP long polling a client of socket.io needs that, since every poll is a request
// of its own.
//
//	cd examples/sticky && npm install && cd ../..
//	go run ./examples/sticky
//
// The master reads the head of a connection's first request, and its body if it has one. The
// session's id is in the URL. The master sends the connection, and what it has read, to the
// worker that has said that it has that session. If there is no session, the next worker gets
// it. The worker answers with "Connection: close", so that the client's next request comes to
// the master again.
package main

import (
	"bufio"
	"bytes"
	"context"
	"flag"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"sync"
	"time"

	"github.com/go-cluster/cluster"
)

func main() {
	addr := flag.String("addr", ":8000", "address to listen on")
	node := flag.String("node", "node", "node's binary")
	script := flag.String("script", "examples/sticky/worker.js", "the workers' program")
	flag.Parse()
	if err := cluster.SetupMaster(cluster.Options{Exec: *node, Args: []string{*script}}); err != nil {
		log.Fatal(err)
	}
	s := &sessions{owner: make(map[string]*cluster.Process), said: make(chan struct{})}
	cluster.OnMessage(s.message)
	cluster.OnDeath(s.dead)
	cluster.OnOnline(func(w *cluster.Process) { fmt.Printf("worker %d online\n", w.ID()) })
	ln, err := net.Listen("tcp", *addr)
	if err != nil {
		log.Fatal(err)
	}
	if err := cluster.AutoFork(); err != nil {
		log.Fatal(err)
	}
	fmt.Printf("listening on %s\n", ln.Addr())
	go s.accept(ln)
	if err := cluster.Run(context.Background()); err != nil {
		log.Fatal(err)
	}
}

// sessions are the sessions of all workers.
type sessions struct {
	mu    sync.Mutex
	owner map[string]*cluster.Process
	said  chan struct{} // closed by the next worker that has a new session
	turn  int
}

// message handles a message of the module: a worker has a session, or has it no more.
func (s *sessions) message(w *cluster.Process, m cluster.Message) {
	var said struct{ Type, Data string }
	if err := m.Decode(&said); err != nil {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	switch said.Type {
	case "sticky:connection":
		s.owner[said.Data] = w
		close(s.said)
		s.said = make(chan struct{})
	case "sticky:disconnection":
		delete(s.owner, said.Data)
	}
}

func (s *sessions) dead(w *cluster.Process, _ cluster.Exit) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for id, owner := range s.owner {
		if owner == w {
			delete(s.owner, id)
		}
	}
}

// maxNews is how long a worker may take to say that it has a session. The client learns the
// session's id from the answer, and may come back before the worker's message is here.
const maxNews = time.Second

// choose returns the worker that has the session, or the next worker if it is gone.
func (s *sessions) choose(id string) *cluster.Process {
	if id == "" {
		return s.next()
	}
	for timeout := time.After(maxNews); ; {
		s.mu.Lock()
		w, said := s.owner[id], s.said
		s.mu.Unlock()
		if w != nil {
			return w
		}
		select {
		case <-said:
		case <-timeout:
			return s.next() // that worker tells the client that the session has ended
		}
	}
}

// next returns the next worker that is online, or nil.
func (s *sessions) next() *cluster.Process {
	s.mu.Lock()
	defer s.mu.Unlock()
	var up []*cluster.Process
	for _, w := range cluster.Workers() {
		if w.State() >= cluster.Online && w.State() < cluster.Draining {
			up = append(up, w)
		}
	}
	if len(up) == 0 {
		return nil
	}
	s.turn++
	return up[s.turn%len(up)]
}

func (s *sessions) accept(ln net.Listener) {
	for {
		conn, err := ln.Accept()
		if err != nil {
			log.Fatal(err)
		}
		go func() {
			defer conn.Close() // the copy that was sent stays open
			if err := s.pass(conn); err != nil {
				log.Printf("%s: %v", conn.RemoteAddr(), err)
			}
		}()
	}
}

// maxRequest bounds a first request, in bytes: more than socket.io takes.
const maxRequest = 2 << 20

// pass reads the first request and sends the connection on.
func (s *sessions) pass(conn net.Conn) error {
	conn.SetReadDeadline(time.Now().Add(30 * time.Second))
	var read bytes.Buffer
	r := bufio.NewReader(io.TeeReader(io.LimitReader(conn, maxRequest), &read))
	request, err := http.ReadRequest(r)
	if err == io.EOF {
		return nil // a client that has asked for nothing
	} else if err != nil {
		return err
	}
	if _, err := io.Copy(io.Discard, request.Body); err != nil {
		return err
	}
	w := s.choose(request.URL.Query().Get("sid"))
	if w == nil {
		_, err := io.WriteString(conn, "HTTP/1.1 503 Service Unavailable\r\nConnection: close\r\nContent-Length: 0\r\n\r\n")
		return err
	}
	// As a string: in a JSON message node has no Buffer.
	return w.SendHandle(map[string]string{"type": "sticky:connection", "data": read.String()}, conn)
}
