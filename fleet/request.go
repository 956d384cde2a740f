package fleet

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"

	"github.com/go-cluster/cluster/internal/callback"
	"github.com/nats-io/nats.go"
)

// errorHeader has the text of a handler's error.
const errorHeader = "Cluster-Error"

// Request sends v, encoded as JSON, to one process that answers cmd (see [Respond]),
// and decodes its answer into reply, which may be nil. node is the member whose
// process it has to be; "" is any.
//
// It waits for the answer until ctx ends, which should have a deadline: a process
// that dies meanwhile answers nothing. The error wraps nats.ErrNoResponders if nobody
// answers cmd there, at once; [ErrNoFleet] if there is no connection, or it ended
// meanwhile: then it may have been carried out; nats.ErrPermissionViolation if the
// server refuses it; cluster.ErrTooLarge. Otherwise it is ctx.Err(), or the text that
// the handler's error has.
func (f *Fleet) Request(ctx context.Context, node, cmd string, v, reply any) error {
	if err := f.conn.request(ctx, f.me.requestSubject(node, cmd), v, reply); err != nil {
		if node == "" {
			node = "any member"
		}
		return fmt.Errorf("fleet: Request %q to %s: %w", cmd, node, err)
	}
	return nil
}

// request sends v to one who answers at the subject, and waits for the answer.
func (c *connection) request(ctx context.Context, subject string, v, reply any) error {
	body, err := json.Marshal(v)
	if err != nil {
		return err
	}
	ctx, end := c.denials.wait(ctx, subject)
	defer end()
	answer, err := c.nc.RequestWithContext(ctx, subject, body)
	if err != nil {
		return wrap(cause(ctx, err))
	}
	if text := answer.Header.Get(errorHeader); text != "" {
		return errors.New(text)
	}
	if reply == nil {
		return nil
	}
	if err := json.Unmarshal(answer.Data, reply); err != nil {
		return fmt.Errorf("the answer: %w", err)
	}
	return nil
}

// responders are what this process answers: requests of the application, and in a
// master orders and who asks for its name. A drain ends their subscriptions first.
type responders struct {
	me      *self
	conn    *connection
	running *callback.Running // of handlers
	hands   *hands

	mu       sync.Mutex
	subs     map[*nats.Subscription]struct{}
	draining bool
}

func newResponders(c *connection, running *callback.Running) *responders {
	return &responders{me: c.me, conn: c, running: running, hands: newHands(), subs: make(map[*nats.Subscription]struct{})}
}

// Respond answers requests whose cmd is cmd, in this process: those to its member, and
// those to any. Of several processes that answer one of them is chosen for each
// request, at random. Each call of fn runs on a goroutine of its own, at most 1,024 at
// once in a process; an error goes back as its text, and so does one that says why a
// request cannot be decoded into Q.
//
// A worker that drains answers no new requests; its drain waits for calls that have
// begun. What cannot be had, a subject that is not permitted say, is reported through
// cluster.OnError.
func Respond[Q, A any](f *Fleet, cmd string, fn func(q Q) (A, error)) (stop func()) {
	notNil("Respond", fn == nil)
	return f.responders.respond(cmd, func(body []byte) (any, error) {
		var q Q
		if err := json.Unmarshal(body, &q); err != nil {
			return nil, fmt.Errorf("request %q: %w", cmd, err)
		}
		return fn(q)
	})
}

func (r *responders) respond(cmd string, fn func(body []byte) (any, error)) (stop func()) {
	var stops []func()
	stop = func() {
		for _, s := range stops {
			s()
		}
	}
	h := r.handler(fn)
	for _, node := range []string{"", r.me.node} {
		s, err := r.hear(r.me.requestSubject(node, cmd), h)
		if err != nil {
			r.me.report(fmt.Errorf("fleet: Respond %q: %w", cmd, wrap(err)))
			stop()
			return func() {}
		}
		stops = append(stops, s)
	}
	r.conn.tell()
	return stop
}

// answer answers what comes to a subject.
func (r *responders) answer(subject string, fn func(body []byte) (any, error)) (stop func(), err error) {
	return r.hear(subject, r.handler(fn))
}

func (r *responders) handler(fn func(body []byte) (any, error)) *handler {
	return &handler{all: r, fn: fn, seats: make(chan struct{}, maxHandlers)}
}

// hear has a handler answer what comes to a subject.
func (r *responders) hear(subject string, h *handler) (stop func(), err error) {
	if r.me.checks {
		return func() {}, nil
	}
	sub, err := r.conn.nc.QueueSubscribe(subject, "cluster", func(m *nats.Msg) {
		h.seats <- struct{}{}
		r.running.Begin()
		r.hands.take(call{h, m})
	})
	if err != nil {
		return nil, err
	}
	r.add(sub)
	return func() { r.remove(sub) }, nil
}

// maxHandlers is how many calls of one handler run at once.
const maxHandlers = 1024

// handler is a function that answers what comes to a subject, or to several.
type handler struct {
	all   *responders
	fn    func(body []byte) (any, error)
	seats chan struct{} // of calls that run
}

// call is one call of a handler. It has a seat, and is counted as running.
type call struct {
	*handler
	m *nats.Msg
}

// run answers, whatever the function does.
func (c call) run() {
	defer func() {
		c.all.running.End()
		<-c.seats
	}()
	var reply any
	err := callback.ErrGoexit
	callback.Guard(func() { reply, err = c.fn(c.m.Data) }, func() { c.all.reply(c.m, nil, err) })
	c.all.reply(c.m, reply, err)
}

// reply answers a request: with the value, or with the error's text in a header.
func (r *responders) reply(m *nats.Msg, v any, err error) {
	var body []byte
	if err == nil {
		body, err = json.Marshal(v)
	}
	if err == nil {
		err = m.Respond(body)
		if errors.Is(err, nats.ErrMaxPayload) {
			err = respondError(m, "the answer is too long: "+err.Error())
		}
	} else {
		err = respondError(m, err.Error())
	}
	if err != nil && !r.conn.closing.Load() {
		r.me.report(fmt.Errorf("fleet: the answer to %q: %w", m.Subject, wrap(err)))
	}
}

func respondError(m *nats.Msg, text string) error {
	answer := nats.NewMsg(m.Reply)
	answer.Header.Set(errorHeader, oneLine(text))
	return m.RespondMsg(answer)
}

func (r *responders) add(s *nats.Subscription) {
	r.mu.Lock()
	r.subs[s] = struct{}{}
	late := r.draining
	r.mu.Unlock()
	if late {
		_ = s.Drain()
	}
}

func (r *responders) remove(s *nats.Subscription) {
	r.mu.Lock()
	delete(r.subs, s)
	r.mu.Unlock()
	_ = s.Unsubscribe() // fails where the connection is closed
}

// drain lets no new requests come, from now on.
func (r *responders) drain() {
	r.mu.Lock()
	r.draining = true
	all := slices.Collect(maps.Keys(r.subs))
	r.mu.Unlock()
	for _, s := range all {
		_ = s.Drain() // fails where the connection is closed
	}
}

// wait waits until those that came have been given to a handler.
func (r *responders) wait(ctx context.Context) {
	r.mu.Lock()
	all := slices.Collect(maps.Keys(r.subs))
	r.mu.Unlock()
	for _, s := range all {
		ended := s.StatusChanged(nats.SubscriptionClosed)
		if s.IsValid() {
			select {
			case <-ended:
			case <-ctx.Done():
			}
		}
	}
}
