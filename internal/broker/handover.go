package broker

import (
	"encoding/json"
	"time"

	"github.com/go-cluster/cluster/internal/coordinate"
)

// What another program of this process needs that is to go on.

// Hold keeps the state as it is until release is called. The channels of the workers must
// not be read meanwhile by anybody whom that would stop.
func (b *Broker) Hold() (release func()) {
	b.mu.Lock()
	return b.mu.Unlock
}

// State is the state as data. The Broker is held.
func (b *Broker) State() ([]byte, error) { return json.Marshal(b.st) }

// Restore goes on with a state, for the same workers. What this process itself had in it
// is free: it was another program's.
func (b *Broker) Restore(written []byte, peers map[int]Peer) error {
	st, err := coordinate.Restore(written)
	if err != nil {
		return err
	}
	b.turn(func(now time.Time) []coordinate.Note {
		st.Configure(b.st.Settings)
		b.st, b.peers = st, peers
		notes := st.Dead(now, 0)
		st.Join(0, -1, 0)
		return notes
	})
	return nil
}
