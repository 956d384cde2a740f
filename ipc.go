package cluster

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"os"
	"reflect"
	"syscall"
	"time"

	"github.com/go-cluster/cluster/internal/broker"
	"github.com/go-cluster/cluster/internal/coordinate"
	"github.com/go-cluster/cluster/internal/drain"
	"github.com/go-cluster/cluster/internal/handle"
	"github.com/go-cluster/cluster/internal/link"
	"github.com/go-cluster/cluster/internal/operator"
	"github.com/go-cluster/cluster/internal/parcel"
	"github.com/go-cluster/cluster/internal/process"
	"github.com/go-cluster/cluster/internal/socket"
	"github.com/go-cluster/cluster/internal/supervise"
	"github.com/go-cluster/cluster/internal/upgrade"
	"github.com/go-cluster/cluster/internal/wire"
)

// Message is one JSON value as it came over the channel. It stays valid for as
// long as it is kept.
//
// A message can come with a handle: a connection, a listener, a datagram socket or
// a file that the other side gave to [Process.SendHandle], or node to
// send(message, handle). The handle belongs to the message until a callback takes
// it with Conn, Listener, PacketConn or File. From then on it is the callback's to
// close. A handle that no callback has taken is closed when the last one has returned. A
// message that waits for a handler keeps its handle. Callbacks of [Handle] get no
// Message and cannot take a handle: use OnMessage.
//
// These four methods return an error if no handle came, if it was taken or closed
// already, or if it is of another kind; in the last case it can still be taken as what it
// is. Its kind is that of the descriptor, whatever type the sender had. The methods may
// be called on any goroutine.
type Message struct {
	raw    []byte
	parcel *parcel.Parcel // nil if nothing came with it
}

// Cmd returns the message's "cmd" member, or "" if the message is no object,
// has none, or it is no string.
func (m Message) Cmd() string {
	return wire.Cmd(m.raw).String()
}

// Decode stores the message in v, as [json.Unmarshal] does.
func (m Message) Decode(v any) error { return wire.Decode(m.raw, v) }

// Bytes returns the message's JSON text, which must not be changed.
func (m Message) Bytes() []byte { return m.raw }

// String returns the message's JSON text.
func (m Message) String() string { return string(m.raw) }

// HasHandle reports whether the message has a handle that nobody has taken yet.
func (m Message) HasHandle() bool { return m.parcel.Has() }

// Conn takes the handle of the message, a TCP or unix connection. All that the sender
// had not read can be read here. In a worker the drain waits for the connection's end, as
// for one that this worker accepted itself. It returns an error if the connection was
// reset on the way; on Windows the first Read may return that error instead.
func (m Message) Conn() (net.Conn, error) {
	c, err := m.parcel.Conn()
	if err != nil {
		return nil, takeError("Conn", err)
	}
	if Worker != nil {
		c = Worker.inside.drain.Conn(c)
	}
	return c, nil
}

// Listener takes the handle of the message, a TCP or unix listener. In a worker it
// stops with the drain like those of [Listen], but is not reported to the master
// and does not make this worker ready. The file of a unix socket stays the
// sender's to remove.
func (m Message) Listener() (net.Listener, error) {
	ln, err := m.parcel.Listener()
	if err != nil {
		return nil, takeError("Listener", err)
	}
	if Worker != nil {
		ln = Worker.inside.drain.SentListener(ln.(drain.Source))
	}
	return ln, nil
}

// PacketConn takes the handle of the message, a UDP or unixgram socket. In a
// worker its reads wait during the drain, like those of [ListenPacket]. On Windows
// it returns ErrNotSupported.
func (m Message) PacketConn() (net.PacketConn, error) {
	c, err := m.parcel.PacketConn()
	if err != nil {
		return nil, takeError("PacketConn", err)
	}
	if Worker != nil {
		c = Worker.inside.drain.SentPacketConn(c.(drain.PacketSource))
	}
	return c, nil
}

// File takes the handle of the message, anything that is no socket: a regular
// file, a pipe, a terminal. Its offset and flags are shared with the sender. On
// Windows it returns ErrNotSupported.
func (m Message) File() (*os.File, error) {
	f, err := m.parcel.File()
	if err != nil {
		return nil, takeError("File", err)
	}
	return f, nil
}

