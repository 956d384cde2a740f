// Fleet is the chat of examples/chat on more than one machine: one room for all who
// come, whichever member of the fleet they are connected to, and a cron that runs once
// in all of them. Two names on one machine do as well as two machines.
//
//	cd examples/fleet               # a module of its own: it needs NATS, and websockets
//	go run . -serve                 # a NATS server on port 4222, if there is none
//	go run . -node a -addr :8001    # a member
//	go run . -node b -addr :8002    # another one
//	go run . -reload a,b            # the workers of a, and then those of b
//
// Open http://localhost:8001 and http://localhost:8002: each line says which worker of
// which member has said it. The cron begins after 15 seconds, which is how long a new
// fleet waits for one that may have been there before. When the worker that runs it is
// killed (kill -9), another one of its member goes on; when the whole member is, the
// other member does, at most 16 seconds later.
//
// A reload closes websockets with 1001, going away. The page comes back to a new worker,
// and says again what it has not heard itself say. So whoever is connected misses
// nothing, as with the reload of a single cluster.
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
	"strings"
	"time"

	"github.com/coder/websocket"
	"github.com/coder/websocket/wsjson"
	"github.com/go-cluster/cluster"
	"github.com/go-cluster/cluster/fleet"
)

// message is what somebody says. Its ID, which the browser makes, tells that it has
// been heard before.
type message struct {
	ID     string `json:"id"`
	From   string `json:"from"`
	Text   string `json:"text"`
	Node   string `json:"node"`
	Worker int    `json:"worker"`
}

// patience is how long a browser may take for a message before it is cut off.
const patience = 10 * time.Second

// room is where all talk.
type room struct{ fleet *fleet.Fleet }

// say says something to all, in every process of every member.
func (r room) say(m message) error {
	m.Node, m.Worker = r.fleet.Node(), cluster.Worker.ID()
	return r.fleet.Publish("chat", m)
}

// talk is what one browser says and hears.
func (r room) talk(w http.ResponseWriter, req *http.Request) {
	c, err := websocket.Accept(w, req, nil)
	if err != nil {
		return // the browser has been told
	}
	defer c.CloseNow()
	defer context.AfterFunc(cluster.Context(), func() { c.Close(websocket.StatusGoingAway, "come back") })()

	// All hear the same messages, the own ones among them, and those of one worker in the
	// same order.
	defer fleet.Subscribe(r.fleet, "chat", func(m message) {
		ctx, cancel := context.WithTimeout(req.Context(), patience)
		defer cancel()
		wsjson.Write(ctx, c, m) // if it fails the connection is closed, and Read below fails
	})()
	for {
		var m message
		if err := wsjson.Read(req.Context(), c, &m); err != nil {
			return
		}
		if err := r.say(m); err != nil {
			log.Print(err)
			return // the browser will say it again
		}
	}
}

// cron says what time it is. It runs in one process of the fleet, until ctx ends.
func (r room) cron(ctx context.Context, every time.Duration) error {
	fence := fleet.Fence(ctx)
	fmt.Printf("the cron runs in worker %d of %s, with fence %d\n", cluster.Worker.ID(), r.fleet.Node(), fence)
	tick := time.NewTicker(every)
	defer tick.Stop()
	for n := 1; ctx.Err() == nil; n++ {
		m := message{ID: fmt.Sprintf("cron/%d/%d", fence, n), From: "cron", Text: time.Now().Format("it is 15:04:05")}
		if err := r.say(m); err != nil {
			log.Print(err) // there is no connection: ctx ends if that stays so
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
		}
	}
	return nil // not done: another one goes on
}

//go:embed page.html
var page string

// member is one cluster of the fleet: this function runs in its master and its workers.
func member(o fleet.Options, addr string, every time.Duration) error {
	// Connections stay for long, so they are better handed out in turn.
	if err := cluster.SetupMaster(cluster.Options{Scheduling: cluster.RoundRobin}); err != nil {
		return err
	}
	f, err := fleet.Join(o)
	if err != nil {
		return err
	}
	if cluster.IsMaster() {
		f.OnJoin(func(m fleet.Member) { fmt.Printf("%s knows %s\n", f.Node(), m.Node) })
		f.OnLeave(func(m fleet.Member) { fmt.Printf("%s has lost %s\n", f.Node(), m.Node) })
	}
	cluster.OnListening(func(w *cluster.Process, addr net.Addr) {
		fmt.Printf("worker %d (pid %d) of %s listening on %s\n", w.ID(), w.PID(), f.Node(), addr)
	})
	if err := cluster.AutoFork(); err != nil {
		return err
	}
	r := room{f}
	if cluster.IsWorker() {
		f.Lead("cron", func(ctx context.Context) error { return r.cron(ctx, every) })
	}
	http.HandleFunc("/{$}", func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, page) })
	http.HandleFunc("/chat", r.talk)
	return cluster.ListenAndServe(addr, nil)
}

func main() {
	url := flag.String("nats", "nats://127.0.0.1:4222", "URL of the NATS server")
	serving := flag.Bool("serve", false, "be that server")
	node := flag.String("node", "", "name of the member")
	addr := flag.String("addr", ":8000", "address that the member listens on")
	every := flag.Duration("every", 10*time.Second, "how often the cron says what time it is")
	nodes := flag.String("reload", "", "members to reload, one after another, with commas between them")
	flag.Parse()

	o := fleet.Options{URL: *url, Name: "chat", Node: *node, Orders: true}
	var err error
	switch {
	case *serving:
		err = serve(*url)
	case *nodes != "":
		err = reload(o, strings.Split(*nodes, ","))
	default:
		err = member(o, *addr, *every)
	}
	if err != nil {
		log.Fatal(err)
	}
}
