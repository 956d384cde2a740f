package cluster

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"net"
	"net/http"
	"os"
	"slices"
	"strings"
	"sync"

	"github.com/go-cluster/cluster/internal/broker"
	"github.com/go-cluster/cluster/internal/flow"
	"github.com/go-cluster/cluster/internal/handle"
	"github.com/go-cluster/cluster/internal/operator"
	"github.com/go-cluster/cluster/internal/tickets"
	"github.com/go-cluster/cluster/internal/wire"
)

// Server is a server that [Serve] can drain; *http.Server is one.
type Server interface {
	Serve(net.Listener) error
	Shutdown(context.Context) error
}

// Serve serves the connections of ln with srv until the worker is drained, and
// then returns nil. With an *http.Server no HTTP/1 request is lost that ends
// two seconds before the end of Options.ShutdownTimeout. If srv fails, Serve returns its
// error. After Serve
// main may go on, but the process ends by itself two seconds later: clean up in
// [OnShutdown]. Work that may end early looks at [Context], not at
// signal.NotifyContext, which sees no SIGTERM or SIGINT in a worker.
//
// An *http.Server, or a struct that embeds one, is drained so: the functions of
// srv.RegisterOnShutdown are called when the drain begins. Requests are answered with
// "Connection: close" until no client has a connection that it could send on. Then
// Shutdown is called, once no request from before the drain is in flight, or
// half of the time is over. For this, Serve wraps srv.Handler and srv.ConnState.
// Of any other Server only Shutdown is called, at the same moment: use [ServeFunc] for one
// that speaks HTTP/1.
//
// In a master that has forked, Serve does not serve: it is Run. In a process
// that is neither, it is srv.Serve.
func Serve(ln net.Listener, srv Server) error {
	switch {
	case Worker != nil:
		return Worker.inside.drain.Serve(ln, srv)
	case Checking():
		select {} // the check ends this process
	case std.forked.Load():
		return std.run(context.Background())
	}
	return srv.Serve(ln)
}

// ServeFunc is [Serve] for a server that is not of package net/http. serve is called with
// ln and must return when the server is shut down; shutdown shuts it down, within ctx.
// One line does for most servers:
//
//	cluster.ServeFunc(ln, app.Listener, app.ShutdownWithContext)       // fiber v2
//	cluster.ServeFunc(ln, s.Serve, s.ShutdownWithContext)              // fasthttp
//	cluster.ServeFunc(ln, s.Serve, cluster.Graceful(s.GracefulStop, s.Stop)) // grpc
//
// In a drain an HTTP/1 client must be told that its connection ends, before the
// connection is closed. Such servers tell it late, so the connections of ln do it for
// them: they add "Connection: close" to the head of each answer ("HTTP/1.1 ", no 1xx)
// that has no Connection header. shutdown is called when no client is left, and at the
// latest three seconds after the last request from before the drain has ended, or when
// half of the time is over. An encrypted answer cannot be changed so: if serve encrypts,
// or ln is a TLS listener, a middleware has to set the header once [Stopping] is closed.
// Connections of other protocols are left to shutdown.
//
// In a master that has forked, ServeFunc is Run. In a process that is neither, it is
// serve.
func ServeFunc(ln net.Listener, serve func(net.Listener) error, shutdown func(context.Context) error) error {
	switch {
	case Worker != nil:
		return Worker.inside.drain.ServeFunc(ln, serve, shutdown)
	case Checking():
		select {} // the check ends this process
	case std.forked.Load():
		return std.run(context.Background())
	}
	return serve(ln)
}

// Graceful returns a shutdown function for [ServeFunc], made of a stop that waits for
// what is in flight and a force that does not wait. It calls stop; if ctx ends before
// stop has returned, it calls force and returns ctx.Err(). In a worker stop is called as
// soon as the drain begins. So Graceful is for protocols that can say goodbye at once
// without losing a request, as HTTP/2 does with GOAWAY. stop is called at most once.
func Graceful(stop, force func()) func(context.Context) error {
	stopped := make(chan struct{})
	begin := sync.OnceFunc(func() {
		go func() {
			defer close(stopped)
			stop()
		}()
	})
	if Worker != nil {
		Worker.inside.drain.AtOnce(begin)
	}
	return func(ctx context.Context) error {
		begin()
		select {
		case <-stopped:
			return nil
		case <-ctx.Done():
			force()
			return ctx.Err()
		}
	}
}

