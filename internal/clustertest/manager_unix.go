//go:build unix

package clustertest

import (
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// Manager is a service manager, as a program sees one.
type Manager struct {
	Env       string      // what it adds to the environment of the program
	Datagrams chan string // what the program says to it

	t testing.TB
}

// NewManager returns one that listens until the end of the test.
func NewManager(t testing.TB) *Manager {
	t.Helper()
	dir, err := os.MkdirTemp("", "notify") // short: sun_path has little room
	require.NoError(t, err)
	t.Cleanup(func() { os.RemoveAll(dir) })
	socket := filepath.Join(dir, "s")
	c, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: socket, Net: "unixgram"})
	require.NoError(t, err)
	t.Cleanup(func() { c.Close() })
	m := &Manager{Env: "NOTIFY_SOCKET=" + socket, Datagrams: make(chan string, 10000), t: t}
	go func() {
		b := make([]byte, 64<<10)
		for {
			n, err := c.Read(b)
			if err != nil {
				return
			}
			m.Datagrams <- string(b[:n])
		}
	}()
	return m
}

// Next is the next datagram that is no WATCHDOG=1.
func (m *Manager) Next() string {
	m.t.Helper()
	for {
		if d := Await(m.t, m.Datagrams, "datagram"); d != "WATCHDOG=1" {
			return d
		}
	}
}

// InRun waits until the program is in Run, which takes its signals, and its workers
// are up. Before that, workers may serve already, and a signal does to the master what
// it does to any program.
func (m *Manager) InRun() {
	m.t.Helper()
	for !strings.HasPrefix(m.Next(), "READY=1\n") {
	}
}
