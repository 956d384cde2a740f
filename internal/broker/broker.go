package broker

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/go-cluster/cluster/internal/coordinate"
	"github.com/go-cluster/cluster/internal/errs"
	"github.com/go-cluster/cluster/internal/wire"
)

// Peer is a worker as the Broker reaches it. No method waits, or calls the Broker.
type Peer interface {
	// Answer answers the question id with msg, a line of JSON.
	Answer(id uint64, msg []byte)
	// Tell sends a line that the worker has asked for. A worker that asks for many lines
	// and reads none is given up.
	Tell(line []byte)
	// Offer sends a line, unless too much waits for the worker already.
	Offer(line []byte) (taken bool)
	// Room returns the length of the longest line that the worker takes.
	Room() int
	// Report tells the application of an error with this worker.
	Report(err error)
}

// Broker owns the state. Any goroutine may call its methods.
type Broker struct {
	mu     sync.Mutex
	st     *coordinate.State
	peers  map[int]Peer
	missed map[int]bool // peers that had no room for the last message
	self   *Client      // member 0
	timer  *time.Timer

	holding sync.Mutex // guards held and later; it comes before mu
	held    bool
	later   []func(now time.Time) []coordinate.Note // turns that came during a Hold

	absent   map[int]*absent // workers of a restored state that is not adopted yet; else nil
	pretends bool            // see Pretend
}

// New returns a Broker, and the Client of its own process.
func New(s coordinate.Settings, h Hooks) (*Broker, *Client) {
	b := &Broker{
		st:    coordinate.New(s, rand.Uint64()),
		peers: make(map[int]Peer), missed: make(map[int]bool),
	}
	b.self = newClient(local{b}, h)
	return b, b.self
}

// Configure changes the settings.
func (b *Broker) Configure(s coordinate.Settings) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.st.Configure(s)
}

// Join makes a worker a member. From here on this process leads nothing.
func (b *Broker) Join(id, slot, generation int, p Peer) {
	b.turn(func(time.Time) []coordinate.Note {
		b.peers[id] = p
		b.st.Join(id, slot, generation)
		return b.st.Fork()
	})
}

// Alone says that no worker is left, so this process may lead again.
func (b *Broker) Alone() {
	b.turn(func(time.Time) []coordinate.Note { b.st.Alone(); return nil })
}

// Leave says that a worker is drained.
func (b *Broker) Leave(id int) {
	b.turn(func(now time.Time) []coordinate.Note { b.st.Leave(now, id); return nil })
}

// Lost says that the channel of a worker has closed.
func (b *Broker) Lost(id int) {
	b.turn(func(now time.Time) []coordinate.Note {
		b.st.Lost(now, id)
		delete(b.peers, id)
		delete(b.missed, id)
		return nil
	})
}

// Dead says that the process of a worker has ended.
func (b *Broker) Dead(id int) {
	b.turn(func(now time.Time) []coordinate.Note {
		notes := b.st.Dead(now, id)
		delete(b.peers, id)
		delete(b.missed, id)
		return notes
	})
}

// Reload says that workers of a generation after the given one are preferred as leaders. A
// negative generation ends that.
func (b *Broker) Reload(outdated int) {
	b.turn(func(time.Time) []coordinate.Note { b.st.Reload(outdated); return nil })
}

// Stats returns the state as it is shown.
func (b *Broker) Stats() coordinate.Stats {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.st.Stats(time.Now())
}

// Receive handles a message of a worker: a question with the number id, or with 0 something
// that needs no answer.
func (b *Broker) Receive(member int, id uint64, msg []byte) {
	var q Question
	err := json.Unmarshal(msg, &q)
	b.mu.Lock()
	p := b.peers[member]
	if p == nil {
		b.mu.Unlock()
		return
	}
	var a Answer
	if err != nil {
		a = Answer{Fault: faultOf(fmt.Errorf("a question that is none: %w", err))}
	} else if err = q.check(); err != nil {
		a = Answer{Fault: faultOf(err)}
	} else {
		a = b.do(member, &q)
	}
	if q.Verb.ordered() {
		answer(p, id, &a)
		b.mu.Unlock()
		return
	}
	b.mu.Unlock()
	answer(p, id, &a)
}

