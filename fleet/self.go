package fleet

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/go-cluster/cluster"
	"github.com/go-cluster/cluster/coord"
	"github.com/go-cluster/cluster/internal/broker"
	"github.com/nats-io/nats.go"
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

// self is who this process is in which fleet. It does not change, and all parts of a
// Fleet have it.
type self struct {
	fleet, node string
	instance    string // of this process: names are used again
	home        string // of this member's master: see homeOf
	master      bool   // this process speaks for the member
	checks      bool   // it is the check of an upgrade: nobody is to rely on it
	orders      bool   // it takes them
	embedded    bool   // the server is, here or in the master
	set         settings
	report      func(error) // as cluster.OnError says
}

// newSelf checks the options of Join, and fills what they leave out.
func newSelf(o Options, set settings) (*self, error) {
	me := &self{
		fleet: o.Name, node: o.Node, instance: rand.Text(), checks: cluster.Checking(),
		master: cluster.IsMaster() && !cluster.Checking() && !o.Observer,
		orders: o.Orders, embedded: o.URL == "", set: set,
		report: cluster.Context().Value(broker.Key{}).(*broker.Client).Report,
	}
	if me.fleet == "" {
		me.fleet = programName()
	}
	if me.node == "" {
		me.node = fmt.Sprintf("%s-%d", hostName(), masterPID())
	}
	if o.Observer && o.Orders {
		return nil, errors.New("Options.Observer and Options.Orders: who is no member takes no orders")
	}
	if err := checkFleetName(me.fleet); err != nil {
		return nil, err
	}
	if len(me.node) > maxName/4 {
		return nil, fmt.Errorf("Options.Node has more than %d bytes", maxName/4)
	}
	me.home = homeOf(me.node, set.call)
	return me, nil
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

// owner is what a master says of itself to who asks for its name.
type owner struct {
	Host string `json:"host"`
	PID  int    `json:"pid"`
	Home string `json:"home"`
}

// claimName makes sure that no other member that is alive has this one's name, and
// answers for it from now on.
func (r *responders) claimName() error {
	subject := r.me.nameSubject(r.me.node)
	ctx, cancel := context.WithTimeout(context.Background(), r.me.set.join)
	defer cancel()
	var who *owner
	for ctx.Err() == nil {
		// Who is dead may be asked still, for a moment, and answers nothing.
		one, end := context.WithTimeout(ctx, r.me.set.join/5)
		err := r.conn.request(one, subject, struct{}{}, &who)
		silent := one.Err() != nil
		end()
		switch {
		case errors.Is(err, nats.ErrPermissionViolation) || errors.Is(err, ErrNoFleet):
			return err
		case errors.Is(err, nats.ErrNoResponders):
			return r.ownName(subject)
		case err != nil && !silent:
			return err
		}
		time.Sleep(r.me.set.join / 20) // he may be about to leave
	}
	if who != nil && who.Home == r.me.home {
		return fmt.Errorf("%w: Options.Node %q is this process's: it has joined already, and has not left by Close", ErrNameTaken, r.me.node)
	}
	if who != nil {
		return fmt.Errorf("%w: Options.Node %q is that of pid %d at %s", ErrNameTaken, r.me.node, who.PID, who.Host)
	}
	return r.ownName(subject) // somebody is there who answers nothing: he is cut off, or stopped
}

// ownName answers for the name from now on.
func (r *responders) ownName(subject string) error {
	_, err := r.answer(subject, func([]byte) (any, error) { return owner{hostName(), masterPID(), r.me.home}, nil })
	return wrap(err)
}
