// Handoff sends each connection to the worker that owns its user, so that what is
// kept about a user is in one process and needs no lock and no database.
//
//	go run ./examples/handoff
//	(echo ann; echo hi; sleep 1) | nc localhost 9000
//
// The first line of a connection names the user. The master reads that line, and whatever has
// come behind it, and sends both with the connection. From there on it has no part in the
// connection. The same user always meets the same worker, however often he comes. When that
// worker is replaced, its successor in the slot is the owner.
package main

import (
	"bufio"
	"context"
	"flag"
	"fmt"
	"hash/fnv"
	"io"
	"log"
	"net"
	"strings"
	"time"

	"github.com/go-cluster/cluster"
)

// visit is the message that goes with a connection.
type visit struct {
	User string `json:"user"`
	Read string `json:"read"` // behind the first line
}

func main() {
	addr := flag.String("addr", ":9000", "address to listen on")
	flag.Parse()
	if cluster.IsWorker() {
		own()
	}
	ln, err := net.Listen("tcp", *addr) // the master's own: no worker accepts on it
	if err != nil {
		log.Fatal(err)
	}
	if err := cluster.AutoFork(); err != nil {
		log.Fatal(err)
	}
	fmt.Printf("listening on %s\n", ln.Addr())
	go accept(ln)
	if err := cluster.Run(context.Background()); err != nil {
		log.Fatal(err)
	}
}

// ---- the master

func accept(ln net.Listener) {
	for {
		conn, err := ln.Accept()
		if err != nil {
			log.Fatal(err)
		}
		go func() {
			defer conn.Close() // the copy that was sent stays open
			if err := handOff(conn); err != nil {
				log.Printf("%s: %v", conn.RemoteAddr(), err)
			}
		}()
	}
}

// handOff reads the user's name and sends the connection to the owner.
func handOff(conn net.Conn) error {
	conn.SetReadDeadline(time.Now().Add(10 * time.Second))
	r := bufio.NewReaderSize(conn, 4096)
	line, err := r.ReadSlice('\n')
	if err != nil {
		return err
	}
	v := visit{User: strings.TrimSpace(string(line))}
	// The reader may have read more than the first line: that would be lost.
	behind, err := r.Peek(r.Buffered())
	if err != nil {
		return err
	}
	v.Read = string(behind)
	w, err := owner(v.User)
	if err != nil {
		return err
	}
	return w.SendHandle(v, conn)
}

// owner returns the worker of the user's slot. While the worker is being replaced there may be
// none.
func owner(user string) (*cluster.Process, error) {
	h := fnv.New32a()
	io.WriteString(h, user)
	slot := int(h.Sum32() % uint32(cluster.Settings().Workers))
	for range 100 {
		for _, w := range cluster.Workers() {
			if w.Slot() == slot && w.State() < cluster.Draining {
				return w, nil
			}
		}
		time.Sleep(50 * time.Millisecond)
	}
	return nil, fmt.Errorf("slot %d has no worker", slot)
}

// ---- a worker

// own serves the connections of the users that this worker owns.
func own() {
	visits := make(map[string]int) // the callbacks run one after another
	cluster.OnMessage(func(_ *cluster.Process, m cluster.Message) {
		var v visit
		if err := m.Decode(&v); err != nil {
			log.Print(err)
			return
		}
		conn, err := m.Conn()
		if err != nil {
			log.Print(err)
			return
		}
		visits[v.User]++
		go serve(conn, v, visits[v.User])
	})
	select {} // the drain ends the process
}

// serve answers every line.
func serve(conn net.Conn, v visit, n int) {
	defer conn.Close()
	fmt.Fprintf(conn, "worker %d: welcome %s, visit %d\n", cluster.Worker.ID(), v.User, n)
	lines := bufio.NewScanner(io.MultiReader(strings.NewReader(v.Read), conn))
	for lines.Scan() {
		fmt.Fprintf(conn, "worker %d: %s says %s\n", cluster.Worker.ID(), v.User, lines.Text())
	}
}