func takeError(method string, err error) error {
	return fmt.Errorf("cluster: Message.%s: %w", method, err)
}

// MarshalJSON returns the message as it came, so that it can be sent on.
func (m Message) MarshalJSON() ([]byte, error) {
	if m.raw == nil {
		return []byte("null"), nil
	}
	return m.raw, nil
}

// cost is what the message counts against the input bound.
func (m Message) cost() int {
	if m.parcel != nil {
		return len(m.raw) + link.HandleCost
	}
	return len(m.raw) + link.MessageCost
}

// notNil panics, in the goroutine of who has made the mistake, if a function is nil. It would
// be called much later, on a goroutine that tells nothing about that.
func notNil(isNil bool) {
	if isNil {
		panic("cluster: the function to call is nil")
	}
}

func isNilFunc(fn any) bool {
	v := reflect.ValueOf(fn)
	return v.Kind() == reflect.Func && v.IsNil()
}

// handler is what one call of Handle has registered.
type handler struct {
	cmd string
	fn  func(*Process, Message)
}

// Handle registers fn for messages whose "cmd" member is cmd, decoded into T as
// json.Unmarshal does. A message that cannot be decoded is reported through OnError, and
// fn is not called. The returned func unregisters fn.
func Handle[T any](cmd string, fn func(w *Process, v T)) (stop func()) {
	notNil(fn == nil)
	return std.taking(std.hooks.handle.add(handler{cmd, func(w *Process, m Message) {
		var v T
		if err := m.Decode(&v); err != nil {
			w.report(fmt.Errorf("cluster: message %q from worker %d: %w", cmd, w.id, err))
			return
		}
		fn(w, v)
	}}))
}

// requestHandler is what one call of OnRequest or Respond has registered.
type requestHandler struct {
	cmd string
	any bool
	fn  func(*Process, Message) (any, error)
}

// OnRequest registers fn to answer the other side's Request calls. Of several
// handlers that fit, the latest registered answers. Each call runs on its own
// goroutine, so a handler may itself call Request. An error goes back as
// its text. A request that no handler fits waits for one. The returned func unregisters
// fn.
func OnRequest(fn func(w *Process, m Message) (reply any, err error)) (stop func()) {
	notNil(fn == nil)
	return std.taking(std.hooks.request.add(requestHandler{any: true, fn: fn}))
}

// Respond registers fn, as [OnRequest] does, for requests whose "cmd" member is
// cmd, decoded into Q. A request that cannot be decoded is answered with the error.
func Respond[Q, A any](cmd string, fn func(w *Process, q Q) (A, error)) (stop func()) {
	notNil(fn == nil)
	return std.taking(std.hooks.request.add(requestHandler{cmd: cmd, fn: func(w *Process, m Message) (any, error) {
		var q Q
		if err := m.Decode(&q); err != nil {
			return nil, fmt.Errorf("request %q: %w", cmd, err)
		}
		return fn(w, q)
	}}))
}

// Respond calls the handler for a request to the process of an inbox.
func (h *requestHandler) Respond(to link.Receiver, msg []byte) (reply any, err error) {
	return h.fn((*Process)(to.(*inbox)), Message{raw: msg})
}

// inbox is a Process as its link sees it: it takes the messages, the requests and the
// errors that arrive.
type inbox Process

func (i *inbox) Messages(batch [][]byte, size int) {
	i.events.post(event{msgs: batch, size: size})
}

// keep copies the messages, if their memory is to be used again.
func (ev *event) keep() {
	if ev.free == nil {
		return
	}
	all := make([][]byte, len(ev.msgs))
	for n, m := range ev.msgs {
		all[n] = bytes.Clone(m)
	}
	ev.msgs = all
	ev.done()
}

// done gives the memory of the messages back.
func (ev *event) done() {
	if ev.free != nil {
		ev.free()
		ev.free = nil
	}
}

// take returns the message for a callback that may keep it.
func (d *delivery) take() Message {
	d.taken = true
	if d.lent {
		d.message.raw, d.lent = bytes.Clone(d.message.raw), false
	}
	return d.message
}

