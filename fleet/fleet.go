package fleet

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/go-cluster/cluster"
	"github.com/go-cluster/cluster/coord"
	"github.com/go-cluster/cluster/internal/broker"
	"github.com/go-cluster/cluster/internal/callback"
	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
)

// Options say which fleet a process joins, and as what. The zero Options is a fleet
// of one member with a server of its own.
type Options struct {
	// URL is that of a NATS server, "nats://nats:4222" say; several have a comma
	// between them. Default: a server embedded in the master, on loopback and a port
	// of the system's choice, with a password that only its workers are told. It is
	// for development and tests: one machine, and nothing is kept when it ends.
	URL string

	// Name is that of the fleet: letters, digits, - and _, at most 64. All subjects
	// begin with cluster.<Name>. Default: the program's name.
	Name string

	// Node is the name of this member, which no other member may have. All processes
	// of a member give the same. Default: the host's name and the master's pid.
	Node string

	// Orders lets this member carry out the fleet's Reload, Scale and Stop. Whoever
	// may publish to the subject of orders can give them. Default: no.
	Orders bool

	// NATS are options of the connection: credentials, TLS, a dialer. Callbacks among
	// them are called beside those of this package. With nats.RetryOnFailedConnect
	// Join succeeds where there is no server yet.
	NATS []nats.Option
}

var (
	// ErrNoFleet is returned when there is no connection to NATS, or it ended while a
	// call waited. It is restored by itself; what was not sent is not sent later.
	ErrNoFleet = errors.New("no connection to NATS")

	// ErrNameTaken is returned by Join when another member that is alive has
	// Options.Node. It is reported through cluster.OnError where two have joined at
	// the same moment.
	ErrNameTaken = errors.New("another member has this name")

	// ErrVersion is reported, and returned by orders, where a member speaks another
	// version of the protocol between members.
	ErrVersion = errors.New("a member speaks another version of the fleet's protocol")
)

// protocol is the version that members speak between them: heartbeats and orders.
const protocol = 1

// settings are durations that a fleet lives by.
type settings struct {
	join   time.Duration // for Join to find the server
	call   time.Duration // for JetStream to answer
	master time.Duration // for a worker to hear from its master where that is
	ping   time.Duration // between pings: two without an answer are a lost connection
	beat   time.Duration // between heartbeats: three missing are a lost member
	lease  leaseSettings
}

// production are those that Join gives.
var production = settings{
	join: 5 * time.Second, call: 5 * time.Second, master: 30 * time.Second, ping: 4 * time.Second, beat: 5 * time.Second,
	lease: leaseSettings{term: 15 * time.Second, renew: 5 * time.Second, hold: 10 * time.Second, look: 500 * time.Millisecond},
}

// Fleet is this process's part of a fleet. Its methods may be called by any
// goroutine, callbacks included.
type Fleet struct {
	o        Options
	set      settings
	instance string // of this process: names are used again
	home     string // of this member's master: see homeOf
	master   bool
	server   *server.Server // embedded in this master
	embedded bool           // here or in the master
	remove   func()         // the embedded server's files
	nc       *nats.Conn
	report   func(error)

	denials    denials
	topics     topics
	roster     *roster
	responders responders
	running    callback.Running // handlers of requests and orders, and what leads
	store      bucket
	epoch      epochs
	leads      leads

	over    context.Context // ends when Close begins
	endOver context.CancelFunc
	closing atomic.Bool
	close   sync.Once
	closed  chan struct{}
	ends    []func() // what unregisters this from the cluster
}

// Join makes this process part of a fleet. It is called in every process, before or
// after cluster.AutoFork, with the same options. In a worker without URL it waits
// until the master has joined, for at most 30 seconds.
//
// The error wraps [ErrNoFleet] if no server has been found within five seconds,
// unless nats.RetryOnFailedConnect is among Options.NATS; nats.ErrAuthorization if
// it refuses the credentials, at once; nats.ErrPermissionViolation if it does not
// permit the subjects of members (docs/fleet.md has them); [ErrNameTaken] if another
// member has the name.
func Join(o Options) (*Fleet, error) { return join(o, production) }

func join(o Options, set settings) (*Fleet, error) {
	if o.Name == "" {
		o.Name = programName()
	}
	if o.Node == "" {
		o.Node = fmt.Sprintf("%s-%d", hostName(), masterPID())
	}
	if err := checkFleetName(o.Name); err != nil {
		return nil, fmt.Errorf("fleet: Join: %w", err)
	}
	if len(o.Node) > maxName/4 {
		return nil, fmt.Errorf("fleet: Join: Options.Node has more than %d bytes", maxName/4)
	}
	f := &Fleet{
		o: o, set: set, instance: rand.Text(), master: cluster.IsMaster(), closed: make(chan struct{}),
		report: cluster.Context().Value(broker.Key{}).(*broker.Client).Report,
	}
	f.roster = newRoster(f)
	f.store.f, f.home = f, homeOf(o.Node, set.call)
	f.over, f.endOver = context.WithCancel(context.Background())
	if err := f.connect(); err != nil {
		f.abandon()
		return nil, fmt.Errorf("fleet: Join: %w", err)
	}
	if err := f.begin(); err != nil {
		f.abandon()
		return nil, fmt.Errorf("fleet: Join: %w", err)
	}
	f.ends = append(f.ends, cluster.OnShutdown(func(ctx context.Context) error { return f.end(ctx) }))
	if cluster.IsWorker() {
		// New requests are another process's from the beginning of the drain on.
		stop := context.AfterFunc(cluster.Context(), f.responders.drain)
		f.ends = append(f.ends, func() { stop() })
	}
	return f, nil
}

