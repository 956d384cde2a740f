// Command foreign is a service that takes its sockets as systemd passes them, says when
// it is ready, and ends on SIGTERM. It does not import package cluster.
//
// It runs as a worker of a master with Options.Foreign, and
// as a systemd service with a socket.
package main

import (
	"context"
	"fmt"
	"log"
	"net"
	"net/http"
	"os"
	"os/signal"
	"strconv"
	"syscall"
	"time"
)

func main() {
	term := make(chan os.Signal, 1)
	signal.Notify(term, syscall.SIGTERM)
	ln, err := inherited()
	if err != nil {
		log.Fatal(err)
	}
	srv := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintf(w, "hello from pid %d\n", os.Getpid())
	})}
	go srv.Serve(ln)
	log.Print("serving on ", ln.Addr())
	notify("READY=1")

	<-term
	notify("STOPPING=1")
	// Shutdown alone would close connections that were accepted and have sent no request
	// yet. So first stop accepting: another process takes the connections that come now.
	ln.Close()
	time.Sleep(300 * time.Millisecond)
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	if err := srv.Shutdown(ctx); err != nil {
		log.Fatal(err)
	}
}

// inherited returns the socket that this process was started with: sd_listen_fds(3).
func inherited() (net.Listener, error) {
	if os.Getenv("LISTEN_PID") != strconv.Itoa(os.Getpid()) {
		return nil, fmt.Errorf("no socket: start it as a Foreign worker of package cluster, or as a systemd service with a socket")
	}
	f := os.NewFile(3, "socket") // the first; LISTEN_FDS tells how many there are
	defer f.Close()
	return net.FileListener(f)
}

// notify tells the process that has started this one how it is: sd_notify(3).
func notify(text string) {
	c, err := net.Dial("unixgram", os.Getenv("NOTIFY_SOCKET"))
	if err != nil {
		return // it does not want to know
	}
	defer c.Close()
	c.Write([]byte(text))
}
