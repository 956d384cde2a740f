package fleet

import (
	"crypto/rand"
	"fmt"
	"net"
	"net/url"
	"os"
	"time"

	"github.com/nats-io/nats-server/v2/server"
)

// embed starts the server of a fleet of one member, in this master.
func (f *Fleet) embed() (address string, err error) {
	dir, err := os.MkdirTemp("", "cluster-fleet-")
	if err != nil {
		return "", fmt.Errorf("the embedded server: %w", err)
	}
	f.remove = func() { os.RemoveAll(dir) }
	password := rand.Text()
	s, err := server.NewServer(&server.Options{
		ServerName: "embedded", Host: "127.0.0.1", Port: server.RANDOM_PORT, Authorization: password,
		JetStream: true, StoreDir: dir, JetStreamMaxMemory: 64 << 20, JetStreamMaxStore: 64 << 20,
		NoLog: true, NoSigs: true, NoSystemAccount: true,
	})
	if err != nil {
		f.remove()
		return "", fmt.Errorf("the embedded server: %w", err)
	}
	f.server = s
	s.Start()
	if !s.ReadyForConnections(10 * time.Second) {
		return "", fmt.Errorf("the embedded server does not start within 10 s")
	}
	u := url.URL{Scheme: "nats", User: url.User(password), Host: s.Addr().(*net.TCPAddr).String()}
	f.ends = append(f.ends, f.tellWorkers(u.String()))
	return u.String(), nil
}
