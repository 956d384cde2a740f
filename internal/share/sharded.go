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

// shardTaker is what the sockets of a sharded address are given to in a worker.
type shardTaker interface {
	Add(index int, h *handle.Handle) error
	Remove(index int)
}

// shardSource is the source of connections of one sharded address in a worker: a
// net.Listener that accepts on the sockets which the master gives and takes.
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

// Accept asks the master for this worker's share, the first time. Before that others
// accept what comes.
func (s *shardSource) Accept() (net.Conn, error) {
	s.ask.Do(func() { s.asker.worker.Link.Order(&wire.Message{Act: wire.ActShards, Key: s.key}) })
	return s.Merged.Accept()
}

// fullTime is how long a worker that is full keeps its share to itself.
const fullTime = 5 * time.Millisecond

// SetDeadline bounds Accept. One that has passed may mean that this worker is full.
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
	s.asker.mu.Lock()
	if s.asker.shards[s.key] == shardTaker(s) {
		delete(s.asker.shards, s.key)
	}
	s.asker.mu.Unlock()
	return s.Merged.Close()
}

// Addr returns nil: the listener around this source knows the address.
func (s *shardSource) Addr() net.Addr { return nil }

// Given is called by the reader with a socket of a sharded address. Without a descriptor
// there is nothing to answer: the link has refused the message.
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

// Taken is called by the reader: a socket of a sharded address is others' from now on.
func (a *Asker) Taken(w *wire.Message) {
	a.mu.Lock()
	s := a.shards[w.Key]
	a.mu.Unlock()
	if s != nil {
		s.Remove(w.Index)
	}
}

// sayFull tells the master that others are to take what comes for this worker, if it is
// full.
func (a *Asker) sayFull() {
	a.saying.Lock()
	defer a.saying.Unlock()
	if !a.toldNoRoom && a.worker.Places.Full() {
		a.toldNoRoom = true
		a.worker.Link.Answer((&wire.Message{Cmd: wire.CmdExtra, Act: wire.ActNoRoom}).Line())
	}
}
