// TCP is an echo server on a plain TCP listener: cluster.Listen takes the place
// of net.Listen, and all workers accept on one shared socket.
//
//	go run ./examples/tcp
//	echo hello | nc -N localhost 9000
package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"log"
	"net"

	"github.com/go-cluster/cluster"
)

func main() {
	addr := flag.String("addr", ":9000", "address to listen on")
	flag.Parse()

	if cluster.IsMaster() {
		cluster.OnListening(func(w *cluster.Process, addr net.Addr) {
			fmt.Printf("worker %d listening on %s\n", w.ID(), addr)
		})
		if err := cluster.Run(context.Background()); err != nil {
			log.Fatal(err)
		}
		return
	}

	ln, err := cluster.Listen("tcp", *addr)
	if err != nil {
		log.Fatal(err)
	}
	for {
		c, err := ln.Accept() // waits while the worker is drained, so no error ends main
		if err != nil {
			log.Fatal(err)
		}
		go func() {
			defer c.Close()
			io.Copy(c, c)
		}()
	}
}