// answer sends a, if somebody waits for it.
func answer(p Peer, id uint64, a *Answer) {
	if id == 0 {
		return
	}
	wire.Encode(a, func(msg []byte) error {
		if size := len(msg) + wire.CallHead; size > p.Room() {
			too := Answer{Fault: faultOf(fmt.Errorf("%w: the answer has %d bytes, more than MaxMessage", errs.TooLarge, len(msg)))}
			return wire.Encode(&too, func(msg []byte) error { p.Answer(id, msg); return nil })
		}
		p.Answer(id, msg)
		return nil
	})
}

// turn calls fn with the state, and sends what members are to be told. During a Hold it only
// queues fn: the holder of the Broker may wait for the caller of turn.
func (b *Broker) turn(fn func(now time.Time) []coordinate.Note) {
	b.holding.Lock()
	if b.held {
		b.later = append(b.later, fn)
		b.holding.Unlock()
		return
	}
	b.mu.Lock()
	b.holding.Unlock()
	defer b.mu.Unlock()
	b.carryOut(fn)
}

// carryOut does a turn. b.mu is held.
func (b *Broker) carryOut(fn func(now time.Time) []coordinate.Note) {
	b.tell(fn(time.Now()))
	b.setTimer()
}

// tell sends notes to their members. b.mu is held.
func (b *Broker) tell(notes []coordinate.Note) {
	for _, n := range notes {
		b.say(n.To.Member, note{Ticket: n.To.Ticket, What: n.What})
	}
}

func (b *Broker) say(member int, n note) {
	if member == 0 {
		b.self.told(n)
		return
	}
	b.reach(member, func(p Peer) {
		line(wire.ActCoord, 0, n, func(l []byte) error { p.Tell(l); return nil })
	})
}

// setTimer sets the timer for what is due next. b.mu is held.
func (b *Broker) setTimer() {
	next := b.st.Next()
	switch {
	case next.IsZero():
		if b.timer != nil {
			b.timer.Stop()
		}
	case b.timer == nil:
		b.timer = time.AfterFunc(time.Until(next), func() { b.turn(func(now time.Time) []coordinate.Note { return b.st.Advance(now) }) })
	default:
		b.timer.Reset(time.Until(next))
	}
}

// do carries out a question. b.mu is held.
func (b *Broker) do(member int, q *Question) Answer {
	now := time.Now()
	ref := coordinate.Ref{Member: member, Ticket: q.Ticket}
	var notes []coordinate.Note
	var err error
	switch q.Verb {
	case verbStand:
		if notes, err = b.st.Stand(now, ref, q.Name); err != nil {
			b.say(member, note{Ticket: q.Ticket, Fault: faultOf(err)})
		}
	case verbWithdraw:
		b.st.Withdraw(now, ref, q.Name)
	case verbReturned:
		notes = b.st.Returned(now, ref, q.Name, coordinate.Outcome(q.Outcome))
	case verbUnlock:
		notes = b.st.Unlock(ref, q.Name)
	case verbOnceDone:
		notes = b.st.OnceDone(ref, q.Name)
	case verbOnceFailed:
		notes = b.st.OnceFailed(ref, q.Name)
	case verbPublish:
		b.publish(q)
		return Answer{}
	case verbMissed:
		b.st.Miss(q.Ticket, q.N)
		return Answer{}
	case verbLock, verbTryLock, verbOnce:
		return b.enter(q, ref)
	case verbSubscribe:
		number, err := b.st.Subscribe(member, q.Name)
		return Answer{N: int64(number), Fault: faultOf(err)}
	case verbUnsubscribe:
		b.st.Unsubscribe(member, q.Name)
		return Answer{}
	case verbRate:
		err := b.st.SetRate(member, q.Name, coordinate.Rate{PerSecond: q.Rate, Burst: int(q.N)})
		return Answer{Fault: faultOf(err)}
	case verbTake:
		t, err := b.st.Take(now, member, coordinate.Take{Name: q.Name, Key: q.Key, Tokens: int(q.N), Ahead: q.Ahead, Unused: q.Unused})
		return Answer{OK: t.OK, Lot: t.Lot, N: int64(t.Retry), Fault: faultOf(err)}
	default:
		return b.store(now, q)
	}
	b.tell(notes)
	b.setTimer()
	return Answer{Fault: faultOf(err)}
}

