package fleet

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/url"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/go-cluster/cluster"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// connection is this process's one connection to NATS, and what is known of it. It
// has no lock beside that of the denials.
type connection struct {
	me      *self
	nc      *nats.Conn
	js      jetstream.JetStream
	denials denials
	closing atomic.Bool // from here on what fails is no news
}

// connect connects this process.
func connect(me *self, address string, options []nats.Option) (*connection, error) {
	c := &connection{me: me}
	o := nats.GetDefaultOptions()
	for _, set := range append(c.defaults(), options...) {
		if err := set(&o); err != nil {
			return nil, err
		}
	}
	var err error
	if o.Servers, err = servers(address); err != nil {
		return nil, err
	}
	c.watch(&o)
	nc, err := dial(o, me.set.join, address)
	if err != nil {
		return nil, err
	}
	if c.js, err = jetstream.New(nc); err != nil {
		nc.Close()
		return nil, err
	}
	c.nc = nc
	return c, nil
}

// defaults are those of this package, which Options.NATS can change.
func (c *connection) defaults() []nats.Option {
	return []nats.Option{
		nats.Name(c.me.fleet + "/" + c.me.node),
		nats.ReconnectBufSize(-1), // what cannot be sent now is an error
		nats.MaxReconnects(-1),
		nats.IgnoreAuthErrorAbort(),
		nats.CustomReconnectDelay(reconnectDelay),
		nats.PingInterval(c.me.set.ping),
		nats.FlusherTimeout(c.me.set.ping),
		nats.ReconnectOnFlusherError(),
		nats.Timeout(2 * time.Second),
		nats.DrainTimeout(drainTime),
	}
}

// reconnectDelay is how long to wait when all servers have been tried so often: more
// each time, up to about four seconds, and never the same for two.
func reconnectDelay(attempts int) time.Duration {
	most := 100 * time.Millisecond << min(max(attempts-1, 0), 5)
	return most/2 + rand.N(most)
}

// dial connects, and tries again where no server is.
func dial(o nats.Options, patience time.Duration, address string) (*nats.Conn, error) {
	end := time.Now().Add(patience)
	o.Timeout = min(o.Timeout, patience)
	for {
		nc, err := o.Connect()
		switch {
		case err == nil:
			return nc, nil
		case !absent(err):
			return nil, fmt.Errorf("the server at %s: %w", redacted(address), err)
		case time.Until(end) <= 0:
			return nil, fmt.Errorf("%w: no server at %s takes a connection within %v: %w", ErrNoFleet, redacted(address), patience, err)
		}
		time.Sleep(min(100*time.Millisecond, time.Until(end)))
	}
}

// servers are those of an address. What nats.go would take for this machine is refused.
func servers(address string) (all []string, err error) {
	for one := range strings.SplitSeq(address, ",") {
		one = strings.TrimSpace(one)
		if one == "" {
			continue
		}
		full := one
		if !strings.Contains(one, "://") {
			full = "nats://" + one
		}
		u, err := url.Parse(full)
		if bad, ok := errors.AsType[*url.Error](err); ok {
			return nil, fmt.Errorf("Options.URL is none: %w", bad.Err) // the rest has the password
		}
		switch {
		case !slices.Contains([]string{"nats", "tls", "ws", "wss"}, u.Scheme):
			return nil, fmt.Errorf("Options.URL begins with %s://: NATS has nats://, tls://, ws:// and wss://", u.Scheme)
		case u.Hostname() == "":
			return nil, fmt.Errorf("Options.URL names no host: %q", redacted(one))
		}
		all = append(all, one)
	}
	if len(all) == 0 {
		return nil, fmt.Errorf("Options.URL is %q, and names no server", address)
	}
	return all, nil
}

// absent reports whether the error says that no server is there, which may change.
func absent(err error) bool {
	var network net.Error
	return errors.Is(err, nats.ErrNoServers) || errors.Is(err, nats.ErrTimeout) || errors.Is(err, io.EOF) || errors.As(err, &network)
}

// redacted is an address without its passwords.
func redacted(address string) string {
	all := strings.Split(address, ",")
	for i, one := range all {
		u, err := url.Parse(strings.TrimSpace(one))
		if err != nil {
			return "Options.URL"
		}
		if u.User != nil {
			u.User = url.User("xxxxx")
		}
		all[i] = u.String()
	}
	return strings.Join(all, ",")
}

// watch adds what this package has to know of the connection to what the application
// wants to know.
func (c *connection) watch(o *nats.Options) {
	trouble, down, up := o.AsyncErrorCB, o.DisconnectedErrCB, o.ReconnectedCB
	o.AsyncErrorCB = func(nc *nats.Conn, sub *nats.Subscription, err error) {
		c.trouble(sub, err)
		if trouble != nil {
			trouble(nc, sub, err)
		}
	}
	o.DisconnectedErrCB = func(nc *nats.Conn, err error) {
		if !c.closing.Load() {
			if err == nil {
				err = nats.ErrDisconnected
			}
			lost := fmt.Errorf("%w (%w)", ErrNoFleet, err)
			c.me.report(fmt.Errorf("fleet: %w", lost))
			c.denials.endAll(lost)
		}
		if down != nil {
			down(nc, err)
		}
	}
	o.ReconnectedCB = func(nc *nats.Conn) {
		c.denials.forget()
		ask(c.me, nc)
		if up != nil {
			up(nc)
		}
	}
}

// trouble is told of errors that no call returns.
func (c *connection) trouble(sub *nats.Subscription, err error) {
	switch {
	case c.closing.Load():
	case errors.Is(err, nats.ErrPermissionViolation):
		c.denials.add(err)
		c.me.report(fmt.Errorf("fleet: %w", err))
	case sub != nil && errors.Is(err, nats.ErrSlowConsumer):
		c.me.report(fmt.Errorf("fleet: who hears %q is too slow, and misses messages: %w", sub.Subject, err))
	case sub != nil:
		c.me.report(fmt.Errorf("fleet: who hears %q: %w", sub.Subject, err))
	default:
		c.me.report(fmt.Errorf("fleet: %w", err))
	}
}

// tell waits until the server knows of the subscriptions made so far. An error is
// reported as that of the connection.
func (c *connection) tell() {
	if c.nc.IsConnected() {
		_ = c.nc.FlushTimeout(c.me.set.join)
	}
}

// permitted says what the server does not permit of the subscriptions made so far: it
// has said so before it answers this.
func (c *connection) permitted() error {
	if err := c.nc.FlushTimeout(c.me.set.join); err != nil {
		return wrap(err)
	}
	if err := c.nc.LastError(); errors.Is(err, nats.ErrPermissionViolation) {
		return err
	}
	return nil
}

// drain sends what waits, lets subscribers have what has come, and closes.
func (c *connection) drain(ctx context.Context) error {
	c.closing.Store(true)
	ended := c.nc.StatusChanged(nats.CLOSED)
	if err := c.nc.Drain(); err != nil {
		return wrap(err)
	}
	select {
	case <-ended:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (c *connection) end() {
	c.closing.Store(true)
	c.nc.Close()
}

// wrap says that the connection is what is missing, where it is.
func wrap(err error) error {
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
