package broker

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/go-cluster/cluster/internal/callback"
	"github.com/go-cluster/cluster/internal/errs"
	"github.com/go-cluster/cluster/internal/wire"
)

const (
	// subscribeTime bounds the wait until the master knows of a subscription.
	subscribeTime = 5 * time.Second
	// subscriberRoom bounds what waits for one subscriber, in bytes.
	subscriberRoom = 16 << 20
	// messageCost is what a message counts there beside its bytes.
	messageCost = 256
	// missTime is how often the master is told how many messages were missed.
	missTime = 100 * time.Millisecond
)

// localTopic is a topic that this process hears. Client.mu guards it.
type localTopic struct {
	name   string
	number uint64 // as the master has said; 0 before
	subs   []*subscriber
	missed int64       // messages of which the master was not told yet
	timer  *time.Timer // tells the master
}

// Publish sends v to all who hear the topic.
func (c *Client) Publish(topic string, v any) error {
	err := wire.Encode(v, func(l []byte) error {
		q := &Question{Verb: verbPublish, Name: topic, Message: slices.Clone(l[:len(l)-1])}
		if err := q.check(); err != nil {
			return err
		}
		return c.up.send(q)
	})
	if err != nil {
		return fmt.Errorf("coord: Publish(%.64q): %w", topic, err)
	}
	return nil
}

// Subscribe calls fn for each message of the topic, until stop is called.
func (c *Client) Subscribe(topic string, fn func(msg []byte) error) (stop func()) {
	s := &subscriber{c: c, topic: topic, fn: fn}
	if err := c.subscribe(s); err != nil {
		c.hooks.Report(fmt.Errorf("coord: Subscribe(%.64q): %w", topic, err))
		return func() {}
	}
	return sync.OnceFunc(func() { c.unsubscribe(s) })
}

func (c *Client) subscribe(s *subscriber) error {
	c.subscribing.Lock()
	defer c.subscribing.Unlock()
	c.mu.Lock()
	t := c.topics[s.topic]
	if t != nil {
		t.subs = append(slices.Clone(t.subs), s)
		c.mu.Unlock()
		return nil
	}
	c.mu.Unlock()
	ctx, cancel := context.WithTimeoutCause(context.Background(), subscribeTime,
		fmt.Errorf("the master has not answered for %v", subscribeTime))
	defer cancel()
	a, err := c.ask(ctx, &Question{Verb: verbSubscribe, Name: s.topic})
	if err != nil {
		if cause := context.Cause(ctx); cause != nil {
			err = cause
			c.up.tell(&Question{Verb: verbUnsubscribe, Name: s.topic})
		}
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	t = &localTopic{name: s.topic, number: uint64(a.N), subs: []*subscriber{s}}
	c.topics[t.name], c.numbers[t.number] = t, t
	return nil
}

func (c *Client) unsubscribe(s *subscriber) {
	s.close()
	c.subscribing.Lock()
	defer c.subscribing.Unlock()
	c.mu.Lock()
	t := c.topics[s.topic]
	t.subs = slices.DeleteFunc(slices.Clone(t.subs), func(x *subscriber) bool { return x == s })
	last := len(t.subs) == 0
	if last {
		delete(c.topics, t.name)
		delete(c.numbers, t.number)
	}
	c.mu.Unlock()
	if last {
		c.tellMissed(t)
		c.up.tell(&Question{Verb: verbUnsubscribe, Name: t.name})
	}
}

// published hands a message to the subscribers here. It does not call the Broker,
// whose lock may be held.
func (c *Client) published(number uint64, msg []byte) {
	c.mu.Lock()
	t := c.numbers[number]
	var subs []*subscriber
	if t != nil {
		subs = t.subs
	}
	c.mu.Unlock()
	var missed int64
	for _, s := range subs {
		if !s.post(msg) {
			missed++
		}
	}
	if missed == 0 {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	t.missed += missed
	if t.timer == nil {
		t.timer = time.AfterFunc(missTime, func() { c.tellMissed(t) })
	}
}

// tellMissed tells the master how many messages were missed here.
func (c *Client) tellMissed(t *localTopic) {
	c.mu.Lock()
	n := t.missed
	t.missed = 0
	if t.timer != nil {
		t.timer.Stop()
		t.timer = nil
	}
	c.mu.Unlock()
	if n > 0 {
		c.up.tell(&Question{Verb: verbMissed, Ticket: t.number, N: n})
	}
}

// subscriber is one Subscribe. What it has not heard yet waits here.
type subscriber struct {
	c     *Client
	topic string
	fn    func(msg []byte) error

	mu      sync.Mutex
	queue   [][]byte
	size    int  // bytes of queue and of the message under way
	running bool // the goroutine exists, and will look at queue again
	missing bool // the last message found no room
	closed  bool
}

// post queues a message for the subscriber. It reports false if there is no room.
func (s *subscriber) post(msg []byte) (taken bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return true
	}
	cost := len(msg) + messageCost
	if s.size > 0 && s.size+cost > subscriberRoom {
		if !s.missing {
			s.missing = true
			go s.c.hooks.Report(fmt.Errorf("coord: topic %.64q: a subscriber is slow, and misses messages from here on: %w", s.topic, errs.TooMany))
		}
		return false
	}
	s.missing = false
	s.size += cost
	s.queue = append(s.queue, msg)
	if !s.running {
		s.running = true
		go callback.Loop(s.step)
	}
	return true
}

// step calls the subscriber with the next message. It returns false if there is none, or if
// the subscriber has stopped.
func (s *subscriber) step() (more bool) {
	s.mu.Lock()
	if s.running = len(s.queue) > 0 && !s.closed; !s.running {
		s.mu.Unlock()
		return false
	}
	msg := s.queue[0]
	s.queue[0] = nil
	s.queue = s.queue[1:]
	s.mu.Unlock()
	s.hear(msg)
	return true
}

// hear calls the subscriber's function.
func (s *subscriber) hear(msg []byte) {
	defer func() {
		s.mu.Lock()
		s.size -= len(msg) + messageCost
		s.mu.Unlock()
	}()
	if err := s.fn(msg); err != nil {
		s.c.hooks.Report(fmt.Errorf("coord: topic %.64q: message %s: %w", s.topic, wire.Excerpt(msg), err))
	}
}

func (s *subscriber) close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = true
	s.queue = nil
}
