// Events logs all that happens to the workers, complains about one that does
// not listen two seconds after its fork, and replaces those that die.
//
//	go run ./examples/events
//	curl localhost:8000/crash
//
// AutoFork replaces workers by itself; this is how to do it by hand.
package main

import (
	"context"
	"errors"
	"flag"
	"log"
	"net"
	"net/http"
	"os"
	"time"

	"github.com/go-cluster/cluster"
)

func fork() {
	if _, err := cluster.Fork(); err != nil && !errors.Is(err, cluster.ErrClosed) { // closed: we are stopping
		log.Print(err)
	}
}

func watch() {
	cluster.OnFork(func(w *cluster.Process) {
		log.Printf("worker %d: forked, pid %d", w.ID(), w.PID())
		late := time.AfterFunc(2*time.Second, func() {
			log.Printf("worker %d: something must be wrong with the connection ...", w.ID())
		})
		w.OnListening(func(*cluster.Process, net.Addr) { late.Stop() })
		w.OnExit(func(*cluster.Process, cluster.Exit) { late.Stop() })
	})
	cluster.OnOnline(func(w *cluster.Process) { log.Printf("worker %d: online", w.ID()) })
	cluster.OnListening(func(w *cluster.Process, addr net.Addr) { log.Printf("worker %d: listening on %s", w.ID(), addr) })
	cluster.OnMessage(func(w *cluster.Process, m cluster.Message) { log.Printf("worker %d: message %s", w.ID(), m) })
	cluster.OnDisconnect(func(w *cluster.Process) { log.Printf("worker %d: disconnected", w.ID()) })
	cluster.OnError(func(w *cluster.Process, err error) { log.Printf("worker %d: error: %v", w.ID(), err) })
	cluster.OnDeath(func(w *cluster.Process, e cluster.Exit) {
		log.Printf("worker %d: died, %v, voluntary %t", w.ID(), e, e.Voluntary)
		if !e.Voluntary {
			time.AfterFunc(100*time.Millisecond, fork) // not at once: it may die again
		}
	})
}

func main() {
	addr := flag.String("addr", ":8000", "address to listen on")
	flag.Parse()

	if cluster.IsMaster() {
		watch()
		for range 2 {
			fork()
		}
		if err := cluster.Run(context.Background()); err != nil {
			log.Fatal(err)
		}
		return
	}
	http.HandleFunc("/crash", func(w http.ResponseWriter, r *http.Request) {
		cluster.Worker.SendContext(r.Context(), "about to crash")
		os.Exit(1)
	})
	http.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) { w.Write([]byte("ok\n")) })
	if err := cluster.ListenAndServe(*addr, nil); err != nil {
		log.Fatal(err)
	}
}
