package admin

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"sync"
	"sync/atomic"

	"github.com/go-cluster/cluster"
	"github.com/go-cluster/cluster/internal/operator"
)

// Options say where the master is asked, and by whom. The zero Options is a socket
// for the master's own user and nothing else.
type Options struct {
	// Socket is the path of the unix socket, which has mode 0600. "-" is none. A
	// directory that it lies in must be the user's own, since who can write there can
	// put another socket in its place.
	//
	// Default: <program>.<pid>.sock in the directory cluster of the first of
	// RUNTIME_DIRECTORY, XDG_RUNTIME_DIR, for root /run, else
	// $TMPDIR/cluster-<uid>; <program>.sock there leads to the youngest master of the
	// program. If that cannot be made it is logged and left out; that a given one
	// cannot be is an error. On Windows there is none.
	Socket string

	// Name is what the default Socket is called by, instead of the program's name, and
	// by which the command cluster knows this master. What is no letter, digit, "-", "_"
	// or "." becomes "_".
	Name string

	// Address is a TCP address as well, "127.0.0.1:9090" say. Without Token only
	// the status page, /stats, /events, /metrics, /healthz and /readyz are given there.
	// Default: none.
	Address string

	// Token is what lets in over Address for all the rest: the value of
	// "Authorization: Bearer", or the password of Basic, with any user. What a worker
	// is given of it (its arguments, its environment, its memory) a worker knows.
	Token string

	// Hosts are further names by which Address may be asked, beside IP addresses,
	// localhost, the host's name and names without a dot. A browser that was led here
	// by a page of somebody else's domain asks by another one.
	Hosts []string

	// Metrics is what a worker answers to a scrape: promhttp.Handler(), say. /metrics
	// shows what all of them answer, each series with a label worker, beside the
	// cluster's own. Default: a worker has none of its own.
	Metrics http.Handler

	// Debug serves /debug/… of each process, at /workers/{name}/debug/…; a program
	// that has imported net/http/pprof may give http.DefaultServeMux (a ServeMux without
	// /debug/stacks gets that). Default: the
	// profiles of runtime/pprof as net/http/pprof serves them, a trace, the
	// variables of package expvar, and stacks. It does not import these packages,
	// which would register themselves in http.DefaultServeMux, and be public there.
	Debug http.Handler

	// Log is how many lines of the workers' output are kept for /logs. Default: 1,000;
	// -1: none. To be kept, what a worker writes to its standard output and error passes
	// through the master, by whole lines, and goes on to where it went before: the
	// master's own, or the writers of cluster.Options.Output. With -1 a worker inherits
	// the master's. Not kept is what goes to an *os.File or io.Discard of Options.Output,
	// and what a program without this package inherits.
	Log int
}

// service is what Start makes of a process.
type service struct {
	o     Options
	core  operator.Core
	debug http.Handler

	journal *journal   // in a master
	workers *workers   // in a master
	tally   *tally     // in a master
	book    *logBook   // in a master; nil: none is kept
	rates   rates      // in a master
	stalls  *stallBook // in a master
	flight  flight     // in a worker
	guard   guard
	orders  underWay     // in a master
	handler http.Handler // in a master
	servers []*http.Server
	closing chan struct{} // closed when the end begins: who follows is let go
	close   func()
	ends    []func()
}

// current is the service of this process, for Handler; nil if there is none.
var current atomic.Pointer[service]

// ErrStarted is returned by Start when it was called before, and not stopped.
var ErrStarted = errors.New("admin: Start was called already in this process")

// Start begins to answer: in a master to the operator, in a worker to the master. It
// is called once in every process, before AutoFork. A process that has not forked is
// a master without workers. The check of an upgrade (see cluster.Checking) opens nothing.
//
// Over the socket whoever runs as the same user, or as root, may do all. A worker,
// and what it has started, may order nothing: on Linux the master looks up who asks.
// That guards against accidents only, since a process of the same user can do to the
// master what it likes: use cluster.Options.Credential where workers are not to be
// trusted. Over Address nothing can be ordered, and no profile had, without Token.
// Every order has to have the header "X-Cluster: 1", which no page of another origin
// can send.
//
// stop ends it, and removes the socket, as the end of Run does. The error says what
// could not be opened; it is ErrStarted if Start was called before.
func Start(o Options) (stop func(), err error) {
	core, _ := cluster.Context().Value(operator.Key{}).(operator.Core)
	s := &service{o: o, core: core, debug: debugHandler(), closing: make(chan struct{})}
	s.close = sync.OnceFunc(func() { close(s.closing) })
	if o.Debug != nil {
		s.debug = completed(o.Debug)
	}
	if !current.CompareAndSwap(nil, s) {
		return nil, ErrStarted
	}
	switch {
	case cluster.IsWorker():
		s.answerMaster()
	case cluster.Checking():
		// The socket and the address are the master's, which is running.
	default:
		if err := s.answerOperator(); err != nil {
			s.end(context.Background())
			return nil, err
		}
	}
	return func() { s.end(context.Background()) }, nil
}

