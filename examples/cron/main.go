// Cron does a job every second in one worker of the cluster. When that worker dies
// another one goes on within milliseconds, and never do two at once: each line of
// the log says which worker did the job, and since when it leads.
//
//	go run ./examples/cron
//	curl localhost:8000        # which worker leads
//	kill -9 PID                # the pid of that worker
package main

import (
	"context"
	"flag"
	"fmt"
	"log"
	"net"
	"net/http"
	"os"
	"time"

	"github.com/go-cluster/cluster"
	"github.com/go-cluster/cluster/coord"
)

// job is done every second, until ctx ends.
func job(ctx context.Context, every time.Duration) error {
	began := time.Now()
	fmt.Printf("worker %d (pid %d) leads\n", cluster.Worker.ID(), os.Getpid())
	tick := time.NewTicker(every)
	defer tick.Stop()
	for n := 1; ; n++ {
		fmt.Printf("worker %d does the job: %d since %s\n", cluster.Worker.ID(), n, began.Format("15:04:05.000"))
		select {
		case <-tick.C:
		case <-ctx.Done():
			fmt.Printf("worker %d leads no more\n", cluster.Worker.ID())
			return nil // ctx has ended, so another worker goes on
		}
	}
}

func main() {
	addr := flag.String("addr", ":8000", "address to listen on")
	every := flag.Duration("every", time.Second, "how often the job is done")
	flag.Parse()

	cluster.OnListening(func(w *cluster.Process, addr net.Addr) {
		fmt.Printf("worker %d listening on %s\n", w.ID(), addr)
	})
	if err := cluster.AutoFork(); err != nil {
		log.Fatal(err)
	}
	// In the master, which has forked, Lead runs nothing.
	coord.Lead("job", func(ctx context.Context) error { return job(ctx, *every) })

	http.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintf(w, "worker %d leads: %v\n", cluster.Worker.ID(), coord.Leads("job"))
	})
	if err := cluster.ListenAndServe(*addr, nil); err != nil {
		log.Fatal(err)
	}
}
