package broker

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/go-cluster/cluster/internal/callback"
	"github.com/go-cluster/cluster/internal/coordinate"
	"github.com/go-cluster/cluster/internal/errs"
	"github.com/go-cluster/cluster/internal/wire"
)

// Hooks are the functions of its process that a Client needs. They may be called with
// Client.mu held, and must not wait.
type Hooks struct {
	// Report tells the application of an error that no call returns.
	Report func(err error)
	// Logger returns the logger. It is called at each use.
	Logger func() *slog.Logger
}

// Line is the channel as the Client of a worker uses it.
type Line interface {
	// Call asks a question, a line of JSON, and waits for the answer.
	Call(ctx context.Context, act string, msg []byte) (answer []byte, err error)
	// Tell sends a line, whatever waits already.
	Tell(line []byte) error
	// Send sends a line, unless too much waits for the master already.
	Send(line []byte) error
	// Room returns the length of the longest line that the master takes.
	Room() int
}

// upstream is the Broker as a Client reaches it.
type upstream interface {
	// ask waits for the answer.
	ask(ctx context.Context, q *Question) (Answer, error)
	// tell sends a question that must not be lost. There are few of these.
	tell(q *Question) error
	// send sends a question unless too much waits already. There may be many of these.
	send(q *Question) error
}

// Client is the part of package coord that one process has.
type Client struct {
	up    upstream
	hooks Hooks

	mu       sync.Mutex
	ticket   uint64
	stands   map[uint64]*candidacy
	leading  map[string]int // functions that lead, by name
	waits    map[uint64]chan coordinate.What
	gone     chan struct{} // closed when the channel is
	draining bool
	running  callback.Running // functions that lead, or run a once

	subscribing sync.Mutex // the master is asked about topics in turn
	topics      map[string]*localTopic
	numbers     map[uint64]*localTopic

	limiters map[string]*Limiter
	epoch    time.Time // what limiters count from: a difference costs half of time.Now
}

func newClient(up upstream, h Hooks) *Client {
	return &Client{
		up: up, hooks: h,
		stands: make(map[uint64]*candidacy), leading: make(map[string]int),
		waits: make(map[uint64]chan coordinate.What), gone: make(chan struct{}),
		topics: make(map[string]*localTopic), numbers: make(map[uint64]*localTopic),
		limiters: make(map[string]*Limiter), epoch: time.Now(),
	}
}

// NewRemote returns the Client of a worker.
func NewRemote(l Line, h Hooks) *Client { return newClient(remote{l}, h) }

// NewUnsupported returns the Client of a worker whose master does not have package coord.
func NewUnsupported(h Hooks) *Client { return newClient(unsupported{}, h) }

// Report tells the application of an error that no call returns. It is for packages that
// build on this one.
func (c *Client) Report(err error) { c.hooks.Report(err) }

// Key is the key of the *Client in a context of the cluster.
type Key struct{}

// Receive handles a message of the master. The reader of the channel calls it.
func (c *Client) Receive(act string, id uint64, msg []byte) error {
	if act == wire.ActTopic {
		c.published(id, append([]byte(nil), msg...))
		return nil
	}
	var n note
	if err := json.Unmarshal(msg, &n); err != nil {
		return fmt.Errorf("bad note: %w", err)
	}
	c.told(n)
	return nil
}

// told handles a note. It does not call the Broker, whose lock may be held.
func (c *Client) told(n note) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if s := c.stands[n.Ticket]; s != nil {
		c.candidate(s, n)
		return
	}
	if ch := c.waits[n.Ticket]; ch != nil {
		ch <- n.What // there is room, since it is told only once
		delete(c.waits, n.Ticket)
	}
}

// Drain ends the leading of this process and its candidacies: the process takes no new work.
func (c *Client) Drain() {
	c.mu.Lock()
	c.draining = true
	tell := c.endAll()
	c.mu.Unlock()
	for _, q := range tell {
		c.up.tell(q)
	}
}

// Idle returns when no function of a Lead or a Once runs.
func (c *Client) Idle() { c.running.Wait() }

// Closed is called when the channel has closed. It ends everything that waits for the master.
func (c *Client) Closed() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.draining = true
	c.endAll()
	select {
	case <-c.gone:
	default:
		close(c.gone)
	}
}

// next gives out a ticket. c.mu is held.
func (c *Client) next() uint64 {
	c.ticket++
	return c.ticket
}

// ask asks a question and returns the answer.
func (c *Client) ask(ctx context.Context, q *Question) (Answer, error) {
	if err := q.check(); err != nil {
		return Answer{}, err
	}
	if err := ctx.Err(); err != nil {
		return Answer{}, err
	}
	a, err := c.up.ask(ctx, q)
	if err != nil {
		return Answer{}, err
	}
	return a, a.Fault.err()
}

// remote is the Broker over the channel.
type remote struct{ line Line }

func (r remote) ask(ctx context.Context, q *Question) (a Answer, err error) {
	var msg []byte
	err = wire.Encode(q, func(l []byte) (err error) {
		if err = r.fits(len(l) + wire.CallHead); err != nil {
			return err
		}
		msg, err = r.line.Call(ctx, wire.ActCoord, l)
		return err
	})
	if err == nil {
		err = json.Unmarshal(msg, &a)
	}
	return a, err
}

func (r remote) tell(q *Question) error { return line(wire.ActCoord, 0, q, r.line.Tell) }

func (r remote) send(q *Question) error {
	return line(wire.ActCoord, 0, q, func(l []byte) error {
		if err := r.fits(len(l)); err != nil {
			return err
		}
		return r.line.Send(l)
	})
}

func (r remote) fits(size int) error {
	if most := r.line.Room(); size > most {
		return tooLarge("the message to the master", size, most)
	}
	return nil
}

// unsupported is the upstream of a worker of a node primary.
type unsupported struct{}

var errPrimary = fmt.Errorf("the master is a node primary, or an older one: %w", errs.NotSupported)

func (unsupported) ask(context.Context, *Question) (Answer, error) { return Answer{}, errPrimary }
func (unsupported) tell(*Question) error                           { return errPrimary }
func (unsupported) send(*Question) error                           { return errPrimary }
