// Hello is the smallest cluster: the same three lines for master and workers.
//
//	go run ./examples/hello
//	curl localhost:8000
//
// Ctrl-C drains the workers and ends with status 0.
package main

import (
	"flag"
	"fmt"
	"log"
	"net"
	"net/http"

	"github.com/go-cluster/cluster"
)

func main() {
	addr := flag.String("addr", ":8000", "address to listen on")
	flag.Parse()

	cluster.OnOnline(func(w *cluster.Process) {
		fmt.Printf("worker %d (pid %d) online\n", w.ID(), w.PID())
	})
	cluster.OnListening(func(w *cluster.Process, addr net.Addr) {
		fmt.Printf("worker %d (pid %d) listening on %s\n", w.ID(), w.PID(), addr)
	})

	if err := cluster.AutoFork(); err != nil { // does nothing in a worker
		log.Fatal(err)
	}
	http.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintf(w, "hello from worker %d (pid %d)\n", cluster.Worker.ID(), cluster.Worker.PID())
	})
	if err := cluster.ListenAndServe(*addr, nil); err != nil {
		log.Fatal(err)
	}
}
