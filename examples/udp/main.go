// UDP answers datagrams: all workers read from one shared socket, and each
// datagram goes to one of them.
//
//	go run ./examples/udp
//	echo hello | nc -u -w 1 localhost 9000
package main

import (
	"context"
	"flag"
	"fmt"
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

	c, err := cluster.ListenPacket("udp", *addr)
	if err != nil {
		log.Fatal(err)
	}
	buf := make([]byte, 64<<10)
	for {
		n, from, err := c.ReadFrom(buf) // waits while the worker is drained
		if err != nil {
			log.Fatal(err)
		}
		answer := fmt.Appendf(nil, "worker %d: %s", cluster.Worker.ID(), buf[:n])
		if _, err := c.WriteTo(answer, from); err != nil {
			log.Print(err)
		}
	}
}