// begin makes the member known, and knows the others.
func (f *Fleet) begin() error {
	if f.master && f.nc.IsConnected() {
		if err := f.claimName(); err != nil {
			return err
		}
	}
	if err := f.roster.begin(); err != nil {
		return err
	}
	if f.master && f.o.Orders {
		if err := f.takeOrders(); err != nil {
			return err
		}
	}
	if !f.nc.IsConnected() {
		return nil // nats.RetryOnFailedConnect
	}
	// What the server does not permit it has said before it answers this.
	if err := f.nc.FlushTimeout(f.set.join); err != nil {
		return f.wrap(err)
	}
	if err := f.nc.LastError(); errors.Is(err, nats.ErrPermissionViolation) {
		return err
	}
	return nil
}

// Conn is the connection, for what is not here. It is drained and closed with this
// process: do not close it.
func (f *Fleet) Conn() *nats.Conn { return f.nc }

// Node is the name of this member.
func (f *Fleet) Node() string { return f.o.Node }

// Name is that of the fleet.
func (f *Fleet) Name() string { return f.o.Name }

// Close leaves the fleet: what was published is sent, handlers that run are waited
// for, and callbacks of subscribers that have a message, for at most ten seconds.
// Processes of a cluster need not call it: it happens at the end of a worker's drain,
// and of Run in the master, as a function given to cluster.OnShutdown by Join: those
// given later run before it. It returns ErrNoFleet if something could not be sent.
func (f *Fleet) Close() error {
	ctx, cancel := context.WithTimeout(context.Background(), drainTime)
	defer cancel()
	return f.end(ctx)
}

// drainTime is how long the connection may take to drain.
const drainTime = 10 * time.Second

func (f *Fleet) end(ctx context.Context) (err error) {
	f.close.Do(func() {
		defer close(f.closed)
		f.leads.end()
		f.endOver()
		f.responders.drain()
		f.roster.leave()
		err = f.drain(ctx)
		f.abandon()
	})
	<-f.closed
	return err
}

// drain lets handlers end, and sends what waits.
func (f *Fleet) drain(ctx context.Context) error {
	if !f.nc.IsConnected() {
		return nil
	}
	// What was sent to a responder before the server heard of its end is here when
	// the server has answered.
	if err := f.nc.FlushWithContext(ctx); err != nil {
		return f.wrap(err)
	}
	idle := make(chan struct{})
	go func() {
		defer close(idle)
		f.responders.wait(ctx)
		f.running.Wait()
	}()
	select {
	case <-idle:
	case <-ctx.Done():
	}
	f.closing.Store(true)
	ended := f.nc.StatusChanged(nats.CLOSED)
	if err := f.nc.Drain(); err != nil {
		return f.wrap(err)
	}
	select {
	case <-ended:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// abandon ends what there is of the connection and the server.
func (f *Fleet) abandon() {
	for _, end := range f.ends {
		end()
	}
	f.closing.Store(true)
	f.endOver()
	f.roster.end()
	f.epoch.end()
	if f.nc != nil {
		f.nc.Close()
	}
	if f.server != nil {
		f.server.Shutdown()
		f.server.WaitForShutdown()
		f.remove()
	}
}

// wrap says that the connection is what is missing, where it is.
func (f *Fleet) wrap(err error) error {
	for _, lost := range []error{
		nats.ErrReconnectBufExceeded, nats.ErrConnectionClosed, nats.ErrConnectionReconnecting, nats.ErrDisconnected,
		nats.ErrConnectionDraining, nats.ErrNoServers, nats.ErrStaleConnection, nats.ErrInvalidConnection,
	} {
		if errors.Is(err, lost) {
			return fmt.Errorf("%w (%w)", ErrNoFleet, err)
		}
	}
	if errors.Is(err, nats.ErrMaxPayload) {
		return fmt.Errorf("%w: %w", cluster.ErrTooLarge, err)
	}
	return err
}

// homeOf names a member and its master, as no other master is named: what package
// coord says of who leads and who is dead holds for all processes of one home.
func homeOf(node string, patience time.Duration) string {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	id, s := rand.Text(), coord.Open("\x00fleet")
	if added, err := s.Add(ctx, "home", []byte(id), 0); err == nil && !added {
		if val, ok, err := s.Get(ctx, "home"); err == nil && ok {
			id = string(val)
		}
	}
	return id + " " + node
}

// subject is one of this fleet's.
func (f *Fleet) subject(rest string) string { return "cluster." + f.o.Name + "." + rest }

func hostName() string {
	name, err := os.Hostname()
	if err != nil {
		return "unknown"
	}
	return name
}

// masterPID is the pid of the master, which in a worker is the parent.
func masterPID() int {
	if cluster.IsWorker() {
		return os.Getppid()
	}
	return os.Getpid()
}
