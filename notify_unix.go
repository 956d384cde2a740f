//go:build unix

package cluster

import (
	"fmt"
	"net"
	"os"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// notifier tells a service manager how the cluster is: the protocol of
// sd_notify(3). It is at work during Run. Its fields belong to the master's
// mailbox, its sending to a mailbox of its own, since a socket can be full.
type notifier struct {
	socket   string // "" for none
	ready    bool
	watchdog time.Duration // how often WATCHDOG=1 is due; 0: never
	timer    *time.Timer
	out      mailbox
}

// begin is called when a Run begins.
func (m *master) notifyBegin() {
	n := &m.notifier
	n.socket, n.ready = os.Getenv("NOTIFY_SOCKET"), false
	if n.socket == "" {
		return
	}
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
	if m.notifier.timer != nil {
		m.notifier.timer.Stop()
	}
	m.notify("STOPPING=1\nSTATUS=stopping")
}

// neverListens is how long a worker must have been online, and not ready, to
// count as one that will never listen.
const neverListens = 2 * time.Second

// isUp reports whether p does its work.
func (p *Process) isUp() bool {
	switch p.State() {
	case Ready:
		return true
	case Online:
		c := p.child
		return !c.opts.ManualReady && (c.slot == nil || !c.slot.everReady) && time.Since(c.onlineAt) >= neverListens
	}
	return false
}

// notifyUp says READY=1 once MinReady workers are up.
func (m *master) notifyUp() {
	n := &m.notifier
	if n.socket == "" || n.ready {
		return
	}
	up, waiting := 0, false
	for _, p := range m.workers {
		if p.isUp() {
			up++
		} else if p.State() == Online {
			waiting = true
		}
	}
	need := len(m.slots)
	if opts, err := m.current(); err == nil && opts.MinReady > 0 {
		need = min(need, opts.MinReady)
	}
	if up >= need && up > 0 {
		n.ready = true
		m.notify(fmt.Sprintf("READY=1\nSTATUS=%d workers up", up))
		go logUnusedSockets(m.log)
	} else if waiting {
		time.AfterFunc(neverListens, func() { m.post(m.notifyUp) })
	}
}

// notifyReloading opens what notifyReloaded must close, for a reload that fails
// too: the manager waits for it.
func (m *master) notifyReloading() {
	var ts unix.Timespec
	unix.ClockGettime(unix.CLOCK_MONOTONIC, &ts)
	m.notify(fmt.Sprintf("RELOADING=1\nMONOTONIC_USEC=%d\nSTATUS=reloading", ts.Nano()/1000))
}

func (m *master) notifyReloaded() {
	status := fmt.Sprintf("generation %d", m.completed)
	if last := m.lastReload; last.Err != nil {
		status = strings.ReplaceAll(last.Err.Error(), "\n", " ")
	}
	if m.stop == nil {
		m.notify("READY=1\nSTATUS=" + status)
	}
}

// notifyAlive says WATCHDOG=1 while no slot is stalled and one worker is up.
func (m *master) notifyAlive() {
	n := &m.notifier
	up, stalled := false, false
	for _, p := range m.workers {
		up = up || p.State() == Online || p.State() == Ready
		stalled = stalled || p.child.watch.stalled
	}
	if up && !stalled {
		m.notify("WATCHDOG=1")
	}
	n.timer = time.AfterFunc(n.watchdog, func() { m.post(m.notifyAlive) })
}

// notify sends one datagram.
func (m *master) notify(text string) {
	n := &m.notifier
	if n.socket == "" {
		return
	}
	address := n.socket
	n.out.post(func() {
		c, err := net.DialUnix("unixgram", nil, &net.UnixAddr{Name: address, Net: "unixgram"})
		if err != nil {
			return // the manager is gone; nobody is left to tell
		}
		defer c.Close()
		c.SetWriteDeadline(time.Now().Add(time.Second))
		c.Write([]byte(text))
	})
}
