package fleet

import (
	"crypto/rand"
	"fmt"
	"net"
	"net/url"
	"os"
	"time"

	"github.com/go-cluster/cluster"
	"github.com/go-cluster/cluster/coord"
	"github.com/nats-io/nats-server/v2/server"
)

// embedded is the server of a fleet of one member, in this master.
type embedded struct {
	me      *self
	server  *server.Server
	address string
	dir     string
	quiet   func() // workers are told of it no longer
}

// embed starts the server.
func embed(me *self) (e *embedded, err error) {
	dir, err := os.MkdirTemp("", "cluster-fleet-")
	if err != nil {
		return nil, fmt.Errorf("the embedded server: %w", err)
	}
	password := rand.Text()
	s, err := server.NewServer(&server.Options{
		ServerName: "embedded", Host: "127.0.0.1", Port: server.RANDOM_PORT, Authorization: password,
		JetStream: true, StoreDir: dir, JetStreamMaxMemory: 64 << 20, JetStreamMaxStore: 64 << 20,
		NoLog: true, NoSigs: true, NoSystemAccount: true,
	})
	if err != nil {
		os.RemoveAll(dir)
		return nil, fmt.Errorf("the embedded server: %w", err)
	}
	e = &embedded{me: me, server: s, dir: dir, quiet: func() {}}
	s.Start()
	if !s.ReadyForConnections(10 * time.Second) {
		e.end()
		return nil, fmt.Errorf("the embedded server does not start within 10 s")
	}
	u := url.URL{Scheme: "nats", User: url.User(password), Host: s.Addr().(*net.TCPAddr).String()}
	e.address = u.String()
	e.quiet = e.tellWorkers()
	return e, nil
}

// end ends the server, and removes its files.
func (e *embedded) end() {
	e.quiet()
	e.server.Shutdown()
	e.server.WaitForShutdown()
	os.RemoveAll(e.dir)
}

// tellWorkers tells workers that ask where the embedded server is.
func (e *embedded) tellWorkers() (stop func()) {
	return coord.Subscribe(e.me.whereTopic(), func(struct{}) {
		if err := coord.Publish(e.me.addressTopic(), e.address); err != nil {
			e.me.report(fmt.Errorf("fleet: a worker asks where the server is: %w", err))
		}
	})
}

// askMaster asks where the embedded server is, again and again: the master may join
// later.
func askMaster(me *self) (string, error) {
	address := make(chan string, 1)
	defer coord.Subscribe(me.addressTopic(), func(s string) {
		select {
		case address <- s:
		default:
		}
	})()
	again := time.NewTicker(200 * time.Millisecond)
	defer again.Stop()
	end := time.NewTimer(me.set.master)
	defer end.Stop()
	for {
		if err := coord.Publish(me.whereTopic(), struct{}{}); err != nil {
			return "", fmt.Errorf("%w: Options.URL is empty, and the master cannot be asked for its server: %w", ErrNoFleet, err)
		}
		select {
		case s := <-address:
			return s, nil
		case <-again.C:
		case <-cluster.Context().Done():
			return "", fmt.Errorf("%w: this worker stops", ErrNoFleet)
		case <-end.C:
			return "", fmt.Errorf("%w: Options.URL is empty, and the master has not joined %q within %v", ErrNoFleet, me.fleet, me.set.master)
		}
	}
}
