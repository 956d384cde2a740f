// Node is a cluster of two runtimes behind one port: a worker that is a node
// program (server.js) and one that is its Go twin, this program itself.
//
//	go run ./examples/node
//	curl localhost:8000        # answered by the one or the other
//
// Ctrl-C drains both and ends with status 0. This is how a service moves from
// node to Go: worker by worker, with the port open all the time.
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
	node := flag.String("node", "node", "node's binary")
	script := flag.String("script", "examples/node/server.js", "the node worker's program")
	flag.Parse()

	if cluster.IsMaster() {
		cluster.OnListening(func(w *cluster.Process, addr net.Addr) {
			fmt.Printf("worker %d (pid %d) listening on %s\n", w.ID(), w.PID(), addr)
		})
		cluster.OnMessage(func(w *cluster.Process, m cluster.Message) {
			fmt.Printf("worker %d says %s\n", w.ID(), m)
		})
		if err := forkBoth(*node, *script, *addr); err != nil {
			log.Fatal(err)
		}
	}

	http.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		cluster.Worker.Send(map[string]string{"runtime": "go", "url": r.URL.Path})
		fmt.Fprintf(w, "hello from go, worker %d\n", cluster.Worker.ID())
	})
	if err := cluster.ListenAndServe(*addr, nil); err != nil { // in the master: Run
		log.Fatal(err)
	}
}

// forkBoth starts one worker of each kind. The options of SetupMaster hold for the forks that
// follow it. The connections are handed out in turn, so that both workers answer; with Shared
// the kernel would decide.
func forkBoth(node, script, addr string) error {
	for _, o := range []cluster.Options{
		{Exec: node, Args: []string{script, addr}, Scheduling: cluster.RoundRobin},
		{Scheduling: cluster.RoundRobin}, // this program, with the arguments that it has
	} {
		if err := cluster.SetupMaster(o); err != nil {
			return err
		}
		if _, err := cluster.Fork(); err != nil {
			return err
		}
	}
	return nil
}
