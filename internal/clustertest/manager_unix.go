//go:build unix

package clustertest

import (
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// Manager is a service manager, as a program sees one.
type Manager struct {
	Env       string      // what it adds to the environment of the program
	Datagrams chan string // what the program says to it

	t    testing.TB
	mu   sync.Mutex
	kept []kept // its file descriptor store
}

// kept is a descriptor that the program wants kept.
type kept struct {
	name string
	fd   int
}

// NewManager returns a Manager that listens until the end of the test.
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
		b, oob := make([]byte, 64<<10), make([]byte, unix.CmsgSpace(253*4)) // SCM_MAX_FD
		for {
			n, oobn, _, _, err := c.ReadMsgUnix(b, oob)
			if err != nil {
				return
			}
			if d := string(b[:n]); !m.store(d, descriptors(oob[:oobn])) {
				m.Datagrams <- d
			}
		}
	}()
	t.Cleanup(func() { m.store("FDSTOREREMOVE=1", nil) })
	return m
}

// descriptors returns the descriptors that came with a datagram.
func descriptors(oob []byte) (fds []int) {
	all, _ := unix.ParseSocketControlMessage(oob)
	for i := range all {
		if rights, err := unix.ParseUnixRights(&all[i]); err == nil {
			fds = append(fds, rights...)
		}
	}
	return fds
}

// store does what a datagram says about the file descriptor store. As systemd it does not add a
// descriptor that is there already. It returns false if the datagram is about something else.
func (m *Manager) store(datagram string, fds []int) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	_, name, named := strings.Cut(datagram, "FDNAME=")
	name, _, _ = strings.Cut(name, "\n")
	switch {
	case strings.HasPrefix(datagram, "FDSTORE=1\n"):
		for _, fd := range fds {
			if slices.ContainsFunc(m.kept, func(k kept) bool { return sameFile(k.fd, fd) }) {
				unix.Close(fd)
				continue
			}
			unix.CloseOnExec(fd)
			m.kept = append(m.kept, kept{name, fd})
		}
		return true
	case strings.HasPrefix(datagram, "FDSTOREREMOVE=1"):
		m.kept = slices.DeleteFunc(m.kept, func(k kept) bool {
			gone := !named || k.name == name
			if gone {
				unix.Close(k.fd)
			}
			return gone
		})
		return true
	}
	return false
}

func sameFile(a, b int) bool {
	var x, y unix.Stat_t
	return unix.Fstat(a, &x) == nil && unix.Fstat(b, &y) == nil && x.Dev == y.Dev && x.Ino == y.Ino
}

// Kept returns the names of the descriptors in the store.
func (m *Manager) Kept() (names []string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, k := range m.kept {
		names = append(names, k.name)
	}
	return names
}

// Start starts a program of the file path, which finds the descriptors of the store among the
// sockets of its service manager.
func (m *Manager) Start(path, programName string, env ...string) *Proc {
	m.t.Helper()
	m.mu.Lock()
	var names []string
	cmd := exec.Command("/bin/sh", "-c", `LISTEN_PID=$$ exec "$0"`, path)
	for _, k := range m.kept {
		fd, err := unix.FcntlInt(uintptr(k.fd), unix.F_DUPFD_CLOEXEC, 0)
		require.NoError(m.t, err)
		f := os.NewFile(uintptr(fd), k.name)
		defer f.Close()
		cmd.ExtraFiles, names = append(cmd.ExtraFiles, f), append(names, k.name)
	}
	m.mu.Unlock()
	if len(names) > 0 {
		env = append(env, "LISTEN_FDS="+strconv.Itoa(len(names)), "LISTEN_FDNAMES="+strings.Join(names, ":"))
	}
	return StartCmd(m.t, cmd, programName, append(env, m.Env)...)
}

// Next returns the next datagram that is not WATCHDOG=1.
func (m *Manager) Next() string {
	m.t.Helper()
	for {
		if d := Await(m.t, m.Datagrams, "datagram"); d != "WATCHDOG=1" {
			return d
		}
	}
}

// InRun waits until the program is in Run and its workers are up. Before that, workers may
// serve already, but the master does not act on signals yet.
func (m *Manager) InRun() {
	m.t.Helper()
	for !strings.HasPrefix(m.Next(), "READY=1\n") {
	}
}
