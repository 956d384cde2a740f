package fleet

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/go-cluster/cluster"
	"github.com/go-cluster/cluster/internal/mailbox"
	"github.com/nats-io/nats.go"
)

// Member is a cluster of the fleet, as its master's last heartbeat tells.
type Member struct {
	Node     string           `json:"node"`
	Host     string           `json:"host"`
	PID      int              `json:"pid"`      // of the master
	Orders   bool             `json:"orders"`   // it takes Reload, Scale and Stop
	Protocol int              `json:"protocol"` // of heartbeats and orders: with another one than ours, nothing below is known
	Snapshot cluster.Snapshot `json:"snapshot"`
	Seen     time.Time        `json:"-"` // when the heartbeat came, by the clock here
}

// beat is a heartbeat.
type beat struct {
	Member
	Instance string `json:"instance"`
	Leaving  bool   `json:"leaving,omitempty"`
	Takes    bool   `json:"takes,omitempty"` // it has asked for the name, and nobody has it any more
}

// entry is a member that is known.
type entry struct {
	Member
	instance string
	missed   int // half heartbeats since the last one
}

// Half heartbeats without one. Counting ticks and not time, a process that was
// stopped for long reads what waits for it before it takes anybody for lost.
const (
	doubtful = 3 // then another process may have its name
	lost     = 7
)

// roster is what this process knows of the members.
type roster struct {
	me     *self
	conn   *connection
	calls  mailbox.Mailbox // of callbacks
	asked  chan struct{}   // a heartbeat is wanted now
	ended  chan struct{}
	endNow func()
	gone   sync.WaitGroup

	mu      sync.Mutex
	members map[string]*entry
	foreign map[string]bool // instances of which something was reported
	joins   map[*func(Member)]bool
	leaves  map[*func(Member)]bool
}

func newRoster(c *connection) *roster {
	r := &roster{
		me: c.me, conn: c, asked: make(chan struct{}, 1), ended: make(chan struct{}), members: make(map[string]*entry),
		foreign: make(map[string]bool), joins: make(map[*func(Member)]bool), leaves: make(map[*func(Member)]bool),
	}
	r.endNow = sync.OnceFunc(func() { close(r.ended) })
	return r
}

// begin hears the members, and in a master lets them hear of this one. claimed says that
// nobody else who is alive has its name.
func (r *roster) begin(claimed bool) error {
	if _, err := r.conn.nc.Subscribe(r.me.memberSubject("*"), r.heard); err != nil {
		return wrap(err)
	}
	if r.me.master {
		if _, err := r.conn.nc.Subscribe(r.me.whoSubject(), func(*nats.Msg) { r.beatSoon() }); err != nil {
			return wrap(err)
		}
		if err := r.send(beat{Takes: claimed}); err != nil && r.conn.nc.IsConnected() {
			return err
		}
	}
	ask(r.me, r.conn.nc)
	r.gone.Go(r.run)
	return nil
}

// ask asks all masters for a heartbeat.
func ask(me *self, nc *nats.Conn) {
	_ = nc.Publish(me.whoSubject(), nil) // without a connection: again when there is one
}

func (r *roster) beatSoon() {
	select {
	case r.asked <- struct{}{}:
	default:
	}
}

// run sends heartbeats, and counts those that are missing.
func (r *roster) run() {
	tick := time.NewTicker(r.me.set.beat / 2)
	defer tick.Stop()
	asked, again := r.asked, time.NewTimer(0)
	defer again.Stop()
	for n := 1; ; n++ {
		due := n%2 == 0
		select {
		case <-r.ended:
			return
		case <-asked:
			// Many who join at once ask all, and all hear each answer.
			n--
			due, asked = true, nil
			again.Reset(r.me.set.beat / 20)
		case <-again.C:
			n--
			due, asked = false, r.asked
		case <-tick.C:
			r.count()
		}
		if due && r.me.master {
			_ = r.send(beat{}) // there is no connection: the next one
		}
	}
}

// send sends a heartbeat that says this beside what each says.
func (r *roster) send(b beat) error {
	b.Member = Member{Node: r.me.node, Host: hostName(), PID: masterPID(), Orders: r.me.orders, Protocol: protocol}
	b.Instance = r.me.instance
	if !b.Leaving {
		b.Snapshot = cluster.Stats()
		r.take(b) // it knows itself without the server
	}
	err := r.publish(b)
	if errors.Is(err, cluster.ErrTooLarge) && !b.Leaving {
		if r.first(r.me.instance) {
			r.me.report(fmt.Errorf("fleet: the heartbeats of this member, which go without what they tell of its workers: %w", err))
		}
		n := b.Snapshot
		b.Snapshot = cluster.Snapshot{PID: n.PID, Uptime: n.Uptime, Generation: n.Generation, Target: n.Target}
		err = r.publish(b)
	}
	return err
}

func (r *roster) publish(b beat) error {
	body, err := json.Marshal(b)
	if err != nil {
		return err
	}
	return wrap(r.conn.nc.Publish(r.me.memberSubject(token(r.me.node)), body))
}

