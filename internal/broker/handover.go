package broker

import (
	"encoding/json"
	"fmt"
	"time"

	"github.com/go-cluster/cluster/internal/coordinate"
	"github.com/go-cluster/cluster/internal/errs"
)

// What another program of this process needs that is to go on.

// Hold keeps the state from what workers and this process ask, which waits until release
// is called. What is said of workers (Leave, Dead and so on) does not wait: it is done by
// State, or by release. The channels of the workers must not be read meanwhile by anybody
// whom that would stop.
func (b *Broker) Hold() (release func()) {
	b.holding.Lock()
	defer b.holding.Unlock()
	b.mu.Lock()
	b.held = true
	return func() {
		b.holding.Lock()
		defer b.holding.Unlock()
		b.catchUp()
		b.held = false
		b.mu.Unlock()
	}
}

// catchUp carries out what has come while the Broker was held. b.holding and b.mu are held.
func (b *Broker) catchUp() {
	for _, fn := range b.later {
		b.carryOut(fn)
	}
	b.later = nil
}

// State is the state as data. The Broker is held.
func (b *Broker) State() ([]byte, error) {
	b.holding.Lock()
	defer b.holding.Unlock()
	b.catchUp()
	return json.Marshal(b.st)
}

// Restore goes on with a state, before this process has asked anything: from its beginning
// it sees what the workers lead, hold and have stored. What the process itself had in
// that state is free: it was another program's. What the workers are to be told waits for
// Adopt, and nothing of theirs is received before.
func (b *Broker) Restore(written []byte) error {
	st, err := coordinate.Restore(written)
	if err != nil {
		return err
	}
	b.turn(func(now time.Time) []coordinate.Note {
		b.st, b.absent = st, make(map[int]*absent)
		for id := range st.Members {
			b.absent[id] = new(absent)
		}
		notes := st.Dead(now, 0)
		st.Join(0, -1, 0)
		return notes
	})
	return nil
}

// Adopt connects the workers of a restored state, and tells them what has waited. The
// channels of those that are not among peers have closed.
func (b *Broker) Adopt(peers map[int]Peer) {
	b.turn(func(time.Time) []coordinate.Note {
		waited := b.absent
		b.absent, b.peers = nil, peers
		for id, p := range peers {
			if w := waited[id]; w != nil {
				for _, tell := range w.waits {
					tell(p)
				}
			}
		}
		return b.st.Fork() // it has workers, whatever was done meanwhile
	})
}

// Awaited tells what this process may wait for, in a state that is restored and not
// adopted: who has it is not heard before. It is "" if there is nothing.
func (b *Broker) Awaited() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.absent == nil {
		return ""
	}
	return b.st.Awaited(0)
}

// absentRoom bounds what is published for a worker until it is adopted, in bytes.
const absentRoom = 4 << 20

// absent is a worker until it is adopted: what it is to be told.
type absent struct {
	waits []func(Peer)
	size  int // of the published messages among them
}

// reach calls tell with a member's Peer, perhaps later. b.mu is held.
func (b *Broker) reach(id int, tell func(Peer)) {
	if p := b.peers[id]; p != nil {
		tell(p)
	} else if w := b.absent[id]; w != nil {
		w.waits = append(w.waits, tell)
	}
}

// postpone keeps a published message for an absent worker, if not too much waits for it
// already. b.mu is held.
func (b *Broker) postpone(id int, number uint64, topic string, l []byte) {
	w := b.absent[id]
	switch {
	case w == nil:
	case w.size > 0 && w.size+len(l) > absentRoom:
		b.st.Miss(number, 1)
		if !b.missed[id] {
			b.missed[id] = true
			b.reach(id, func(p Peer) {
				p.Report(fmt.Errorf("cluster: topic %q: much was published before this program went on with the workers; the worker misses messages: %w", topic, errs.Backlog))
			})
		}
	default:
		w.size += len(l)
		w.waits = append(w.waits, func(p Peer) { b.offer(p, id, number, topic, l) })
	}
}

// Pretend makes this process the check of an upgrade. What must be done in one process at
// a time, or once, is done elsewhere, or was: nothing of that runs here.
func (b *Broker) Pretend() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.st.Fork()
	b.pretends = true
}