// ListenAndServe listens on the TCP address and serves HTTP with h, or
// http.DefaultServeMux if h is nil, as [Listen] and [Serve] do. With
// [AutoFork] before it, it is all that a clustered server needs.
func ListenAndServe(address string, h http.Handler) error {
	if Worker == nil && std.forked.Load() {
		return std.run(context.Background())
	}
	ln, err := Listen("tcp", address)
	if err != nil {
		return err
	}
	defer ln.Close()
	return Serve(ln, &http.Server{Handler: h})
}

// ServeTLS is [Serve] for HTTPS: as srv.ServeTLS it takes the certificate from the
// files, or from srv.TLSConfig if they are "". A client resumes its TLS session on any
// worker, before and after a [Reload], since the master makes the keys of the session
// tickets and changes them every day (see [ShareTickets]); a SessionTicketKey in
// srv.TLSConfig is used in their place.
//
// The files are read once by each worker, before its first Accept. So a Reload renews
// the certificate. If it cannot be read, ServeTLS returns the error, the reload fails
// and the old workers stay. In a master that has forked, ServeTLS is [Run] and
// reads no file.
func ServeTLS(ln net.Listener, srv *http.Server, certFile, keyFile string) error {
	if Worker == nil {
		if std.forked.Load() {
			return Serve(ln, srv)
		}
		return srv.ServeTLS(ln, certFile, keyFile)
	}
	config, err := serverTLS(srv, certFile, keyFile)
	if err != nil {
		return callError("ServeTLS", err)
	}
	//lint:ignore SA1019 a program may have set it
	if config.SessionTicketKey == [32]byte{} {
		ShareTickets(config)
	}
	return Serve(tls.NewListener(ln, config), srv)
}

// ListenAndServeTLS is [ListenAndServe] for HTTPS, as [ServeTLS] serves it.
func ListenAndServeTLS(address, certFile, keyFile string, h http.Handler) error {
	if Worker == nil && std.forked.Load() {
		return ListenAndServe(address, h)
	}
	ln, err := Listen("tcp", address)
	if err != nil {
		return err
	}
	defer ln.Close()
	return ServeTLS(ln, &http.Server{Handler: h}, certFile, keyFile)
}

// ShareTickets makes c use the cluster's session ticket keys, now and as they change,
// so that clients resume their sessions on any worker. It is for a tls.Config that
// [ServeTLS] does not make. The keys come from the master, which makes new ones every
// day; three are valid at a time, and the newest opens tickets for a day before it
// makes any.
//
// c must be the config that serves. A clone, as http.Server.ServeTLS makes, keeps the keys
// that it was cloned with and gets no new ones. ShareTickets does not keep c alive. In a
// process that is no worker, and in the worker of a node primary, it does
// nothing, and Go's own keys are used. The first call waits for the master's answer.
func ShareTickets(c *tls.Config) {
	if Worker == nil || !Worker.inside.hello.Tickets {
		return
	}
	Worker.inside.shareTickets(c)
}

// serverTLS returns the configuration that http.Server.ServeTLS would serve with.
func serverTLS(srv *http.Server, certFile, keyFile string) (*tls.Config, error) {
	config := new(tls.Config)
	if srv.TLSConfig != nil {
		config = srv.TLSConfig.Clone()
	}
	http1, http2 := protocols(srv)
	config.NextProtos = nextProtos(config.NextProtos, "h2", http2)
	config.NextProtos = nextProtos(config.NextProtos, "http/1.1", http1)
	if http2 && srv.TLSConfig != nil && !slices.Contains(srv.TLSConfig.NextProtos, "h2") {
		// net/http's Serve configures HTTP/2 only if it finds "h2" here. Its ServeTLS adds it too.
		srv.TLSConfig.NextProtos = append(srv.TLSConfig.NextProtos, "h2")
	}
	given := len(config.Certificates) > 0 || config.GetCertificate != nil || config.GetConfigForClient != nil
	if given && certFile == "" && keyFile == "" {
		return config, nil
	}
	cert, err := tls.LoadX509KeyPair(certFile, keyFile)
	config.Certificates = []tls.Certificate{cert}
	return config, err
}

