// Drain shows a graceful stop: slow requests survive Ctrl-C, hooks run when the
// last one is answered, and the exit status is 0.
//
//	go run ./examples/drain
//	curl 'localhost:8000/?takes=5s'    and press Ctrl-C meanwhile
//
// A drain is bounded by Options.ShutdownTimeout; a second Ctrl-C makes it two
// seconds.
package main

import (
	"context"
	"flag"
	"fmt"
	"log"
	"net"
	"net/http"
	"time"

	"github.com/go-cluster/cluster"
)

func main() {
	addr := flag.String("addr", ":8000", "address to listen on")
	flag.Parse()

	cluster.OnListening(func(w *cluster.Process, addr net.Addr) {
		fmt.Printf("worker %d listening on %s\n", w.ID(), addr)
	})
	if err := cluster.SetupMaster(cluster.Options{ShutdownTimeout: 20 * time.Second}); err != nil {
		log.Fatal(err)
	}
	if err := cluster.AutoFork(); err != nil {
		log.Fatal(err)
	}
	who := "master"
	if cluster.IsWorker() {
		who = fmt.Sprintf("worker %d", cluster.Worker.ID())
	}
	// In a worker it runs when nothing is in flight any more, in the master when
	// all workers are gone.
	cluster.OnShutdown(func(context.Context) error {
		fmt.Println(who, "has finished")
		return nil
	})

	http.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		takes, err := time.ParseDuration(r.FormValue("takes"))
		if err != nil {
			takes = time.Second
		}
		fmt.Println(who, "works for", takes)
		select {
		case <-time.After(takes):
		case <-r.Context().Done(): // the client went away
			return
		}
		// Long work may look at cluster.Context to finish early.
		fmt.Fprintf(w, "%s took %v; asked to stop meanwhile: %t\n", who, takes, cluster.Context().Err() != nil)
	})
	if err := cluster.ListenAndServe(*addr, nil); err != nil {
		log.Fatal(err)
	}
}