// Handle posts a message with the descriptor that came with it. In the master the
// descriptor may be closed for want of others: socket.Fit keeps those that a fork needs.
func (i *inbox) Handle(msg []byte, h *handle.Handle, size int) {
	e := event{msgs: [][]byte{msg}, size: size}
	if i.child != nil {
		h = socket.Fit(h)
	}
	if h != nil {
		e.parcel = parcel.New(h)
	} else {
		(*Process)(i).accuse(fmt.Errorf("cluster: worker %d: a message lost its handle: the other descriptors of the master are kept for new workers: %w", i.id, syscall.EMFILE))
	}
	i.events.post(e)
}

func (i *inbox) Report(err error, size int) { (*Process)(i).reportSized(err, size) }

// Responder returns the latest registered handler that fits msg.
func (i *inbox) Responder(msg []byte) link.Responder {
	if i.cluster.quiet.Load() {
		return nil // it waits
	}
	all := i.cluster.hooks.request.all()
	var cmd wire.Text
	looked := false
	for n := len(all) - 1; n >= 0; n-- {
		h := &all[n].fn
		if h.any {
			return h
		}
		if !looked {
			cmd, looked = wire.Cmd(msg), true
		}
		if cmd.Is(h.cmd) {
			return h
		}
	}
	return nil
}

// linkName names a worker in the errors of its link.
func linkName(id int) string { return fmt.Sprintf("worker %d", id) }

// The rest of this file connects packages coord (see internal/broker) and admin (see
// internal/operator) with the cluster.

// coord is what package coord needs to know of the options.
func (s *settings) coord() coordinate.Settings {
	return coordinate.Settings{MaxStore: s.MaxStore, MaxKeys: coordinate.MaxKeys, Backoff: coordinate.Backoff(s.Backoff)}
}

// coordPeer is a worker as the broker reaches it.
type coordPeer Process

func (p *coordPeer) Answer(id uint64, msg []byte) { p.link.Lines().Reply(id, msg) }
func (p *coordPeer) Tell(line []byte)             { p.link.Lines().Note(line) }
func (p *coordPeer) Room() int                    { return p.child.opts.MaxMessage }
func (p *coordPeer) Report(err error)             { (*Process)(p).accuse(err) }

// Offer leaves half of the queue to the application's own messages.
func (p *coordPeer) Offer(line []byte) (taken bool) {
	return p.link.Lines().Offer(line, p.child.opts.MaxQueue/2)
}

// coordLine is the channel to the master as package coord uses it.
type coordLine struct{ in *inside }

func (l coordLine) Call(ctx context.Context, act string, msg []byte) ([]byte, error) {
	return l.in.p.link.Lines().Call(ctx, act, msg)
}
func (l coordLine) Tell(line []byte) error { return l.in.p.link.Lines().Tell(line) }
func (l coordLine) Send(line []byte) error { return l.in.p.link.Lines().Send(line) }
func (l coordLine) Room() int              { return l.in.hello.MaxMessage }

// newCoord returns this worker's part of package coord.
func (in *inside) newCoord() *broker.Client {
	h := broker.Hooks{Report: in.p.report, Logger: in.p.logger}
	if !in.hello.Coord {
		return broker.NewUnsupported(h)
	}
	return broker.NewRemote(coordLine{in}, h)
}

// reportAlone reports an error that is about no worker to the OnError callbacks, or to
// the log if there are none.
func (c *cluster) reportAlone(err error) {
	for _, r := range c.hooks.trouble.all() {
		c.reports.Post(func() { r.fn(0, err) })
	}
	all := c.hooks.err.all()
	for _, r := range all {
		c.reports.Post(func() { r.fn(nil, err) })
	}
	if len(all) == 0 {
		c.reports.Post(func() { c.master.log().Warn("cluster: error", "err", err) })
	}
}

// operatorCore is this process as package admin uses it.
type operatorCore struct{ c *cluster }

func (o operatorCore) OnStream(fn func(net.Conn)) (stop func()) { return o.c.hooks.stream.add(fn) }
func (o operatorCore) OnReloading(fn func()) (stop func())      { return o.c.hooks.reloading.add(fn) }
func (o operatorCore) OnScale(fn func(int)) (stop func())       { return o.c.hooks.scale.add(fn) }
func (o operatorCore) OnSilent(fn func(int, time.Duration)) (stop func()) {
	return o.c.hooks.silent.add(fn)
}
func (o operatorCore) OnStall(fn func(int)) (stop func()) { return o.c.hooks.stall.add(fn) }
func (o operatorCore) OnTrouble(fn func(int, error)) (stop func()) {
	return o.c.hooks.trouble.add(fn)
}

