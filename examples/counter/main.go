// Counter counts requests in the master: every handler tells it with
// cluster.Worker.Send, and it prints the sum each second.
//
//	go run ./examples/counter
//	curl localhost:8000
package main

import (
	"flag"
	"fmt"
	"log"
	"net"
	"net/http"
	"sync/atomic"
	"time"

	"github.com/go-cluster/cluster"
)

// note is what a worker sends for each request.
type note struct {
	Cmd  string `json:"cmd"`
	Path string `json:"path"`
}

var numReqs atomic.Int64

// count counts the requests that w reports.
func count(w *cluster.Process) {
	w.OnMessage(func(w *cluster.Process, m cluster.Message) {
		if m.Cmd() == "notifyRequest" {
			numReqs.Add(1)
		}
	})
}

func main() {
	addr := flag.String("addr", ":8000", "address to listen on")
	flag.Parse()

	cluster.OnListening(func(w *cluster.Process, addr net.Addr) {
		fmt.Printf("worker %d listening on %s\n", w.ID(), addr)
	})
	cluster.OnFork(func(w *cluster.Process) {
		if w.ID() > cluster.Settings().Workers { // it replaces one of the first
			count(w)
		}
	})
	if err := cluster.AutoFork(); err != nil {
		log.Fatal(err)
	}
	cluster.EachWorker(count) // what they have sent by now has waited for this
	if cluster.IsMaster() {
		go func() {
			for range time.Tick(time.Second) {
				fmt.Println("numReqs =", numReqs.Load())
			}
		}()
	}

	http.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		if err := cluster.Worker.Send(note{"notifyRequest", r.URL.Path}); err != nil {
			log.Print(err)
		}
		fmt.Fprintf(w, "hello from worker %d\n", cluster.Worker.ID())
	})
	if err := cluster.ListenAndServe(*addr, nil); err != nil {
		log.Fatal(err)
	}
}