// heard takes a heartbeat of another master, or of the own one.
func (r *roster) heard(m *nats.Msg) {
	var version struct {
		Node     string `json:"node"`
		Instance string `json:"instance"`
		Protocol int    `json:"protocol"`
		Leaving  bool   `json:"leaving"`
	}
	if err := json.Unmarshal(m.Data, &version); err != nil || version.Node == "" {
		r.me.report(fmt.Errorf("fleet: a heartbeat at %q that is none: %w", m.Subject, cmp.Or(err, errors.New("it has no node"))))
		return
	}
	if version.Protocol != protocol {
		if r.first(version.Instance) {
			r.me.report(fmt.Errorf("fleet: %w: %q has %d, this one %d", ErrVersion, version.Node, version.Protocol, protocol))
		}
		r.take(beat{Member{Node: version.Node, Protocol: version.Protocol}, version.Instance, version.Leaving, false})
		return
	}
	if version.Leaving && version.Instance == r.me.instance {
		return // what this process has said itself: the connection drains, and hears it
	}
	var b beat
	if err := json.Unmarshal(m.Data, &b); err != nil {
		r.me.report(fmt.Errorf("fleet: a heartbeat of %q: %w", version.Node, err))
		return
	}
	if r.me.master && b.Node == r.me.node && b.Instance != r.me.instance {
		if !b.Leaving && r.first(b.Instance) {
			r.me.report(fmt.Errorf("fleet: %w: %q is also that of pid %d at %s", ErrNameTaken, b.Node, b.PID, b.Host))
		}
		return
	}
	r.take(b)
}

// maxForeign is how many instances are remembered of which something was reported.
const maxForeign = 1024

// first reports whether nothing was reported of the instance yet.
func (r *roster) first(instance string) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.foreign[instance] {
		return false
	}
	if len(r.foreign) >= maxForeign {
		clear(r.foreign)
	}
	r.foreign[instance] = true
	return true
}

// take notes a heartbeat.
func (r *roster) take(b beat) {
	b.Seen = time.Now()
	r.mu.Lock()
	defer r.mu.Unlock()
	known := r.members[b.Node]
	switch {
	case known != nil && known.instance == b.Instance:
		if b.Leaving {
			r.leftLocked(known)
			return
		}
		known.Member, known.missed = b.Member, 0
		return
	case b.Leaving || known != nil && known.missed < doubtful && !b.Takes:
		return // of somebody who is not known, or another one of that name
	case known != nil:
		r.leftLocked(known)
	}
	r.members[b.Node] = &entry{Member: b.Member, instance: b.Instance}
	r.tellLocked(r.joins, b.Member)
}

func (r *roster) leftLocked(e *entry) {
	delete(r.members, e.Node)
	r.tellLocked(r.leaves, e.Member)
}

// tellLocked has the callbacks told.
func (r *roster) tellLocked(all map[*func(Member)]bool, m Member) {
	for fn := range all {
		r.callLocked(all, fn, m)
	}
}

// callLocked has one told, unless it is stopped first.
func (r *roster) callLocked(all map[*func(Member)]bool, fn *func(Member), m Member) {
	r.calls.Post(func() {
		r.mu.Lock()
		wanted := all[fn]
		r.mu.Unlock()
		if wanted {
			(*fn)(m)
		}
	})
}

// count counts half a heartbeat of everybody.
func (r *roster) count() {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, e := range r.members {
		if r.me.master && e.instance == r.me.instance {
			continue
		}
		if e.missed++; e.missed >= lost {
			r.leftLocked(e)
		}
	}
}

// leave says that this member leaves.
func (r *roster) leave() {
	r.endNow()
	r.gone.Wait()
	if r.me.master {
		_ = r.send(beat{Leaving: true}) // without a connection they find out
	}
}

func (r *roster) end() {
	r.endNow()
	r.gone.Wait()
}

// add registers a callback.
func (r *roster) add(all map[*func(Member)]bool, fn func(Member), present bool) (stop func()) {
	r.mu.Lock()
	defer r.mu.Unlock()
	all[&fn] = true
	if present {
		for _, e := range r.members {
			r.callLocked(all, &fn, e.Member)
		}
	}
	return func() {
		r.mu.Lock()
		defer r.mu.Unlock()
		delete(all, &fn)
	}
}

func (r *roster) onJoin(fn func(Member)) (stop func())  { return r.add(r.joins, fn, true) }
func (r *roster) onLeave(fn func(Member)) (stop func()) { return r.add(r.leaves, fn, false) }

// list is all who are known, by their names.
func (r *roster) list() []Member {
	r.mu.Lock()
	defer r.mu.Unlock()
	all := make([]Member, 0, len(r.members))
	for _, e := range r.members {
		all = append(all, e.Member)
	}
	slices.SortFunc(all, func(a, b Member) int { return cmp.Compare(a.Node, b.Node) })
	return all
}

// Members are those that are known now, by their names: this one, and all whose
// masters were heard in the last 17 seconds. They tell of themselves every five
// seconds, and when somebody joins. Without a connection all others are gone after
// that time. Right after Join some may be missing: see OnJoin.
func (f *Fleet) Members() []Member { return f.roster.list() }

// OnJoin registers fn for members that join, and calls it for those that are known
// already. Calls of OnJoin and OnLeave come one after another, in the order in which
// it happened.
func (f *Fleet) OnJoin(fn func(Member)) (stop func()) {
	notNil("OnJoin", fn == nil)
	return f.roster.onJoin(fn)
}

// OnLeave registers fn for members that leave: they said so, or three of their
// heartbeats are missing, or the connection of this process is. A master that leaves is
// not told of itself.
func (f *Fleet) OnLeave(fn func(Member)) (stop func()) {
	notNil("OnLeave", fn == nil)
	return f.roster.onLeave(fn)
}