func (o operatorCore) OnOutput(fn func(worker, slot int, stream string, lines []byte)) (stop func()) {
	return o.c.hooks.output.add(fn)
}

func (o operatorCore) OnLeaving(name string, fn func() (*os.File, error)) (stop func()) {
	return o.c.hooks.leaving.add(leaver{name, fn})
}
func (o operatorCore) Left(name string) *os.File  { return o.c.upgrades.fileLeft(name) }
func (o operatorCore) NewFile() (*os.File, error) { return upgrade.NewFile() }

// tapOutput returns a function that passes what p writes to the OnOutput callbacks. It is
// nil if there are none.
func (c *cluster) tapOutput(p *Process) func(stream string, lines []byte) {
	if len(c.hooks.output.all()) == 0 {
		return nil
	}
	return func(stream string, lines []byte) {
		for _, on := range c.hooks.output.all() {
			on.fn(p.id, p.slot, stream, lines)
		}
	}
}

// spares are the master's own standard output and error, at the indexes 1 and 2. A worker
// keeps them while its own output passes through the master. They belong to the channel's
// reader.
type spares [3]*handle.Handle

func (s *spares) keep(fd int, h *handle.Handle) {
	s[fd].Release()
	s[fd] = h
}

// use makes them this worker's standard output and error, when the channel has closed.
func (s *spares) use() {
	for fd, h := range s {
		if h != nil {
			process.ReplaceOwn(fd, h.FD())
			s.keep(fd, nil)
		}
	}
}

// OpenStream sends the worker one end of a new connection.
func (o operatorCore) OpenStream(worker int) (net.Conn, error) {
	var p *Process
	o.c.call(func() { p = o.c.workers[worker] })
	if p != nil && p.child.foreign != nil { // it has no channel
		return nil, fmt.Errorf("cluster: OpenStream: worker %d is a Foreign program: %w", worker, ErrNotSupported)
	}
	if p == nil || !p.IsConnected() || p.State() < Online {
		return nil, fmt.Errorf("cluster: OpenStream: worker %d: %w", worker, ErrClosed)
	}
	ours, theirs, err := socket.Pair()
	if err == nil {
		if err = p.link.Lines().Stream(theirs); err != nil {
			ours.Close()
		}
	}
	if err != nil {
		return nil, fmt.Errorf("cluster: OpenStream: worker %d: %w", worker, err)
	}
	return ours, nil
}

// streamed serves a connection that the master has opened to this worker. h is nil if its
// descriptor got lost.
func (c *cluster) streamed(h *handle.Handle) {
	all := c.hooks.stream.all()
	if h == nil || len(all) == 0 {
		h.Release()
		return
	}
	conn, err := socket.NewConn(h)
	if err != nil {
		return // the master has closed its end
	}
	go all[len(all)-1].fn(conn)
}

func (o operatorCore) Restart(ctx context.Context, slot int) error {
	select {
	case a := <-o.c.ask(func(now time.Time, call int) { supervise.Orders{Machine: o.c.supervisor}.Restart(now, call, slot) }):
		return a.err
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (o operatorCore) Vacate(ctx context.Context, slot int) error {
	return o.end(ctx, slot, supervise.Orders{Machine: o.c.supervisor}.Vacate)
}

func (o operatorCore) Respawn(ctx context.Context, slot int) error {
	return o.end(ctx, slot, supervise.Orders{Machine: o.c.supervisor}.Respawn)
}

// end gives an order that ends a slot's worker, and waits until the worker has exited or
// ctx ends.
func (o operatorCore) end(ctx context.Context, slot int, order func(now time.Time, slot int) (worker int, err error)) (err error) {
	var p *Process
	o.c.call(func() {
		var worker int
		worker, err = order(time.Now(), slot)
		p = o.c.workers[worker]
	})
	if err != nil || p == nil {
		return err
	}
	select {
	case <-p.child.exited:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (o operatorCore) Health() (h operator.Health) {
	m := o.c.master
	m.call(func() {
		c := m.census()
		h = operator.Health{Up: c.up, Need: c.need, Stopping: m.delay != nil || len(m.stops) > 0}
	})
	h.Stopping = h.Stopping || m.runner.isStopping()
	return h
}
