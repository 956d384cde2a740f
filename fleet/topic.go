package fleet

import (
	"encoding/json"
	"fmt"
	"strings"
	"sync"

	"github.com/go-cluster/cluster/internal/callback"
	"github.com/nats-io/nats.go"
)

// What waits for one subscriber.
const (
	maxPending      = 65536
	maxPendingBytes = 16 << 20
)

// topics are what this process publishes and hears. The lock is that of the subjects
// of topics to which it has published.
type topics struct {
	me       *self
	conn     *connection
	mu       sync.RWMutex
	subjects map[string]string
}

// maxTopics is how many are remembered.
const maxTopics = 4096

// topicSubject is the subject of a topic that is published to.
func (t *topics) subject(topic string) (string, error) {
	t.mu.RLock()
	subject, ok := t.subjects[topic]
	t.mu.RUnlock()
	if ok {
		return subject, nil
	}
	if err := checkTopic(topic, false); err != nil {
		return "", err
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.subjects == nil || len(t.subjects) >= maxTopics {
		t.subjects = make(map[string]string)
	}
	subject = t.me.topicSubject(topic)
	t.subjects[strings.Clone(topic)] = subject
	return subject, nil
}

// Publish sends v, encoded as JSON, to every subscriber of the topic in every process
// of the fleet, those of this one included. It is core NATS: a message arrives at most
// once, those of one process in their order, and nothing is kept for who comes later.
// Whoever has a NATS client takes part: the subject is cluster.<Name>.topic.<topic>.
//
// The error wraps [ErrNoFleet] if there is no connection; nothing is sent later then.
// nil says that it was handed to the connection: one that is cut is noticed within
// twelve seconds, and what was published meanwhile is lost. It wraps
// cluster.ErrTooLarge if the server takes no message so long, and
// nats.ErrPermissionViolation if the server has refused the topic in the last five
// seconds: the first refusal comes later than the call, and is reported through
// cluster.OnError.
func (f *Fleet) Publish(topic string, v any) error {
	subject, err := f.topics.subject(topic)
	if err != nil {
		return fmt.Errorf("fleet: Publish: %w", err)
	}
	body, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("fleet: Publish to %q: %w", topic, err)
	}
	if err := f.conn.denials.of(subject); err != nil {
		return fmt.Errorf("fleet: Publish to %q: %w", topic, err)
	}
	if err := f.conn.nc.Publish(subject, body); err != nil {
		return fmt.Errorf("fleet: Publish to %q: %w", topic, wrap(err))
	}
	return nil
}

// Subscribe calls fn for each message of the topic from now on, one after another, on
// a goroutine of this subscriber's own. In topic a "*" stands for what is between two
// dots, and a ">" at the end for all the rest. It waits until the server knows, for
// at most five seconds; with several servers the others learn it a little later.
// While there is no connection messages are missed.
//
// What waits for a slow subscriber is bounded (65,536 messages, 16 MiB): beyond that
// messages are lost, and that is reported through cluster.OnError, as are messages that
// cannot be decoded into T, a topic that is none, and one that is not permitted.
// After stop fn is not called again; a call under way goes on.
func Subscribe[T any](f *Fleet, topic string, fn func(v T)) (stop func()) {
	notNil("Subscribe", fn == nil)
	return f.topics.subscribe(topic, func(m *nats.Msg) {
		var v T
		if err := json.Unmarshal(m.Data, &v); err != nil {
			f.me.report(fmt.Errorf("fleet: a message of topic %q: %w", strings.TrimPrefix(m.Subject, f.me.topicSubject("")), err))
			return
		}
		fn(v)
	})
}

func (t *topics) subscribe(topic string, fn func(*nats.Msg)) (stop func()) {
	if err := checkTopic(topic, true); err != nil {
		t.me.report(fmt.Errorf("fleet: Subscribe: %w", err))
		return func() {}
	}
	stop, err := t.hear(t.me.topicSubject(topic), fn)
	if err != nil {
		t.me.report(fmt.Errorf("fleet: Subscribe to %q: %w", topic, wrap(err)))
		return func() {}
	}
	t.conn.tell()
	return stop
}

// hear calls fn for each message of a subject. fn may end its goroutine: then the
// subscription begins anew.
func (t *topics) hear(subject string, fn func(*nats.Msg)) (stop func(), err error) {
	var (
		mu      sync.Mutex
		sub     *nats.Subscription
		stopped bool
		begin   func() error
	)
	again := func() {
		mu.Lock()
		defer mu.Unlock()
		if !stopped {
			_ = sub.Unsubscribe()
			_ = begin() // fails where the connection is closed
		}
	}
	begin = func() (err error) {
		handler := func(m *nats.Msg) {
			mu.Lock()
			done := stopped
			mu.Unlock()
			if !done {
				callback.Guard(func() { fn(m) }, func() { go again() })
			}
		}
		if sub, err = t.conn.nc.Subscribe(subject, handler); err != nil {
			return err
		}
		return sub.SetPendingLimits(maxPending, maxPendingBytes)
	}
	mu.Lock()
	defer mu.Unlock()
	if err := begin(); err != nil {
		return nil, err
	}
	return func() {
		mu.Lock()
		defer mu.Unlock()
		if !stopped {
			stopped = true
			_ = sub.Unsubscribe() // fails where the connection is closed
		}
	}, nil
}
