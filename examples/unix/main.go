// Unix serves HTTP on a unix socket. The master makes the socket's file, and removes it at the
// end. If a dead process has left a file there, the master replaces it.
//
//	go run ./examples/unix
//	curl --unix-socket cluster.sock http://localhost/
package main

import (
	"context"
	"flag"
	"fmt"
	"log"
	"net"
	"net/http"

	"github.com/go-cluster/cluster"
)

func main() {
	path := flag.String("path", "cluster.sock", "path of the socket")
	flag.Parse()

	cluster.OnListening(func(w *cluster.Process, addr net.Addr) {
		fmt.Printf("worker %d listening on %s\n", w.ID(), addr)
	})
	if err := cluster.AutoFork(); err != nil {
		log.Fatal(err)
	}
	ln, err := cluster.ListenConfig{Mode: 0o660}.Listen(context.Background(), "unix", *path)
	if err != nil {
		log.Fatal(err)
	}
	srv := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintf(w, "hello from worker %d\n", cluster.Worker.ID())
	})}
	if err := cluster.Serve(ln, srv); err != nil {
		log.Fatal(err)
	}
}
