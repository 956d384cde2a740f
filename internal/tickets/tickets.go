// Package tickets has the keys of TLS session tickets that the processes of a cluster
// share.
//
// A TLS server gives its clients tickets, sealed with a key, with which they resume their
// session. Go's server makes that key itself, so a client that comes to another worker, or
// to the same slot after a reload, begins a new session. Here the master makes the keys,
// and every worker has the same ones.
//
// Three keys are valid at a time. The first makes tickets, and all three open them. Every
// Period a new key comes and the oldest one goes. For its first Period a new key only opens
// tickets. By the time that it makes them every worker has it. So no worker meets a ticket
// that it cannot open, even if it hears late of a new key.
//
// # Parts
//
// A Maker, in the master, owns the keys and the timer that replaces them. It calls a
// function of its owner when there is a new key. A Holder, in a worker, has the keys that
// it was given and the tls.Configs that use them. It holds the configs weakly, so one that
// the program has dropped is collected.
//
// Maker.mu guards the keys, Holder.mu the keys and the configs. Neither is held while a
// function of the owner is called. A lock of tls.Config's own is taken while Holder.mu is
// held.
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

// Period is how long a key makes tickets. For a Period before and a Period after that the
// key only opens them.
const Period = 24 * time.Hour

// Keys are keys as tls.Config.SetSessionTicketKeys takes them: the first makes tickets, all
// open them.
type Keys [][32]byte

// Encode returns k as JSON, which Decode reads.
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

// Decode reads keys that Encode has written. No error quotes them.
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
	due                     time.Time // when timer fires
}

// New returns a Maker with new keys. changed is called, on a goroutine of its own,
// whenever a new key has come.
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

// Keys returns the valid keys.
func (m *Maker) Keys() Keys {
	m.mu.Lock()
	defer m.mu.Unlock()
	return Keys{m.current, m.next, m.previous}
}

// State is the state of a Maker, with which Restore makes one in another program.
type State struct {
	Keys Keys          // previous, current, next
	Left time.Duration // until a new key comes
}

// State returns the state of m. m goes on.
func (m *Maker) State() State {
	m.mu.Lock()
	defer m.mu.Unlock()
	return State{Keys{m.previous, m.current, m.next}, max(0, time.Until(m.due))}
}

// Restore returns a Maker with the state of another one. changed is as in New. The error
// says that the number of keys is wrong.
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

// Holder gives keys to tls.Configs. The zero value has no keys and no configs.
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

// Set gives the keys to all configs that were shared, and to those that will be.
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

// live returns the configs that the program has not dropped.
func (h *Holder) live() []weak.Pointer[tls.Config] {
	return slices.DeleteFunc(h.configs, func(p weak.Pointer[tls.Config]) bool { return p.Value() == nil })
}
