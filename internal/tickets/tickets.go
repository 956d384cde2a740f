// Package tickets has the keys of TLS session tickets that the processes of a cluster
// share.
//
// A TLS server gives its clients tickets by which they resume their session, sealed
// with a key. Go's server makes that key itself, so a client that comes to another
// worker, or to the same slot after a reload, begins anew. Here the master makes the
// keys and every worker has the same ones.
//
// Three keys are valid at a time: the first makes tickets, and all open them. Every
// Period a new one comes and the oldest goes. The new one only opens tickets at first:
// when it comes to make them, a Period later, every worker has it. So no worker meets
// a ticket that it cannot open, however late it hears of a new key.
//
// # Parts
//
// A Maker, in the master, owns the keys and the timer that replaces them; it tells of
// new ones by a function of its owner. A Holder, in a worker, has the keys that it was
// given and the tls.Configs that use them. It holds those weakly: a config that a
// program has dropped goes.
//
// Maker.mu guards the keys, Holder.mu the keys and the configs. Neither is held while a
// function of the owner is called. tls.Config has a lock of its own, which is taken
// while Holder.mu is held.
//
// The times are tested in a synctest bubble, Decode is fuzzed, and the tests of the
// root resume sessions between real processes.
package tickets

import (
	"crypto/rand"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"slices"
	"sync"
	"time"
	"weak"
)

// Period is how long a key makes tickets. It opens them for a Period before and one
// after.
const Period = 24 * time.Hour

// Keys are what tls.Config.SetSessionTicketKeys takes: the first makes tickets, all
// open them.
type Keys [][32]byte

// Encode writes k for Decode.
func (k Keys) Encode() []byte {
	texts := make([][]byte, len(k))
	for i := range k {
		texts[i] = k[i][:]
	}
	b, _ := json.Marshal(texts) // bytes always encode
	return b
}

// maxKeys bounds what Decode takes.
const maxKeys = 16

// Decode reads what Encode has written.
func Decode(b []byte) (Keys, error) {
	var texts [][]byte
	if err := json.Unmarshal(b, &texts); err != nil {
		return nil, fmt.Errorf("session ticket keys: not JSON as it should be") // err may quote a key
	}
	if len(texts) == 0 || len(texts) > maxKeys {
		return nil, fmt.Errorf("session ticket keys: %d of them", len(texts))
	}
	k := make(Keys, len(texts))
	for i, text := range texts {
		if len(text) != len(k[i]) {
			return nil, fmt.Errorf("session ticket keys: one of %d bytes", len(text))
		}
		copy(k[i][:], text)
	}
	return k, nil
}

// Maker makes the keys.
type Maker struct {
	changed func()

	mu                      sync.Mutex
	previous, current, next [32]byte
	timer                   *time.Timer
	due                     time.Time // of timer
}

// New returns a Maker with new keys. changed is called, on a goroutine of its own,
// whenever there is a new one.
func New(changed func()) *Maker {
	m := &Maker{changed: changed, previous: random(), current: random(), next: random(), due: time.Now().Add(Period)}
	m.timer = time.AfterFunc(Period, m.rotate)
	return m
}

func random() (key [32]byte) {
	rand.Read(key[:]) // it never fails
	return key
}

func (m *Maker) rotate() {
	m.mu.Lock()
	m.previous, m.current, m.next = m.current, m.next, random()
	m.timer.Reset(Period)
	m.due = time.Now().Add(Period)
	m.mu.Unlock()
	m.changed()
}

// Keys are the valid ones.
func (m *Maker) Keys() Keys {
	m.mu.Lock()
	defer m.mu.Unlock()
	return Keys{m.current, m.next, m.previous}
}

// State is what a Maker has, for one in another process that goes on.
type State struct {
	Keys Keys // previous, current, next
	Left time.Duration
}

// State returns it.
func (m *Maker) State() State {
	m.mu.Lock()
	defer m.mu.Unlock()
	return State{Keys{m.previous, m.current, m.next}, max(0, time.Until(m.due))}
}

// Restore returns a Maker that goes on with the keys of another.
func Restore(s State, changed func()) (*Maker, error) {
	if len(s.Keys) != 3 {
		return nil, fmt.Errorf("session ticket keys: %d of them", len(s.Keys))
	}
	m := &Maker{changed: changed, previous: s.Keys[0], current: s.Keys[1], next: s.Keys[2]}
	left := min(s.Left, Period)
	m.mu.Lock() // the timer may be due at once
	defer m.mu.Unlock()
	m.due = time.Now().Add(left)
	m.timer = time.AfterFunc(left, m.rotate)
	return m, nil
}

// Holder sets the keys of tls.Configs. Its zero value has neither.
type Holder struct {
	mu      sync.Mutex
	keys    Keys
	configs []weak.Pointer[tls.Config]
}

// Share makes c use the keys, now and as they change.
func (h *Holder) Share(c *tls.Config) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.configs = append(h.live(), weak.Make(c))
	if len(h.keys) > 0 {
		c.SetSessionTicketKeys(h.keys)
	}
}

// Set gives the keys to all configs.
func (h *Holder) Set(keys Keys) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.keys = slices.Clone(keys)
	h.configs = h.live()
	for _, p := range h.configs {
		if c := p.Value(); c != nil {
			c.SetSessionTicketKeys(h.keys)
		}
	}
}

// live are the configs that somebody still has.
func (h *Holder) live() []weak.Pointer[tls.Config] {
	return slices.DeleteFunc(h.configs, func(p weak.Pointer[tls.Config]) bool { return p.Value() == nil })
}
