// Chat is one room for all who come, whichever worker they are connected to.
//
//	cd examples/chat        # a module of its own: it needs a package for websockets
//	go run .
//
// Open http://localhost:8000 in a few windows: each line says which worker its sender
// has. A reload (kill -HUP of the master) closes every websocket with 1001, going away,
// and a worker that is killed cuts its own; the page comes back to another worker, and
// says again what it has not heard itself say. So whoever is connected misses nothing.
package main

import (
	"context"
	_ "embed"
	"flag"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"time"

	"github.com/coder/websocket"
	"github.com/coder/websocket/wsjson"
	"github.com/go-cluster/cluster"
	"github.com/go-cluster/cluster/coord"
)

// message is what somebody says. Its ID, which the browser makes, tells that it has
// been heard before.
type message struct {
	ID     string `json:"id"`
	From   string `json:"from"`
	Text   string `json:"text"`
	Worker int    `json:"worker"`
}

// patience is how long a browser may take for a message before it is cut off.
const patience = 10 * time.Second

// talk is what one browser says and hears.
func talk(w http.ResponseWriter, r *http.Request) {
	c, err := websocket.Accept(w, r, nil)
	if err != nil {
		return // the browser has been told
	}
	defer c.CloseNow()
	defer context.AfterFunc(cluster.Context(), func() { c.Close(websocket.StatusGoingAway, "come back") })()

	// All hear the same messages in the same order, the own ones among them.
	defer coord.Subscribe("chat", func(m message) {
		ctx, cancel := context.WithTimeout(r.Context(), patience)
		defer cancel()
		wsjson.Write(ctx, c, m) // if it fails the connection is closed, and Read below fails
	})()
	for {
		var m message
		if err := wsjson.Read(r.Context(), c, &m); err != nil {
			return
		}
		m.Worker = cluster.Worker.ID()
		if err := coord.Publish("chat", m); err != nil {
			log.Print(err)
			return // the browser will say it again
		}
	}
}

//go:embed page.html
var page string

func main() {
	addr := flag.String("addr", ":8000", "address to listen on")
	flag.Parse()

	cluster.OnListening(func(w *cluster.Process, addr net.Addr) {
		fmt.Printf("worker %d (pid %d) listening on %s\n", w.ID(), w.PID(), addr)
	})
	// Connections stay for long, so they are better handed out in turn.
	if err := cluster.SetupMaster(cluster.Options{Scheduling: cluster.RoundRobin}); err != nil {
		log.Fatal(err)
	}
	if err := cluster.AutoFork(); err != nil {
		log.Fatal(err)
	}
	http.HandleFunc("/{$}", func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, page) })
	http.HandleFunc("/chat", talk)
	if err := cluster.ListenAndServe(*addr, nil); err != nil {
		log.Fatal(err)
	}
}
