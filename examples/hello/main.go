// Hello is the smallest cluster: master and workers run the same three calls. The
// rest prints what happens.
//
//	go run ./examples/hello
//	for i in 1 2 3 4; do curl localhost:8000; done
//
// Ctrl-C, or a kill of the master, drains the workers and ends with status 0.
package main

import (
	"flag"
	"fmt"
	"log"
	"net"
	"net/http"
	"os"

	"github.com/go-cluster/cluster"
)

func main() {
	addr := flag.String("addr", ":8000", "address to listen on")
	flag.Parse()

	// Each connection goes to the next worker. Without that the kernel chooses, and
	// while there is little to do that may be the same worker again and again.
	if err := cluster.SetupMaster(cluster.Options{Scheduling: cluster.RoundRobin}); err != nil {
		log.Fatal(err)
	}
	if cluster.IsMaster() {
		fmt.Printf("master (pid %d)\n", os.Getpid())
	}
	cluster.OnOnline(func(w *cluster.Process) {
		fmt.Printf("worker %d (pid %d) online\n", w.ID(), w.PID())
	})
	cluster.OnListening(func(w *cluster.Process, addr net.Addr) {
		fmt.Printf("worker %d (pid %d) listening on %s\n", w.ID(), w.PID(), addr)
	})

	if err := cluster.AutoFork(); err != nil { // 1: the master forks; in a worker it does nothing
		log.Fatal(err)
	}
	http.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) { // 2: only workers call it
		fmt.Fprintf(w, "hello from worker %d (pid %d)\n", cluster.Worker.ID(), cluster.Worker.PID())
	})
	if err := cluster.ListenAndServe(*addr, nil); err != nil { // 3: a worker serves; the master looks after the workers
		log.Fatal(err)
	}
}
