package systemd

import (
	"net"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/go-cluster/cluster/internal/mailbox"
)

// Texts for Notify.
const (
	Stopping = "STOPPING=1\nSTATUS=stopping"
	Alive    = "WATCHDOG=1"
)

// Ready returns the text that says that the service is up, or up again after
// Reloading. The status is for people.
func Ready(status string) string {
	return "READY=1\nSTATUS=" + strings.ReplaceAll(status, "\n", " ")
}

// Reloading returns the text that begins a reload. Ready ends it, after a reload that has
// failed as well, since the manager waits for that.
func Reloading() string {
	return "RELOADING=1\nMONOTONIC_USEC=" + strconv.FormatInt(monotonic().Microseconds(), 10) + "\nSTATUS=reloading"
}

// Socket is a socket that a service manager gave to this process.
type Socket struct {
	FD   int
	Name string // in LISTEN_FDNAMES: the unit's, or the name given to Store; "" if there is none
}

// Notifier tells a service manager how the service is. The zero value is ready for Begin,
// and says nothing before.
type Notifier struct {
	socket   string // "" for none
	watchdog time.Duration
	out      mailbox.Mailbox
}

// Begin finds the manager of this process in the environment.
func (n *Notifier) Begin() {
	n.socket, n.watchdog = "", 0
	if !supported {
		return
	}
	n.socket = os.Getenv("NOTIFY_SOCKET")
	usec, err := strconv.ParseInt(os.Getenv("WATCHDOG_USEC"), 10, 64)
	if err != nil || usec <= 0 {
		return
	}
	if of := os.Getenv("WATCHDOG_PID"); of == "" || of == strconv.Itoa(os.Getpid()) {
		n.watchdog = time.Duration(usec) * time.Microsecond
	}
}

// Watchdog returns the time within which the manager wants to hear Alive again, or 0 if it
// does not want to.
func (n *Notifier) Watchdog() time.Duration { return n.watchdog }

// Present reports whether there is a manager to tell.
func (n *Notifier) Present() bool { return n.socket != "" }

// Notify sends one datagram. It does not wait.
func (n *Notifier) Notify(text string) { n.send(text, nil, func() {}) }

// Store gives the manager duplicates of the descriptors, which it keeps under the name when
// this process is gone. The name is ASCII without control characters and ":", of at most 255
// bytes. Several descriptors can have one name; the manager does not add one that it has
// already. The descriptors must stay open until sent is called.
//
// FDPOLL=0 keeps the manager from dropping a socket that somebody has shut down: it may be
// mended.
func (n *Notifier) Store(name string, fds []int, sent func()) {
	n.send("FDSTORE=1\nFDPOLL=0\nFDNAME="+name, fds, sent)
}

// Unstore has the manager close the descriptors of the name.
func (n *Notifier) Unstore(name string) { n.Notify("FDSTOREREMOVE=1\nFDNAME=" + name) }

// send sends text with descriptors. It calls sent when it has sent them, or has failed.
func (n *Notifier) send(text string, fds []int, sent func()) {
	if n.socket == "" {
		sent()
		return
	}
	address := n.socket
	n.out.Post(func() {
		defer sent()
		c, err := net.DialUnix("unixgram", nil, &net.UnixAddr{Name: address, Net: "unixgram"})
		if err != nil {
			return // the manager is gone; nobody is left to tell
		}
		defer c.Close()
		c.SetWriteDeadline(time.Now().Add(time.Second))
		if len(fds) == 0 {
			c.Write([]byte(text))
			return
		}
		writeWith(c, text, fds)
	})
}

// End makes the Notifier say nothing more, until Begin.
func (n *Notifier) End() { n.socket, n.watchdog = "", 0 }

// Flush waits until all is sent, or until done is closed.
func (n *Notifier) Flush(done <-chan struct{}) {
	sent := make(chan struct{})
	n.out.Post(func() { close(sent) })
	select {
	case <-sent:
	case <-done:
	}
}
