// Production is a server with everything on that a service needs: limits on
// what a worker may grow to, a watchdog with a check, drains with a clean-up,
// events in the log, and the state of the cluster on a port of its own.
//
//	go run ./examples/production
//	curl localhost:8000          a worker
//	curl localhost:8001          the master: cluster.Stats as JSON
//	kill -HUP PID                reload; no HTTP/1 request is lost
//	kill -TTIN PID, kill -TTOU   one worker more, one less
//	kill -TERM PID               drain and end
//
// Under systemd and Kubernetes: see deploy/.
package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"time"

	"github.com/go-cluster/cluster"
)

var (
	addr   = flag.String("addr", ":8000", "address to serve on")
	status = flag.String("status", "127.0.0.1:8001", "address of the master's state; empty: none")
)

func main() {
	flag.Parse()
	err := cluster.SetupMaster(cluster.Options{
		ShutdownTimeout: 25 * time.Second, // below the grace period of deploy/
		Watchdog:        cluster.Watchdog{Timeout: 30 * time.Second},
		Recycle:         cluster.Recycle{Age: 12 * time.Hour, Memory: 512 << 20},
		MinReady:        1, // ready for traffic with the first worker
	})
	if err == nil && cluster.IsMaster() {
		observe()
		err = serveStatus()
	}
	if err == nil {
		err = cluster.AutoFork()
	}
	if err == nil {
		err = serve()
	}
	if err != nil {
		slog.Error("production", "err", err)
		os.Exit(1)
	}
}

// serve is the service: in a worker it serves, in the master it is Run.
func serve() error {
	started := time.Now()
	cluster.OnCheck(func(ctx context.Context) error {
		return nil // ask the database whether it is there; an error is reported, and kills nobody
	})
	cluster.OnShutdown(func(ctx context.Context) error {
		return nil // nothing is in flight any more: flush what is buffered
	})
	http.HandleFunc("/healthz", func(w http.ResponseWriter, r *http.Request) { fmt.Fprintln(w, "ok") })
	http.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintf(w, "worker %d, up %v\n", cluster.Worker.ID(), time.Since(started).Round(time.Second))
	})
	return cluster.ListenAndServe(*addr, nil)
}

// observe logs what happens to the workers.
func observe() {
	log := func(w *cluster.Process) *slog.Logger {
		return slog.With("worker", w.ID(), "slot", w.Slot(), "pid", w.PID())
	}
	cluster.OnListening(func(w *cluster.Process, a net.Addr) { log(w).Info("listening", "address", a.String()) })
	cluster.OnDeath(func(w *cluster.Process, e cluster.Exit) { log(w).Info("gone", "exit", e.String(), "reason", e.Reason) })
	cluster.OnError(func(w *cluster.Process, err error) { log(w).Warn("trouble", "err", err) })
	cluster.OnReload(func(r cluster.ReloadResult) {
		slog.Info("reloaded", "generation", r.Generation, "replaced", r.Replaced, "took", r.Took, "err", r.Err)
	})
}

// serveStatus serves the master's own port, which is no shared one.
func serveStatus() error {
	if *status == "" {
		return nil
	}
	ln, err := net.Listen("tcp", *status)
	if err != nil {
		return err
	}
	slog.Info("status", "address", ln.Addr().String())
	go http.Serve(ln, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		json.NewEncoder(w).Encode(cluster.Stats())
	}))
	return nil
}
