package broker

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"math"
	"sync"
	"testing"
	"time"

	"github.com/go-cluster/cluster/internal/coordinate"
	"github.com/go-cluster/cluster/internal/errs"
	"github.com/go-cluster/cluster/internal/roomtest"
	"github.com/stretchr/testify/require"
)

// settings are the settings of the tests.
var settings = coordinate.Settings{
	MaxStore: 1 << 20, MaxKeys: 100,
	Backoff: coordinate.Backoff{Min: 100 * time.Millisecond, Max: time.Second, Factor: 2, Reset: 10 * time.Second},
}

// hub is a Broker, and the Clients of workers that are connected to it without a
// channel.
type hub struct {
	*Broker
	t    testing.TB
	self *process
}

// process is what one process reports, and its Client.
type process struct {
	*Client
	reports chan error
	log     *lockedBuffer
}

// cable takes the place of a channel. The sender of a line handles it at once, on its own
// goroutine.
type cable struct {
	*process
	hub *hub
	id  int

	accused chan error // what the master reports of the worker

	mu      sync.Mutex
	calls   uint64
	answers map[uint64][]byte
	told    []string // lines of the master's, as far as they were not published
	room    int
	full    bool             // Offer takes nothing
	backlog bool             // Send takes nothing
	silent  bool             // Call gets no answer
	hold    bool             // what the master tells waits in held
	held    [][]byte         // until release
	onTell  func(q Question) // before a line of Client.Tell is handled
}

type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

func newProcess() (*process, Hooks) {
	p := &process{reports: make(chan error, 1000), log: new(lockedBuffer)}
	logger := slog.New(slog.NewTextHandler(p.log, nil))
	return p, Hooks{Report: func(err error) { p.reports <- err }, Logger: func() *slog.Logger { return logger }}
}

func newHub(t testing.TB, s coordinate.Settings) *hub {
	p, hooks := newProcess()
	h := &hub{t: t, self: p}
	h.Broker, p.Client = New(s, hooks)
	return h
}

// join connects a worker, in the slot before its id.
func (h *hub) join(id int) *cable { return h.joinAs(id, id-1, 1) }

func (h *hub) joinAs(id, slot, generation int) *cable {
	p, hooks := newProcess()
	c := &cable{process: p, hub: h, id: id, accused: make(chan error, 1000), answers: make(map[uint64][]byte), room: math.MaxInt}
	p.Client = NewRemote(up{c}, hooks)
	h.Join(id, slot, generation, c)
	return c
}

// framed is a line of the protocol's.
type framed struct {
	Cmd, Act string
	ID       uint64
	Msg      json.RawMessage
}

func (c *cable) parse(line []byte) (f framed) {
	if err := json.Unmarshal(line, &f); err != nil || f.Cmd == "" || f.Act == "" || line[len(line)-1] != '\n' {
		panic(fmt.Sprintf("not a line of the protocol: %q (%v)", line, err))
	}
	return f
}

// The Broker's side.

func (c *cable) Answer(id uint64, msg []byte) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.answers[id] = bytes.Clone(msg)
}

func (c *cable) Tell(line []byte) {
	c.mu.Lock()
	c.told = append(c.told, string(line))
	if c.hold {
		c.held = append(c.held, bytes.Clone(line))
		c.mu.Unlock()
		return
	}
	c.mu.Unlock()
	f := c.parse(line)
	if err := c.Receive(f.Act, f.ID, f.Msg); err != nil {
		panic(err)
	}
}

// release lets the Client hear what was held back, and all that comes.
func (c *cable) release() {
	c.mu.Lock()
	held := c.held
	c.held, c.hold = nil, false
	c.mu.Unlock()
	for _, line := range held {
		f := c.parse(line)
		c.Receive(f.Act, f.ID, f.Msg)
	}
}

func (c *cable) set(fn func()) {
	c.mu.Lock()
	defer c.mu.Unlock()
	fn()
}

func (c *cable) Offer(line []byte) (taken bool) {
	c.mu.Lock()
	full := c.full
	c.mu.Unlock()
	if full {
		return false
	}
	f := c.parse(line)
	c.Receive(f.Act, f.ID, f.Msg)
	return true
}

func (c *cable) Report(err error) { c.accused <- err }

func (c *cable) Room() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.room
}

// up is a cable as the Client uses it.
type up struct{ *cable }

func (u up) Call(ctx context.Context, _ string, msg []byte) ([]byte, error) {
	u.mu.Lock()
	u.calls++
	id, silent := u.calls, u.silent
	u.mu.Unlock()
	if silent {
		<-ctx.Done()
		return nil, ctx.Err()
	}
	u.hub.Receive(u.id, id, bytes.Clone(msg))
	u.mu.Lock()
	defer u.mu.Unlock()
	answer := u.answers[id]
	delete(u.answers, id)
	return answer, nil
}

func (u up) Tell(line []byte) error {
	f := u.parse(line)
	u.mu.Lock()
	onTell := u.onTell
	u.mu.Unlock()
	if onTell != nil {
		var q Question
		require.NoError(u.hub.t, json.Unmarshal(f.Msg, &q))
		onTell(q)
	}
	u.hub.Receive(u.id, f.ID, f.Msg)
	return nil
}

func (u up) Send(line []byte) error {
	u.mu.Lock()
	backlog := u.backlog
	u.mu.Unlock()
	if backlog {
		return errs.Backlog
	}
	f := u.parse(line)
	u.hub.Receive(u.id, f.ID, f.Msg)
	return nil
}

func await[T any](t testing.TB, c <-chan T, what string) T {
	t.Helper()
	return roomtest.Await(t, c, what)
}

func eventually(t testing.TB, cond func() bool, what string) {
	t.Helper()
	roomtest.Eventually(t, cond, what)
}
