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

// Ready is the text that says that the service is up, or up again after
// Reloading. The status is for people.
func Ready(status string) string {
	return "READY=1\nSTATUS=" + strings.ReplaceAll(status, "\n", " ")
}

// Reloading is the text that opens a reload, which Ready closes, also of a reload
// that fails: the manager waits for it.
func Reloading() string {
	return "RELOADING=1\nMONOTONIC_USEC=" + strconv.FormatInt(monotonic().Microseconds(), 10) + "\nSTATUS=reloading"
}

// Socket is one that a service manager gave to this process.
type Socket struct {
	FD   int
	Name string // in LISTEN_FDNAMES: of the unit, or under which this process had it kept; "" if nobody says
}

// Notifier tells a service manager how the service is. The zero value says
// nothing, and can Begin.
type Notifier struct {
	socket   string // "" for none
	watchdog time.Duration
	out      mailbox.Mailbox
}

// Begin looks for the manager that this process has.
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

// Watchdog is how often, at the least, the manager wants to be told Alive; 0 if it
// does not.
func (n *Notifier) Watchdog() time.Duration { return n.watchdog }

// Present reports whether there is a manager to tell.
func (n *Notifier) Present() bool { return n.socket != "" }

// Notify sends one datagram, and does not wait for that.
func (n *Notifier) Notify(text string) { n.send(text, nil, func() {}) }

// Store gives the manager duplicates of the descriptors, to be kept beyond this process
// under the name, which is ASCII without control characters and ":", of at most 255
// bytes. It keeps those of a name together; one that it has already is not added. The
// descriptors must stay open until sent is called. The manager does not look at what
// becomes of them: a socket that somebody has shut down may be mended.
func (n *Notifier) Store(name string, fds []int, sent func()) {
	n.send("FDSTORE=1\nFDPOLL=0\nFDNAME="+name, fds, sent)
}

// Unstore ends that.
func (n *Notifier) Unstore(name string) { n.Notify("FDSTOREREMOVE=1\nFDNAME=" + name) }

// send sends text with descriptors, and calls sent when it has, or cannot.
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

// End is after the last Notify, until Begin.
func (n *Notifier) End() { n.socket, n.watchdog = "", 0 }

// Flush waits until all is sent, or for done.
func (n *Notifier) Flush(done <-chan struct{}) {
	sent := make(chan struct{})
	n.out.Post(func() { close(sent) })
	select {
	case <-sent:
	case <-done:
	}
}
