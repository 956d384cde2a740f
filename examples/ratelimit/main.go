// Ratelimit lets each client have a number of requests, whichever workers answer
// them, and counts the requests of all workers together.
//
//	go run ./examples/ratelimit
//	for i in $(seq 20); do curl -s localhost:8000; done
package main

import (
	"flag"
	"fmt"
	"log"
	"math"
	"net"
	"net/http"

	"github.com/go-cluster/cluster"
	"github.com/go-cluster/cluster/coord"
)

func main() {
	addr := flag.String("addr", ":8000", "address to listen on")
	rate := flag.Float64("rate", 1, "requests of a client a second")
	burst := flag.Int("burst", 10, "requests of a client at once")
	flag.Parse()

	cluster.OnListening(func(w *cluster.Process, addr net.Addr) {
		fmt.Printf("worker %d listening on %s\n", w.ID(), addr)
	})
	if err := cluster.AutoFork(); err != nil {
		log.Fatal(err)
	}
	limiter, hits := coord.NewLimiter("requests", *rate, *burst), coord.Open("hits")

	http.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		client, _, _ := net.SplitHostPort(r.RemoteAddr)
		ok, retry, err := limiter.Allow(r.Context(), client)
		if err != nil {
			log.Print(err) // and the request passes
		} else if !ok {
			w.Header().Set("Retry-After", fmt.Sprint(math.Ceil(retry.Seconds())))
			http.Error(w, "slow down", http.StatusTooManyRequests)
			return
		}
		n, err := hits.Incr(r.Context(), "/", 1, 0)
		if err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		fmt.Fprintf(w, "worker %d: hit %d\n", cluster.Worker.ID(), n)
	})
	if err := cluster.ListenAndServe(*addr, nil); err != nil {
		log.Fatal(err)
	}
}
