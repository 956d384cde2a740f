// Production is a server with everything on that a service needs: limits on
// what a worker may grow to, a watchdog with a check, drains with a clean-up,
// events in the log, and the state of the cluster on a port of its own.
//
//	cd examples/production       # a module of its own: it needs package admin
//	go run .
//	curl localhost:8000          a worker
//	curl localhost:8001/readyz   the master, by package admin: whether it does its work
//	curl localhost:8001/stats    its state; a browser shows it at localhost:8001
//	kill -HUP PID                reload; no HTTP/1 request is lost
//	kill -TTIN PID, kill -TTOU   one worker more, one less
//	kill -TERM PID               drain and end
//
// Under systemd and Kubernetes: see deploy/.
package main

import (
	"context"
	"flag"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"time"

	"github.com/go-cluster/cluster"
	"github.com/go-cluster/cluster/admin"
)

var (
	addr   = flag.String("addr", ":8000", "address to serve on")
	status = flag.String("status", "127.0.0.1:8001", "address of the master's state; empty: none")
	delay  = flag.Duration("shutdown-delay", 0, "how long a stop is announced (/readyz is 503) before anything is refused")
)

func main() {
	flag.Parse()
	err := cluster.SetupMaster(cluster.Options{
		ShutdownTimeout: 25 * time.Second, // below the grace period of deploy/
		ShutdownDelay:   *delay,
		Watchdog:        cluster.Watchdog{Timeout: 30 * time.Second},
		Recycle:         cluster.Recycle{Age: 12 * time.Hour, Memory: 512 << 20},
		MinReady:        1, // ready for traffic with the first worker
	})
	if err == nil {
		_, err = admin.Start(admin.Options{Address: *status})
	}
	if err == nil && cluster.IsMaster() {
		observe()
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
