package broker

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"strings"

	"github.com/go-cluster/cluster/internal/coordinate"
)

// candidacy is one Lead. Client.mu guards what changes.
type candidacy struct {
	ticket    uint64
	name      string
	fn        func(context.Context) error
	cancel    context.CancelFunc // not nil while fn runs
	ended     bool               // the context of fn has ended
	goroutine string             // the goroutine that runs fn
}

// Lead makes this process a candidate for the name, until stop is called.
func (c *Client) Lead(name string, fn func(context.Context) error) (stop func()) {
	if err := checkText("the name", name); err != nil {
		c.hooks.Report(fmt.Errorf("coord: Lead: %w", err))
		return func() {}
	}
	c.mu.Lock()
	if c.draining {
		c.mu.Unlock()
		return func() {}
	}
	if c.leadsHere(name) {
		c.mu.Unlock()
		c.hooks.Report(fmt.Errorf("coord: Lead(%.64q): %w", name, errInside))
		return func() {}
	}
	s := &candidacy{ticket: c.next(), name: name, fn: fn}
	c.stands[s.ticket] = s
	c.mu.Unlock()
	if err := c.up.tell(&Question{Verb: verbStand, Name: name, Ticket: s.ticket}); err != nil {
		c.mu.Lock()
		_, still := c.stands[s.ticket]
		delete(c.stands, s.ticket)
		c.mu.Unlock()
		if still { // no note has said so
			c.hooks.Report(fmt.Errorf("coord: Lead(%.64q): %w", name, err))
		}
		return func() {}
	}
	c.mu.Lock()
	ended := c.draining && c.stands[s.ticket] != s
	c.mu.Unlock()
	if ended { // the candidacy has ended meanwhile, and the master may have heard that before it heard of s
		c.up.tell(&Question{Verb: verbReturned, Name: name, Ticket: s.ticket, Outcome: int(coordinate.HandedOver)})
	}
	return func() { c.stop(s) }
}

var errInside = errors.New("it is called by the function that leads this name, and nobody else leads until that has returned: " +
	"return an error to run again, or call Lead elsewhere")

// leadsHere reports whether the function that leads the name runs on this goroutine.
// c.mu is held.
func (c *Client) leadsHere(name string) bool {
	if c.leading[name] == 0 {
		return false
	}
	here := goroutine()
	for _, s := range c.stands {
		if s.name == name && s.cancel != nil && !s.ended && s.goroutine == here {
			return true
		}
	}
	return false
}

// goroutine returns the number of this goroutine. The runtime tells it only at the beginning
// of a stack trace: "goroutine 7 [running]:".
func goroutine() string {
	var b [32]byte
	_, rest, _ := strings.Cut(string(b[:runtime.Stack(b[:], false)]), " ")
	number, _, _ := strings.Cut(rest, " ")
	return number
}

// Leads reports whether a function of this process leads the name.
func (c *Client) Leads(name string) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.leading[name] > 0
}

func (c *Client) stop(s *candidacy) {
	c.mu.Lock()
	q := c.end(s)
	c.mu.Unlock()
	if q != nil {
		c.up.tell(q)
	}
}

// end ends the context of s if s leads, and its candidacy otherwise. It returns what the
// master is to be told. c.mu is held.
func (c *Client) end(s *candidacy) *Question {
	q := &Question{Verb: verbWithdraw, Name: s.name, Ticket: s.ticket}
	switch {
	case c.stands[s.ticket] != s || s.ended:
		return nil
	case s.cancel == nil:
		delete(c.stands, s.ticket)
		q.Verb, q.Outcome = verbReturned, int(coordinate.HandedOver)
	default:
		s.ended = true
		s.cancel()
		c.leaves(s.name)
	}
	return q
}

// endAll ends all candidacies. c.mu is held.
func (c *Client) endAll() (tell []*Question) {
	for _, s := range c.stands {
		if q := c.end(s); q != nil {
			tell = append(tell, q)
		}
	}
	return tell
}

// leaves notes that one function less leads the name. c.mu is held.
func (c *Client) leaves(name string) {
	if c.leading[name]--; c.leading[name] == 0 {
		delete(c.leading, name)
	}
}

// candidate handles what the master tells a candidate. c.mu is held.
func (c *Client) candidate(s *candidacy, n note) {
	switch {
	case n.Fault != nil:
		delete(c.stands, s.ticket)
		go c.hooks.Report(fmt.Errorf("coord: Lead(%.64q): %w", s.name, n.Fault.err()))
	case n.What == coordinate.Over:
		if s.cancel == nil {
			delete(c.stands, s.ticket)
		}
	case n.What == coordinate.Ends:
		c.end(s)
	case n.What == coordinate.Leads && s.cancel == nil:
		var ctx context.Context
		ctx, s.cancel = context.WithCancel(context.Background())
		c.leading[s.name]++
		c.running.Begin()
		go c.lead(ctx, s)
	}
}

var errGoexit = errors.New("the function has ended its goroutine instead of returning")

// lead runs the function of s, and tells the master how it returned.
func (c *Client) lead(ctx context.Context, s *candidacy) {
	defer c.running.End()
	c.mu.Lock()
	s.goroutine = goroutine()
	c.mu.Unlock()
	var err error
	ended := false
	defer func() {
		if !ended {
			if p := recover(); p != nil {
				panic(p) // the process dies of it, and the master sees the death
			}
			err = errGoexit
		}
		c.returned(s, err)
	}()
	err = s.fn(ctx)
	ended = true
}

// returned tells the master how the function of s returned.
func (c *Client) returned(s *candidacy, err error) {
	c.mu.Lock()
	outcome := coordinate.HandedOver
	switch {
	case s.ended:
	case err == nil:
		outcome = coordinate.Finished
	default:
		outcome = coordinate.Failed
	}
	if !s.ended {
		c.leaves(s.name)
	}
	s.cancel()
	s.cancel, s.ended = nil, false
	if outcome != coordinate.Failed {
		delete(c.stands, s.ticket)
	}
	c.mu.Unlock()
	if outcome == coordinate.Failed {
		c.hooks.Logger().Error("coord: what leads has failed", "name", s.name, "err", err)
	}
	c.up.tell(&Question{Verb: verbReturned, Name: s.name, Ticket: s.ticket, Outcome: int(outcome)})
}
