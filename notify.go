package cluster

import (
	"fmt"
	"time"

	"github.com/go-cluster/cluster/internal/supervise"
	"github.com/go-cluster/cluster/internal/systemd"
)

// notifier tells a service manager how the cluster is. It is at work during Run.
// Its fields belong to the master's mailbox.
type notifier struct {
	manager systemd.Notifier
	ready   bool        // that is said, or nobody waits for it
	look    *time.Timer // looks at those who may never listen; nil outside Run
	alive   *time.Timer // when the watchdog is to be told
}

// census is how the cluster is, as a service manager wants to know it.
type census struct {
	up, need int  // workers that do their work, and how many must
	waiting  bool // one that is online may do so soon, without a word
	alive    bool // one is online, and no slot is stalled
}

// notifyBegin is called when a Run begins.
func (m *master) notifyBegin() {
	n := &m.notifier
	n.manager.Begin()
	n.ready = false
	n.look = time.AfterFunc(supervise.NeverListens, func() { m.post(m.notifyUp) })
	if n.manager.Watchdog() > 0 {
		m.notifyAlive()
	}
	m.notifyUp()
}

// notifyEnd is called when the stop begins.
func (m *master) notifyEnd() {
	n := &m.notifier
	n.manager.Notify(systemd.Stopping)
	n.manager.End()
	if n.look != nil { // nil if the Run ends before its workers began
		n.look.Stop()
	}
	if n.alive != nil {
		n.alive.Stop()
	}
	n.ready, n.look, n.alive = false, nil, nil
}

// notifyUp says that the cluster is up once enough workers are.
func (m *master) notifyUp() {
	n := &m.notifier
	if n.look == nil || n.ready {
		return
	}
	c := m.census()
	if c.up >= c.need && c.up > 0 {
		n.ready = true
		n.manager.Notify(systemd.Ready(fmt.Sprintf("%d workers up", c.up)))
		go m.logUnusedSockets()
	} else if c.waiting {
		n.look.Reset(supervise.NeverListens)
	}
}

// notifyReloading opens what notifyReloaded must close, for a reload that fails
// too.
func (m *master) notifyReloading() { m.notifier.manager.Notify(systemd.Reloading()) }

func (m *master) notifyReloaded(r ReloadResult) {
	status := fmt.Sprintf("generation %d", r.Generation)
	if r.Err != nil {
		status = r.Err.Error()
	}
	m.notifier.manager.Notify(systemd.Ready(status))
}

// notifyAlive tells the watchdog that all is well, if it is, and does so twice as
// often as it wants to hear it.
func (m *master) notifyAlive() {
	n := &m.notifier
	if n.look == nil {
		return // the Run has ended
	}
	if m.census().alive {
		n.manager.Notify(systemd.Alive)
	}
	n.alive = time.AfterFunc(n.manager.Watchdog()/2, func() { m.post(m.notifyAlive) })
}

// census counts, for notifier.
func (m *master) census() (c census) {
	s := m.supervisor.Snapshot(time.Now())
	stalled := false
	for _, w := range s.Workers {
		state := w.Worker.State
		c.alive = c.alive || state == supervise.Online || state == supervise.Ready
		stalled = stalled || w.Worker.Watch.Stalled
		switch {
		case s.Target > 0 && w.Worker.Slot == 0:
		case w.Up:
			c.up++
		case state == supervise.Online:
			c.waiting = true
		}
	}
	c.alive = c.alive && !stalled
	c.need = s.Target
	if opts, err := m.current(); err == nil && opts.MinReady > 0 {
		c.need = min(c.need, opts.MinReady)
	}
	return c
}
