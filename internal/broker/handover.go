package broker

import (
	"encoding/json"
	"fmt"
	"time"

	"github.com/go-cluster/cluster/internal/coordinate"
	"github.com/go-cluster/cluster/internal/errs"
)

// What an upgrade needs: another program of this process goes on with the Broker.

// Hold makes the questions of workers and of this process wait until release is called.
// Reports about workers (Leave, Dead and so on) do not make their caller wait: State or
// release carries them out. Meanwhile the channels of the workers must not be read by a
// goroutine that must not wait.
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

// State returns the state as data. It is called during a Hold.
func (b *Broker) State() ([]byte, error) {
	b.holding.Lock()
	defer b.holding.Unlock()
	b.catchUp()
	return json.Marshal(b.st)
}

// Restore goes on with a state. It must be called before this process asks anything, so that
// the process sees from its beginning what the workers lead, hold and have stored. What the
// old program of this process itself led and held is free. Messages to workers wait for
// Adopt, and no messages of workers may be received before that.
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

// Adopt connects the workers of a restored state, and sends them what has waited. The
// channels of workers that are not among peers have closed.
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
		return b.st.Fork() // this process has workers, whatever it has done before
	})
}

// Awaited names something that this process waits for in a state that is restored and not
// adopted yet. If a worker has it, nothing is heard of that before Adopt. Awaited returns ""
// if there is nothing.
func (b *Broker) Awaited() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.absent == nil {
		return ""
	}
	return b.st.Awaited(0)
}

// absentRoom bounds the published messages that wait for a worker until it is adopted, in
// bytes.
const absentRoom = 4 << 20

// absent is a worker that is not adopted yet: what it will be told.
type absent struct {
	waits []func(Peer)
	size  int // bytes of the published messages among them
}

// reach calls tell with a member's Peer, now or when the member is adopted. b.mu is held.
func (b *Broker) reach(id int, tell func(Peer)) {
	if p := b.peers[id]; p != nil {
		tell(p)
	} else if w := b.absent[id]; w != nil {
		w.waits = append(w.waits, tell)
	}
}

// postpone keeps a published message for an absent worker, unless too much waits for it
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

// Pretend makes this process the check of an upgrade. Functions that must run in one process
// at a time, or once, do not run here: they run, or have run, in the cluster.
func (b *Broker) Pretend() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.st.Fork()
	b.pretends = true
}
