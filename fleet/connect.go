package fleet

import (
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/url"
	"strings"
	"time"

	"github.com/go-cluster/cluster"
	"github.com/go-cluster/cluster/coord"
	"github.com/nats-io/nats.go"
)

// connect finds the server, which may be embedded, and connects this process.
func (f *Fleet) connect() (err error) {
	address := f.o.URL
	if address == "" {
		f.embedded = true
		if cluster.IsWorker() {
			address, err = f.askMaster()
		} else {
			address, err = f.embed()
		}
		if err != nil {
			return err
		}
	}
	o := nats.GetDefaultOptions()
	for _, set := range append(f.defaults(), f.o.NATS...) {
		if err := set(&o); err != nil {
			return err
		}
	}
	for _, one := range strings.Split(address, ",") {
		o.Servers = append(o.Servers, strings.TrimSpace(one))
	}
	f.watch(&o)
	f.nc, err = dial(o, f.set.join, address)
	return err
}

// defaults are those of this package, which Options.NATS can change.
func (f *Fleet) defaults() []nats.Option {
	return []nats.Option{
		nats.Name(f.o.Name + "/" + f.o.Node),
		nats.ReconnectBufSize(-1), // what cannot be sent now is an error
		nats.MaxReconnects(-1),
		nats.IgnoreAuthErrorAbort(),
		nats.CustomReconnectDelay(reconnectDelay),
		nats.PingInterval(f.set.ping),
		nats.FlusherTimeout(f.set.ping),
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
			return nil, fmt.Errorf("%w: no server at %s after %v: %w", ErrNoFleet, redacted(address), patience, err)
		}
		time.Sleep(min(100*time.Millisecond, time.Until(end)))
	}
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
func (f *Fleet) watch(o *nats.Options) {
	trouble, down, up := o.AsyncErrorCB, o.DisconnectedErrCB, o.ReconnectedCB
	o.AsyncErrorCB = func(nc *nats.Conn, sub *nats.Subscription, err error) {
		f.trouble(sub, err)
		if trouble != nil {
			trouble(nc, sub, err)
		}
	}
	o.DisconnectedErrCB = func(nc *nats.Conn, err error) {
		if !f.closing.Load() {
			if err == nil {
				err = nats.ErrDisconnected
			}
			lost := fmt.Errorf("%w (%w)", ErrNoFleet, err)
			f.report(fmt.Errorf("fleet: %w", lost))
			f.denials.endAll(lost)
		}
		if down != nil {
			down(nc, err)
		}
	}
	o.ReconnectedCB = func(nc *nats.Conn) {
		f.denials.forget()
		f.roster.ask()
		if up != nil {
			up(nc)
		}
	}
}

// trouble is told of errors that no call returns.
func (f *Fleet) trouble(sub *nats.Subscription, err error) {
	switch {
	case f.closing.Load():
	case errors.Is(err, nats.ErrPermissionViolation):
		f.denials.add(err)
		f.report(fmt.Errorf("fleet: %w", err))
	case sub != nil && errors.Is(err, nats.ErrSlowConsumer):
		f.report(fmt.Errorf("fleet: who hears %q is too slow, and misses messages: %w", sub.Subject, err))
	case sub != nil:
		f.report(fmt.Errorf("fleet: who hears %q: %w", sub.Subject, err))
	default:
		f.report(fmt.Errorf("fleet: %w", err))
	}
}

// Topics of package coord by which workers learn the embedded server's address.
func (f *Fleet) whereTopic() string   { return "\x00fleet where " + f.o.Name }
func (f *Fleet) addressTopic() string { return "\x00fleet address " + f.o.Name }

// tellWorkers tells workers that ask where the embedded server is.
func (f *Fleet) tellWorkers(address string) (stop func()) {
	return coord.Subscribe(f.whereTopic(), func(struct{}) {
		if err := coord.Publish(f.addressTopic(), address); err != nil {
			f.report(fmt.Errorf("fleet: a worker asks where the server is: %w", err))
		}
	})
}

// askMaster asks where the embedded server is, again and again: the master may join
// later.
func (f *Fleet) askMaster() (string, error) {
	address := make(chan string, 1)
	defer coord.Subscribe(f.addressTopic(), func(s string) {
		select {
		case address <- s:
		default:
		}
	})()
	again := time.NewTicker(200 * time.Millisecond)
	defer again.Stop()
	end := time.NewTimer(f.set.master)
	defer end.Stop()
	for {
		if err := coord.Publish(f.whereTopic(), struct{}{}); err != nil {
			return "", fmt.Errorf("%w: Options.URL is empty, and the master cannot be asked for its server: %w", ErrNoFleet, err)
		}
		select {
		case s := <-address:
			return s, nil
		case <-again.C:
		case <-cluster.Context().Done():
			return "", fmt.Errorf("%w: this worker stops", ErrNoFleet)
		case <-end.C:
			return "", fmt.Errorf("%w: Options.URL is empty, and the master has not joined %q within %v", ErrNoFleet, f.o.Name, f.set.master)
		}
	}
}