func (b *Broker) enter(q *Question, ref coordinate.Ref) Answer {
	var s coordinate.Standing
	var err error
	if q.Verb == verbOnce && b.pretends {
		s = coordinate.Already
	} else if q.Verb == verbOnce {
		s, err = b.st.Once(ref, q.Name)
	} else {
		s, err = b.st.Lock(ref, q.Name, q.Verb == verbLock)
	}
	return Answer{N: int64(s), Fault: faultOf(err)}
}

// store carries out a question about the store.
func (b *Broker) store(now time.Time, q *Question) (a Answer) {
	var err error
	ttl := time.Duration(q.TTL)
	switch q.Verb {
	case verbGet:
		a.Value, a.OK = b.st.Store.Get(now, q.Name, q.Key)
	case verbSet:
		err = b.st.Store.Set(now, q.Name, q.Key, q.Value, ttl)
	case verbAdd:
		a.OK, err = b.st.Store.Add(now, q.Name, q.Key, q.Value, ttl)
	case verbSwap:
		a.OK, err = b.st.Store.CompareAndSwap(now, q.Name, q.Key, q.Old, q.Value, ttl)
	case verbIncr:
		a.N, err = b.st.Store.Incr(now, q.Name, q.Key, q.N, ttl)
	case verbDelete:
		b.st.Store.Delete(q.Name, q.Key)
	case verbClear:
		b.st.Store.DeletePrefix(q.Name, q.Key)
	case verbKeys:
		a.Keys = b.st.Store.Keys(now, q.Name, q.Key)
	default:
		err = fmt.Errorf("the master does not know the verb %.32q", q.Verb)
	}
	a.Fault = faultOf(err)
	return a
}

// publish sends a message to all members that hear the topic. The message is encoded once.
func (b *Broker) publish(q *Question) {
	number, members := b.st.Publish(q.Name)
	var l []byte
	for _, id := range members {
		if id == 0 {
			b.self.published(number, q.Message)
			continue
		}
		if l == nil {
			l = lineOf(wire.ActTopic, number, q.Message)
		}
		if p := b.peers[id]; p != nil {
			b.offer(p, id, number, q.Name, l)
		} else {
			b.postpone(id, number, q.Name, l)
		}
	}
}

// offer sends a published message to a worker. b.mu is held.
func (b *Broker) offer(p Peer, id int, number uint64, topic string, l []byte) {
	taken := p.Offer(l)
	if !taken {
		b.st.Miss(number, 1)
		if !b.missed[id] {
			p.Report(fmt.Errorf("cluster: topic %q: the worker does not read what is published; it misses messages from here on: %w", topic, errs.Backlog))
		}
	}
	b.missed[id] = !taken
}

// local is the Broker as the Client of the same process speaks to it.
type local struct{ b *Broker }

func (l local) ask(_ context.Context, q *Question) (Answer, error) {
	q.Value = bytes.Clone(q.Value) // the state keeps the value, which is the caller's
	l.b.mu.Lock()
	a := l.b.do(0, q)
	l.b.mu.Unlock()
	a.Value = bytes.Clone(a.Value)
	return a, nil
}

func (l local) tell(q *Question) error { return l.send(q) }

func (l local) send(q *Question) error {
	a, _ := l.ask(context.Background(), q)
	return a.Fault.err()
}
