// Exec is a master for workers of another program: the one that its command
// line names. That may be any program with this package in it, or a node script.
//
//	go build -o hello ./examples/hello
//	go run ./examples/exec -workers 2 ./hello -addr :8000
//	go run ./examples/exec node server.js
package main

import (
	"context"
	"flag"
	"fmt"
	"log"
	"net"
	"os"

	"github.com/go-cluster/cluster"
)

func main() {
	workers := flag.Int("workers", 2, "how many to run")
	flag.Parse()
	if flag.NArg() == 0 {
		fmt.Fprintln(os.Stderr, "usage: exec [-workers n] program [argument ...]")
		os.Exit(2)
	}

	err := cluster.SetupMaster(cluster.Options{
		Exec:    flag.Arg(0),
		Args:    flag.Args()[1:],
		Workers: *workers,
	})
	if err != nil {
		log.Fatal(err)
	}
	cluster.OnListening(func(w *cluster.Process, addr net.Addr) {
		fmt.Printf("worker %d of %s listening on %s\n", w.ID(), flag.Arg(0), addr)
	})
	cluster.OnDeath(func(w *cluster.Process, e cluster.Exit) {
		fmt.Printf("worker %d died: %v\n", w.ID(), e)
	})
	if err := cluster.Run(context.Background()); err != nil {
		log.Fatal(err)
	}
}
