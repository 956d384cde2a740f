// Upgrade is a server whose master is replaced by another version of the program while it
// serves. In the directory of this repository:
//
//	go build -ldflags '-X main.version=1' -o server ./examples/upgrade
//	./server                                # it says its pid
//
// and in another terminal, with that pid:
//
//	curl localhost:8000
//	go build -ldflags '-X main.version=2' -o server.new ./examples/upgrade
//	mv server.new server
//	kill -USR2 PID
//	curl localhost:8000
//
// The master is version 2 then, in the same process. It has kept the workers, and goes on
// counting the requests from where version 1 was. Then it replaces the workers, one by one. No
// request is lost. Versions 3 and 4 do not start: one ends in its init, the other in its main.
// The log tells how they have ended, and nothing else happens.
//
// See docs/upgrade.md. Not on Windows.
package main

import (
	"flag"
	"fmt"
	"log"
	"net"
	"net/http"
	"os"
	"sync/atomic"

	"github.com/go-cluster/cluster"
)

var version = "1" // the linker sets it

func init() {
	if version == "3" {
		panic("version 3 finds no configuration")
	}
}

// served is what a worker sends to the master for each request.
type served struct {
	Cmd string `json:"cmd"`
}

// requests is the master's count. It outlives the master's program.
var requests atomic.Int64

func main() {
	addr := flag.String("addr", ":8000", "address to listen on")
	flag.Parse()
	if version == "4" {
		panic("version 4 cannot reach its database")
	}
	if cluster.IsMaster() {
		count()
		tell()
	}
	if err := cluster.AutoFork(); err != nil { // the check of an upgrade ends here
		log.Fatal(err)
	}
	http.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		if err := cluster.Worker.Send(served{"served"}); err != nil {
			log.Print(err)
		}
		fmt.Fprintf(w, "version %s, worker %d\n", version, cluster.Worker.ID())
	})
	if err := cluster.ListenAndServe(*addr, nil); err != nil {
		log.Fatal(err)
	}
	if cluster.IsMaster() {
		log.Printf("%d requests in all", requests.Load())
	}
}

// count counts the requests. It goes on from where the program before was, if there was one.
func count() {
	var n int64
	if _, err := cluster.Upgraded("requests", &n); err != nil {
		log.Fatal(err)
	}
	requests.Store(n)
	cluster.Handle("served", func(*cluster.Process, served) { requests.Add(1) })
	// No handler runs when this is called: requests that come later are counted by the next
	// program.
	cluster.OnUpgrade("requests", func() (any, error) { return requests.Load(), nil })
}

// tell logs what happens. It leaves out an upgrade that fails: the package logs that itself.
func tell() {
	log.Printf("master, pid %d, version %s", os.Getpid(), version)
	cluster.OnListening(func(w *cluster.Process, a net.Addr) {
		log.Printf("worker %d, pid %d, listening on %s", w.ID(), w.PID(), a)
	})
	cluster.OnAdopt(func(w *cluster.Process) {
		log.Printf("worker %d, pid %d, goes on", w.ID(), w.PID())
	})
	cluster.OnUpgraded(func(err error) {
		if err == nil {
			log.Printf("the master is version %s after %d requests", version, requests.Load())
		}
	})
	cluster.OnReload(func(r cluster.ReloadResult) {
		log.Printf("reloaded %d workers, error %v", r.Replaced, r.Err)
	})
}