// Handler returns what Address serves, to be mounted at the root of a server of the
// master's own. As there, Options.Token is needed for orders, and Options.Hosts for
// further names. Before Start, and in a worker, it answers 503.
func Handler() http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if s := current.Load(); s != nil && s.journal != nil {
			s.handler.ServeHTTP(w, r)
			return
		}
		http.Error(w, "admin.Start was not called in this master", http.StatusServiceUnavailable)
	})
}

// answerOperator opens socket and address in a master.
func (s *service) answerOperator() error {
	s.journal, s.tally, s.stalls = newJournal(), newTally(), newStallBook()
	s.workers = newWorkers(s.core)
	if s.o.Log >= 0 {
		s.book = newLogBook(cmp.Or(s.o.Log, defaultLog))
	}
	s.ends = append(s.ends, s.succeed())
	if s.book != nil {
		s.ends = append(s.ends, s.core.OnOutput(s.book.add))
	}
	s.ends = append(s.ends, s.followStalls())
	s.guard = newGuard(s.o)
	s.handler = s.routes()
	// The tally first: who has heard of an event finds it counted.
	s.ends = append(s.ends, s.tally.follow(), s.journal.follow(s.core), s.workers.close)
	s.ends = append(s.ends, cluster.OnShutdown(func(ctx context.Context) error {
		s.journal.settle(ctx)
		s.end(ctx)
		return nil
	}))
	if s.o.Socket != "-" {
		ln, remove, err := listenSocket(s.o.Socket, s.o.Name, s.core.Left(socketName))
		switch {
		case err == nil:
			s.serve(ln)
			s.ends = append(s.ends, remove, s.core.OnLeaving(socketName, ln.File))
		case s.o.Socket != "":
			return fmt.Errorf("admin: Options.Socket: %w", err)
		default:
			logger().Warn("admin: there is no socket", "err", err)
		}
	}
	return s.listenAddress()
}

// listenAddress opens Options.Address, or goes on with the socket of the program before an
// upgrade.
func (s *service) listenAddress() error {
	ln := inheritedAddress(s.o.Address, s.core.Left(addressName))
	if s.o.Address == "" {
		return nil
	}
	if ln == nil {
		var err error
		if ln, err = net.Listen("tcp", s.o.Address); err != nil {
			return fmt.Errorf("admin: Options.Address: %w", err)
		}
	}
	s.serve(ln)
	if tcp, ok := ln.(*net.TCPListener); ok {
		s.ends = append(s.ends, s.core.OnLeaving(addressName, tcp.File))
	}
	return nil
}

// serve serves on ln until the end.
func (s *service) serve(ln net.Listener) {
	srv := &http.Server{
		Handler:           s.handler,
		ConnContext:       func(ctx context.Context, c net.Conn) context.Context { return withPeer(ctx, c) },
		ReadHeaderTimeout: readHeaderTimeout,
		IdleTimeout:       idleTimeout,
		MaxHeaderBytes:    maxHeader,
		ErrorLog:          nowhere,
	}
	s.servers = append(s.servers, srv)
	go srv.Serve(ln)
}

// end ends all of it, once. What is being answered is answered, until ctx ends.
func (s *service) end(ctx context.Context) {
	if !current.CompareAndSwap(s, nil) {
		return
	}
	s.close()
	ctx, cancel := context.WithTimeout(ctx, shutdownTimeout)
	defer cancel()
	for _, srv := range s.servers {
		if srv.Shutdown(ctx) != nil {
			srv.Close()
		}
	}
	for _, end := range s.ends {
		end()
	}
}
