// Command compare measures a cluster beside what one would use in its place: one plain process
// with net/http, and fasthttp's prefork. The processes of each server together have the same
// number of cores.
//
//	go run .           eight minutes, on a machine that does nothing else
//	go run . -brief    a few seconds, to see that it works
//
// There are four kinds of work. For each, all servers run at the same time, and one after the
// other is measured, round after round. It prints the medians of the rounds. A ratio is the
// median of the ratios to the plain process in the same round, so it means something even on a
// machine that is not quite at rest.
//
// A measurement has two halves. In the first, each connection sends its next
// request when it has its answer: that gives the requests per second. In the
// second, requests come at a fixed rate, half of what the plain process managed
// at first, and the time of each counts from when it was due: that gives the
// percentiles. The connections are spread evenly over the processes of a server,
// so that luck in accepting does not count.
//
// It is a module of its own, for fasthttp.
package main

import (
	"flag"
	"fmt"
	"log"
	"os"
	"runtime"
	"time"
)

// plan says how long it takes.
type plan struct {
	rounds      int
	short, long time.Duration // half a measurement; long where the collector has a large heap
	conns       int
	heap        int // bytes
}

func main() {
	log.SetFlags(0)
	if kind := os.Getenv(serverEnv); kind != "" {
		log.Fatal(serve(kind))
	}
	brief := flag.Bool("brief", false, "only see that it works")
	rounds := flag.Int("rounds", 9, "how often each server is measured")
	flag.Parse()
	p := plan{rounds: *rounds, short: time.Second, long: 2200 * time.Millisecond, conns: 32, heap: 200 << 20}
	if *brief {
		p = plan{rounds: 1, short: 100 * time.Millisecond, long: 100 * time.Millisecond, conns: 8, heap: 20 << 20}
	}
	begun := time.Now()
	fmt.Printf("%s, %d cores, %d rounds, %d connections\n", runtime.Version(), runtime.NumCPU(), p.rounds, p.conns)
	for _, s := range scenarios(p) {
		if err := s.run(p); err != nil {
			log.Fatal(err)
		}
	}
	fmt.Printf("\n%d seconds in all\n", int(time.Since(begun).Seconds()))
}

// scenarios are the kinds of work, each with the servers that do it.
func scenarios(p plan) []scenario {
	n := runtime.NumCPU()
	plain := func(heap, hold int) server {
		return server{"one process, GOMAXPROCS " + itoa(n), "plain", n, 1, heap, hold}
	}
	prefork := func(name string, heap int) server {
		return server{"fasthttp prefork" + name, "prefork", 1, n, heap, 0}
	}
	cluster := func(name string, procs, heap, hold int) server {
		return server{fmt.Sprintf("cluster, %d workers%s, MaxProcs %d", n, name, procs), "cluster", procs, n, heap, hold}
	}
	const brief, most = 4_000, 150_000 // steps under the lock: a few µs, and most of a request's time
	return []scenario{
		{"Hello", p.short, []server{
			plain(0, 0), prefork("", 0), cluster("", 1, 0, 0), cluster("", 2, 0, 0)}},
		{fmt.Sprintf("A heap of %d MB, of objects with pointers; %d are replaced in a request", p.heap>>20, replaced), p.long, []server{
			plain(p.heap, 0), prefork(", heap divided", p.heap/n),
			cluster(", heap divided", 1, p.heap/n, 0), cluster(", heap divided", 2, p.heap/n, 0),
			cluster(", each with all of it", 1, p.heap, 0), cluster(", each with all of it", 2, p.heap, 0)}},
		{"One lock in each process, held for a few µs in a request", p.short, []server{
			plain(0, brief), cluster("", 1, 0, brief), cluster("", 2, 0, brief)}},
		{"One lock in each process, held for most of a request's time", p.short, []server{
			plain(0, most), cluster("", 1, 0, most), cluster("", 2, 0, most)}},
	}
}