// protocols are those that srv serves over TLS.
func protocols(srv *http.Server) (http1, http2 bool) {
	if p := srv.Protocols; p != nil {
		return p.HTTP1(), p.HTTP2()
	}
	_, own := srv.TLSNextProto["h2"]
	off := srv.TLSNextProto != nil || slices.Contains(strings.Split(os.Getenv("GODEBUG"), ","), "http2server=0")
	return true, own || !off
}

// nextProtos is protos with the protocol or without it.
func nextProtos(protos []string, protocol string, with bool) []string {
	switch has := slices.Contains(protos, protocol); {
	case with && !has:
		return append(slices.Clone(protos), protocol)
	case has && !with:
		return slices.DeleteFunc(slices.Clone(protos), func(p string) bool { return p == protocol })
	}
	return protos
}

// Context returns a context that is done when this process is asked to stop: in
// a worker when its drain begins, in the master when Run is told to end. It takes the
// place of signal.NotifyContext, which in a worker sees no signal: SIGTERM is a drain
// there, and SIGINT is left to the master.
func Context() context.Context {
	// Packages coord, admin and quic find their part of the cluster in it.
	ctx := context.WithValue(std.context(), broker.Key{}, std.coord)
	ctx = context.WithValue(ctx, flow.Key{}, flow.Core(flowCore{std}))
	return context.WithValue(ctx, operator.Key{}, operator.Core(operatorCore{std}))
}

func (c *cluster) context() context.Context {
	if Worker != nil {
		return Worker.inside.drain.Context()
	}
	return c.runner.context()
}

// Stopping returns a channel that is closed when this process will stop: in a worker
// when Options.ShutdownDelay begins, or without one the drain; in the master when
// Run is told to end, or by Disconnect. It is for readiness checks, and for a
// middleware that has to say "Connection: close" itself (see [ServeFunc]).
func Stopping() <-chan struct{} {
	if Worker != nil {
		return Worker.inside.drain.Stopping()
	}
	return std.runner.stoppingChan()
}

// OnShutdown registers fn to run at the end of the drain: after what was in
// flight, before the channel closes, so that it can still Send. In the master
// it runs at the end of Run, when all workers are gone. Hooks run one after
// another, the latest registered first. ctx ends when the process is about to
// be ended, and its Deadline tells when that is. An error is logged.
func OnShutdown(fn func(context.Context) error) (stop func()) {
	notNil(fn == nil)
	if Worker != nil {
		return Worker.inside.drain.OnShutdown.Add(fn)
	}
	return std.runner.hooks.Add(fn)
}

// ---- session tickets: the worker's half

func (in *inside) shareTickets(c *tls.Config) {
	in.askTickets.Do(func() {
		answered := make(chan struct{})
		in.p.link.Ask(&wire.Message{Act: wire.ActTickets}, func(w *wire.Message, h *handle.Handle) {
			h.Release()
			if w != nil { // the master is not gone
				in.gotTickets(w.Msg)
			}
			close(answered)
		})
		<-answered
	})
	in.tickets.Share(c)
}

// gotTickets takes the keys that came from the master.
func (in *inside) gotTickets(msg json.RawMessage) {
	keys, err := tickets.Decode(msg)
	if err != nil {
		in.p.link.Fault("%w", err)
		return
	}
	in.tickets.Set(keys)
}

// ---- the master's half

// ticketKeys are the keys as the master has them. Its methods run in turns of the
// mailbox.
type ticketKeys struct {
	maker *tickets.Maker // nil until a worker asks
}

// give answers a worker that asks for the keys, and for those that follow.
func (k *ticketKeys) give(m *master, p *Process, seq *int64) {
	if seq == nil {
		return
	}
	if k.maker == nil {
		k.maker = tickets.New(func() { m.post(func() { k.spread(m.workers) }) })
	}
	p.child.tickets = true
	p.link.Answer((&wire.Message{Cmd: wire.CmdCluster, Ack: seq, Msg: k.maker.Keys().Encode(), Seq: wire.NextSeq()}).Line())
}

// spread gives new keys to the workers that have asked for them.
func (k *ticketKeys) spread(workers map[int]*Process) {
	line := (&wire.Message{Cmd: wire.CmdExtra, Act: wire.ActTickets, Msg: k.maker.Keys().Encode()}).Line()
	for _, p := range workers {
		if p.child.tickets {
			p.link.Answer(line)
		}
	}
}
