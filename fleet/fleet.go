package fleet

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/go-cluster/cluster"
	"github.com/go-cluster/cluster/internal/callback"
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

	// Observer is for a process that is no member: a command of an operator, say. It sees
	// the members and can do all that they can, but none hears of it, and it takes no
	// orders. Default: no.
	Observer bool

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

// Fleet is this process's part of a fleet. Its methods may be called by any
// goroutine, callbacks included.
type Fleet struct {
	// The parts, each with a state and a lock of its own. They stay what Join has made.
	me     *self
	server *embedded // nil where it is elsewhere
	conn   *connection

	topics     *topics
	running    *callback.Running // handlers of requests and orders, and what leads
	responders *responders
	roster     *roster
	orders     *orders
	store      *bucket
	epoch      *epochs
	leases     *leases
	leads      *leads

	close  sync.Once
	closed chan struct{}
	ends   []func() // what unregisters this from the cluster
}

// Join makes this process part of a fleet. It is called in every process, before or
// after cluster.AutoFork, with the same options. In a worker without URL it waits
// until the master has joined, for at most 30 seconds.
//
// In the check of an upgrade (cluster.Checking) it connects, so that what is wrong with
// server or credentials is found. But the process is no member: nobody hears of it, and it
// answers and leads nothing.
//
// The error wraps [ErrNoFleet] if no server has been found within five seconds,
// unless nats.RetryOnFailedConnect is among Options.NATS; nats.ErrAuthorization if
// it refuses the credentials, at once; nats.ErrPermissionViolation if it does not
// permit the subjects of members (docs/fleet.md has them); [ErrNameTaken] if another
// member has the name.
func Join(o Options) (*Fleet, error) { return join(o, production) }

func join(o Options, set settings) (*Fleet, error) {
	me, err := newSelf(o, set)
	if err != nil {
		return nil, fmt.Errorf("fleet: Join: %w", err)
	}
	f := &Fleet{me: me, closed: make(chan struct{})}
	if err := f.connect(o); err != nil {
		return nil, fmt.Errorf("fleet: Join: %w", err)
	}
	f.assemble()
	if err := f.begin(); err != nil {
		f.abandon()
		return nil, fmt.Errorf("fleet: Join: %w", err)
	}
	joined := make(chan struct{}) // a drain may have begun already
	defer close(joined)
	f.ends = append(f.ends, cluster.OnShutdown(func(ctx context.Context) error {
		<-joined
		return f.end(ctx)
	}))
	if cluster.IsWorker() {
		// New requests are another process's from the beginning of the drain on.
		stop := context.AfterFunc(cluster.Context(), f.responders.drain)
		f.ends = append(f.ends, func() { stop() })
	}
	return f, nil
}

// connect finds the server, which may be embedded, and connects this process.
func (f *Fleet) connect(o Options) (err error) {
	address := o.URL
	switch {
	case !f.me.embedded:
	case cluster.IsWorker():
		if address, err = askMaster(f.me); err != nil {
			return err
		}
	default:
		if f.server, err = embed(f.me); err != nil {
			return err
		}
		address = f.server.address
	}
	if f.conn, err = connect(f.me, address, o.NATS); err != nil && f.server != nil {
		f.server.end()
	}
	return err
}

// assemble makes the parts that live by the connection.
func (f *Fleet) assemble() {
	f.topics = &topics{me: f.me, conn: f.conn}
	f.running = new(callback.Running)
	f.responders = newResponders(f.conn, f.running)
	f.roster = newRoster(f.conn)
	f.orders = &orders{me: f.me, conn: f.conn, roster: f.roster, responders: f.responders}
	f.store = &bucket{me: f.me, conn: f.conn}
	f.epoch = &epochs{me: f.me, store: f.store}
	f.leases = &leases{me: f.me, conn: f.conn, store: f.store, epoch: f.epoch}
	f.leads = newLeads(f.leases, f.running)
}

// begin makes the member known, and knows the others.
func (f *Fleet) begin() error {
	claims := f.me.master && f.conn.nc.IsConnected()
	if claims {
		if err := f.responders.claimName(); err != nil {
			return err
		}
	}
	if err := f.roster.begin(claims); err != nil {
		return err
	}
	if f.me.master && f.me.orders {
		if err := f.orders.take(); err != nil {
			return err
		}
	}
	if !f.conn.nc.IsConnected() {
		return nil // nats.RetryOnFailedConnect
	}
	return f.conn.permitted()
}

// Conn is the connection, for what is not here. It is drained and closed with this
// process: do not close it.
func (f *Fleet) Conn() *nats.Conn { return f.conn.nc }

// Node is the name of this member.
func (f *Fleet) Node() string { return f.me.node }

// Name is that of the fleet.
func (f *Fleet) Name() string { return f.me.fleet }

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
	if !f.conn.nc.IsConnected() {
		return nil
	}
	// What was sent to a responder before the server heard of its end is here when
	// the server has answered.
	if err := f.conn.nc.FlushWithContext(ctx); err != nil {
		return wrap(err)
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
	return f.conn.drain(ctx)
}

// abandon ends what there is of the connection and the server.
func (f *Fleet) abandon() {
	for _, end := range f.ends {
		end()
	}
	f.conn.closing.Store(true) // before what ends now finds that it cannot speak
	f.leads.endOver()
	f.roster.end()
	f.epoch.end()
	f.conn.end()
	f.responders.hands.end()
	if f.server != nil {
		f.server.end()
	}
}
