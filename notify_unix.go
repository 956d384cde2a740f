//go:build unix

package cluster

import (
	"fmt"
	"net"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/go-cluster/cluster/internal/mailbox"
	"github.com/go-cluster/cluster/internal/supervise"
	"golang.org/x/sys/unix"
)

// notifier tells a service manager how the cluster is: the protocol of
// sd_notify(3). It is at work during Run. Its fields belong to the master's
// mailbox, its sending to a mailbox of its own, since a socket can be full.
type notifier struct {
	socket   string        // "" for none
	ready    bool          // READY=1 is said, or nobody waits for it
	look     *time.Timer   // looks at those who may never listen
	watchdog time.Duration // how often WATCHDOG=1 is due; 0: never
	alive    *time.Timer   // when it is
	out      mailbox.Mailbox
}

// begin is called when a Run begins.
func (m *master) notifyBegin() {
	n := &m.notifier
	n.socket, n.ready, n.watchdog = os.Getenv("NOTIFY_SOCKET"), false, 0
	n.look = time.AfterFunc(supervise.NeverListens, func() { m.post(m.notifyUp) })
	if usec, err := strconv.ParseInt(os.Getenv("WATCHDOG_USEC"), 10, 64); err == nil && usec > 0 {
		if of := os.Getenv("WATCHDOG_PID"); of == "" || of == strconv.Itoa(pid) {
			n.watchdog = time.Duration(usec) * time.Microsecond / 2
			m.notifyAlive()
		}
	}
	m.notifyUp()
}

// notifyEnd is called when the stop begins.
func (m *master) notifyEnd() {
	m.notify("STOPPING=1\nSTATUS=stopping")
	n := &m.notifier
	if n.look != nil { // nil if the Run ends before its workers began
		n.look.Stop()
	}
	if n.alive != nil {
		n.alive.Stop()
	}
	n.socket, n.ready, n.look, n.alive = "", false, nil, nil
}

// notifyFlush waits until all is sent, or for done.
func (m *master) notifyFlush(done <-chan struct{}) {
	sent := make(chan struct{})
	m.notifier.out.Post(func() { close(sent) })
	select {
	case <-sent:
	case <-done:
	}
}

// notifyUp says READY=1 once MinReady workers are up.
func (m *master) notifyUp() {
	n := &m.notifier
	if n.look == nil || n.ready {
		return
	}
	s := m.supervisor.Snapshot(time.Now())
	up, waiting := 0, false
	for _, w := range s.Workers {
		switch {
		case s.Target > 0 && w.Worker.Slot == 0:
		case w.Up:
			up++
		case w.Worker.State == supervise.Online:
			waiting = true
		}
	}
	need := s.Target
	if opts, err := m.current(); err == nil && opts.MinReady > 0 {
		need = min(need, opts.MinReady)
	}
	if up >= need && up > 0 {
		n.ready = true
		m.notify(fmt.Sprintf("READY=1\nSTATUS=%d workers up", up))
		go logUnusedSockets(m.log)
	} else if waiting {
		n.look.Reset(supervise.NeverListens)
	}
}

// notifyReloading opens what notifyReloaded must close, for a reload that fails
// too: the manager waits for it.
func (m *master) notifyReloading() {
	var ts unix.Timespec
	unix.ClockGettime(unix.CLOCK_MONOTONIC, &ts)
	m.notify(fmt.Sprintf("RELOADING=1\nMONOTONIC_USEC=%d\nSTATUS=reloading", ts.Nano()/1000))
}

func (m *master) notifyReloaded(r ReloadResult) {
	status := fmt.Sprintf("generation %d", r.Generation)
	if r.Err != nil {
		status = strings.ReplaceAll(r.Err.Error(), "\n", " ")
	}
	m.notify("READY=1\nSTATUS=" + status)
}

// notifyAlive says WATCHDOG=1 while no slot is stalled and one worker is up.
func (m *master) notifyAlive() {
	n := &m.notifier
	if n.look == nil {
		return // the Run has ended
	}
	up, stalled := false, false
	for _, w := range m.supervisor.Snapshot(time.Now()).Workers {
		up = up || w.Worker.State == supervise.Online || w.Worker.State == supervise.Ready
		stalled = stalled || w.Worker.Watch.Stalled
	}
	if up && !stalled {
		m.notify("WATCHDOG=1")
	}
	n.alive = time.AfterFunc(n.watchdog, func() { m.post(m.notifyAlive) })
}

// notify sends one datagram.
func (m *master) notify(text string) {
	n := &m.notifier
	if n.socket == "" {
		return
	}
	address := n.socket
	n.out.Post(func() {
		c, err := net.DialUnix("unixgram", nil, &net.UnixAddr{Name: address, Net: "unixgram"})
		if err != nil {
			return // the manager is gone; nobody is left to tell
		}
		defer c.Close()
		c.SetWriteDeadline(time.Now().Add(time.Second))
		c.Write([]byte(text))
	})
}
