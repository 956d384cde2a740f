package share

import (
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/go-cluster/cluster/internal/handle"
	"github.com/go-cluster/cluster/internal/socket"
	"github.com/go-cluster/cluster/internal/wire"
)

// shardTaker takes the sockets of a sharded address in a worker.
type shardTaker interface {
	Add(index int, h *handle.Handle) error
	Remove(index int)
}

// shardSource is the source of connections of one sharded address in a worker: a net.Listener
// that accepts on the sockets which the master has given and not taken back.
type shardSource struct {
	*socket.Merged
	asker *Asker
	key   string
	ask   sync.Once
	due   atomic.Bool // sayFull is about to be called
}

func (a *Asker) newShardSource(key string) (*shardSource, error) {
	m, err := socket.NewMerged()
	if err != nil {
		return nil, err
	}
	s := &shardSource{Merged: m, asker: a, key: key}
	a.mu.Lock()
	a.shards[key] = s
	a.mu.Unlock()
	return s, nil
}

// Accept returns the next connection. The first call asks the master for this worker's share.
// Before that other workers accept the connections.
func (s *shardSource) Accept() (net.Conn, error) {
	s.ask.Do(func() { s.asker.askShards(s.key) })
	return s.Merged.Accept()
}

// fullTime is how long a full worker keeps its share, before the master is told.
const fullTime = 5 * time.Millisecond

// SetDeadline bounds Accept. A deadline in the past may mean that this worker is full.
func (s *shardSource) SetDeadline(t time.Time) error {
	if !t.IsZero() && !t.After(time.Now()) && !s.due.Swap(true) {
		time.AfterFunc(fullTime, func() {
			s.due.Store(false)
			s.asker.sayFull()
		})
	}
	return s.Merged.SetDeadline(t)
}

// Close gives up all sockets.
func (s *shardSource) Close() error {
	s.asker.dropShards(s.key, s)
	return s.Merged.Close()
}

// Unsendable returns an error: no socket is the whole address, and they change hands.
func (s *shardSource) Unsendable() error { return errSharded }

// Addr returns nil: the listener around this source knows the address.
func (s *shardSource) Addr() net.Addr { return nil }

// askShards asks the master for this worker's share of a sharded address.
func (a *Asker) askShards(key string) {
	a.worker.Link.Order(&wire.Message{Act: wire.ActShards, Key: key})
}

// dropShards gives no more sockets to s, which is about to be closed.
func (a *Asker) dropShards(key string, s shardTaker) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.shards[key] == s {
		delete(a.shards, key)
	}
}

// Given is called by the reader with a socket of a sharded address. If there is no descriptor,
// nothing is to be answered: the link has refused the message.
func (a *Asker) Given(w *wire.Message, h *handle.Handle) {
	if h == nil {
		return
	}
	a.mu.Lock()
	s := a.shards[w.Key]
	a.mu.Unlock()
	taken := s != nil && s.Add(w.Index, h) == nil
	h.Release()
	a.worker.Link.Answer(wire.AcceptedLine(w.Seq, taken, false))
}

// Taken is called by the reader when the master takes back a socket of a sharded address.
func (a *Asker) Taken(w *wire.Message) {
	a.mu.Lock()
	s := a.shards[w.Key]
	a.mu.Unlock()
	if s != nil {
		s.Remove(w.Index)
	}
}

// sayFull tells the master, if this worker is full, that others are to take the connections of
// its share.
func (a *Asker) sayFull() {
	a.saying.Lock()
	defer a.saying.Unlock()
	if !a.toldNoRoom && a.worker.Places.Full() {
		a.toldNoRoom = true
		a.worker.Link.Answer((&wire.Message{Cmd: wire.CmdExtra, Act: wire.ActNoRoom}).Line())
	}
}
