//go:build unix

package clustertest

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/go-cluster/cluster"
)

// GuestOrder is what a guest is to do.
type GuestOrder struct {
	ID      int    `json:"id"`
	Do      string `json:"do"`
	Network string `json:"network,omitempty"`
	Address string `json:"address,omitempty"`
	N       int    `json:"n,omitempty"`
	Text    string `json:"text,omitempty"`

	Config cluster.ListenConfig `json:"config"`
}

// GuestAnswer is the outcome of a GuestOrder.
type GuestAnswer struct {
	N                   int // the number of a socket
	Addr, Text, Err     string
	InUse, Denied, Gone bool // what errors.Is says of Err
}

func guestError(err error) GuestAnswer {
	if err == nil {
		return GuestAnswer{}
	}
	return GuestAnswer{
		Err: err.Error(), InUse: errors.Is(err, syscall.EADDRINUSE),
		Denied: errors.Is(err, syscall.EACCES), Gone: errors.Is(err, cluster.ErrClosed),
	}
}

// Guest is a worker that does what a node primary tells it. Its web server answers with the
// worker's id. A request for /slow reports that it has begun, and ends after "release".
var Guest = Program("guest", func() {
	g := &guestState{released: make(chan struct{}, 100)}
	http.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) { fmt.Fprintf(w, "go %d", cluster.Worker.ID()) })
	http.HandleFunc("/slow", func(w http.ResponseWriter, r *http.Request) {
		Must(cluster.Worker.Send(map[string]string{"event": "slow"}))
		<-g.released
		fmt.Fprintf(w, "go %d", cluster.Worker.ID())
	})
	cluster.OnError(func(_ *cluster.Process, err error) {
		cluster.Worker.Send(map[string]string{"error": err.Error()})
	})
	cluster.Handle("do", func(_ *cluster.Process, o GuestOrder) {
		go func() {
			answer := g.do(o)
			cluster.Worker.Send(map[string]any{"re": o.ID, "value": answer})
		}()
	})
	<-cluster.Context().Done()
	select {}
})

type guestState struct {
	released chan struct{}
	mu       sync.Mutex
	sockets  []io.Closer
}

func (g *guestState) keep(s io.Closer, addr net.Addr) GuestAnswer {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.sockets = append(g.sockets, s)
	return GuestAnswer{N: len(g.sockets) - 1, Addr: addr.String()}
}

func (g *guestState) do(o GuestOrder) GuestAnswer {
	switch o.Do {
	case "listen":
		return g.listen(o)
	case "packet":
		return g.packet(o)
	case "close":
		g.mu.Lock()
		s := g.sockets[o.N]
		g.mu.Unlock()
		return guestError(s.Close())
	case "release":
		g.released <- struct{}{}
	case "disconnect":
		return guestError(cluster.Worker.Disconnect(context.Background()))
	case "disconnected":
		cluster.OnDisconnect(func(*cluster.Process) { os.Exit(o.N) })
	case "kill":
		return guestError(cluster.Worker.Kill())
	case "exit":
		os.Exit(o.N)
	case "panic":
		panic(o.Text)
	case "spin":
		//lint:ignore SA5002 it is to hang
		for {
		}
	case "env":
		return GuestAnswer{Text: os.Getenv(o.Text)}
	case "args":
		return GuestAnswer{Text: strings.Join(os.Args[1:], " ")}
	case "dir":
		dir, err := os.Getwd()
		Must(err)
		return GuestAnswer{Text: dir}
	case "write":
		_, err := io.WriteString(os.NewFile(uintptr(o.N), "extra"), o.Text)
		return guestError(err)
	case "echo":
		echo := func(how string) func(*cluster.Process, cluster.Message) {
			return func(_ *cluster.Process, m cluster.Message) {
				if m.Cmd() != "do" {
					cluster.Worker.Send(map[string]any{how: m})
				}
			}
		}
		cluster.OnMessage(echo("cluster"))
		cluster.Worker.OnMessage(echo("worker"))
	case "send":
		return guestError(cluster.Worker.Send(o.Text))
	case "request":
		return guestError(cluster.Worker.Request(context.Background(), o.Text, nil))
	case "descriptors":
		return GuestAnswer{N: Census().FDs}
	default:
		return doHandles(o)
	}
	return GuestAnswer{}
}

// listen serves HTTP. If N is given, it waits at most that many milliseconds for the primary's
// answer.
func (g *guestState) listen(o GuestOrder) GuestAnswer {
	ctx := context.Background()
	if o.N > 0 {
		brief, cancel := context.WithTimeout(ctx, time.Duration(o.N)*time.Millisecond)
		defer cancel()
		ctx = brief
	}
	ln, err := o.Config.Listen(ctx, o.Network, o.Address)
	if err != nil {
		return guestError(err)
	}
	go func() {
		cluster.Serve(ln, &http.Server{})
		if cluster.Context().Err() != nil {
			os.Exit(0) // drained: nothing is left to wait for
		}
	}()
	return g.keep(ln, ln.Addr())
}

// packet opens a datagram socket that answers each datagram with the worker's id.
func (g *guestState) packet(o GuestOrder) GuestAnswer {
	c, err := o.Config.ListenPacket(context.Background(), o.Network, o.Address)
	if err != nil {
		return guestError(err)
	}
	go func() {
		b := make([]byte, 1500)
		for {
			_, from, err := c.ReadFrom(b)
			if err != nil {
				return
			}
			fmt.Fprintf(packetWriter{c, from}, "go %d", cluster.Worker.ID())
		}
	}()
	return g.keep(c, c.LocalAddr())
}

type packetWriter struct {
	c  net.PacketConn
	to net.Addr
}

func (w packetWriter) Write(p []byte) (int, error) { return w.c.WriteTo(p, w.to) }
