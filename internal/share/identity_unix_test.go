//go:build unix

package share

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/go-cluster/cluster/internal/handle"
	"github.com/go-cluster/cluster/internal/roomtest"
	"github.com/go-cluster/cluster/internal/socket"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// linked is a directory, and a symbolic link to it.
func linked(t *testing.T) (dir, link string) {
	top := t.TempDir()
	dir, link = filepath.Join(top, "run"), filepath.Join(top, "var-run")
	require.NoError(t, os.Mkdir(dir, 0o755))
	require.NoError(t, os.Symlink("run", link))
	return dir, link
}

// given lets a service manager have given the sockets of these listeners.
func given[L io.Closer](t *testing.T, r *Registry, listeners ...L) {
	var all []Passed
	for _, ln := range listeners {
		h, err := socket.Duplicate(any(ln).(syscall.Conn))
		require.NoError(t, err)
		t.Cleanup(func() { ln.Close(); h.Release() })
		all = append(all, Passed{FD: h.FD()})
	}
	r.activated.load = func() []Passed { return all }
}

// Two paths to one directory are one address, for two workers and for one.
func TestTwoSpellings(t *testing.T) {
	dir, link := linked(t)
	r := newTestRegistry(t)
	first, last := newCommandWorker(), newCommandWorker()
	key := listening(t, r, first, filepath.Join(dir, "s"))
	require.Equal(t, key, listening(t, r, last, filepath.Join(link, "s")))
	require.Len(t, r.Listening(), 1)
	require.NoError(t, r.Answer(last, reread(t, resolved(t, "unix", filepath.Join(dir, "s")).message()), Terms{}))
	require.Contains(t, roomtest.Await(t, last.answers, "answer"), fmt.Sprintf(`"errno":%d`, -int(syscall.EADDRINUSE)))
	r.CloseAll()
	left, err := os.ReadDir(dir)
	require.NoError(t, err)
	require.Empty(t, left)
}

// A service manager's socket is recognised through a link; a socket that the program
// opened before it forked is as well.
func TestOpenedThroughLink(t *testing.T) {
	dir, link := linked(t)
	r := newTestRegistry(t)
	ln, err := net.Listen("unix", filepath.Join(dir, "s"))
	require.NoError(t, err)
	given(t, r, ln)
	listening(t, r, newCommandWorker(), filepath.Join(link, "s"))
	require.Empty(t, r.Unused())

	own := resolved(t, "unix", filepath.Join(dir, "own")).Address
	ln, err = socket.Listen(t.Context(), own, net.KeepAliveConfig{})
	require.NoError(t, err)
	defer ln.Close()
	r.Preopened(own, ln.Addr(), ln)
	listening(t, r, newCommandWorker(), filepath.Join(link, "own"))
}

// Of a port of both families a service manager gives one socket each. The address has
// both, and they are accepted from in the master.
func TestBothFamilies(t *testing.T) {
	r := newTestRegistry(t)
	var addr string
	var four, six net.Listener
	only6 := net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) error {
		return c.Control(func(fd uintptr) { unix.SetsockoptInt(int(fd), unix.IPPROTO_IPV6, unix.IPV6_V6ONLY, 1) })
	}}
	for six == nil { // the port may be somebody's in the other family
		var err error
		four, err = net.Listen("tcp4", ":0")
		require.NoError(t, err)
		addr = fmt.Sprintf(":%d", four.Addr().(*net.TCPAddr).Port)
		six, err = only6.Listen(context.Background(), "tcp6", addr)
		switch {
		case err == nil:
		case err.(*net.OpError).Err.(*os.SyscallError).Err == syscall.EADDRINUSE:
			four.Close()
		default:
			four.Close()
			t.Skip("no IPv6 here: ", err)
		}
	}
	given(t, r, four, six)
	m := newCommandWorker()
	m.take.Store(true)
	m.taken = make(chan *handle.Handle, 2)
	close(m.may)
	require.NoError(t, r.Answer(m, question(t, addr, Shared), Terms{}))
	require.Contains(t, roomtest.Await(t, m.answers, "answer"), `"sockname"`)
	require.Empty(t, r.Unused())
	for _, host := range []string{"127.0.0.1", "[::1]"} {
		c, err := net.Dial("tcp", host+addr)
		require.NoError(t, err)
		roomtest.Await(t, m.taken, "connection to "+host).Release()
		c.Close()
	}
	requireNotWhole(t, r, resolved(t, "tcp", addr))
}

// requireNotWhole checks that a Foreign program is not given one of the two sockets of an
// address, as if that were all of it.
func requireNotWhole(t *testing.T, r *Registry, q Query) {
	q.Policy = Shared
	_, err := HoldSocket(t.Context(), r, q)
	require.ErrorIs(t, err, errors.ErrUnsupported)
	require.ErrorContains(t, err, "many sockets")
	require.ErrorContains(t, err, "listen on one family")
}

// Of two datagram sockets for one port a worker that reads from both families gets both, the
// second later. Where that cannot be, the other one is named as unused. One listen for each
// family gets both anyway.
func TestBothFamiliesOfDatagrams(t *testing.T) {
	var four, six net.PacketConn
	for six == nil {
		var err error
		four, err = net.ListenPacket("udp4", ":0")
		require.NoError(t, err)
		six, err = net.ListenPacket("udp6", fmt.Sprintf(":%d", four.LocalAddr().(*net.UDPAddr).Port))
		if err != nil {
			four.Close()
			if !errors.Is(err, syscall.EADDRINUSE) { // else the port is somebody's in the other family
				t.Skip("no IPv6 here: ", err)
			}
		}
	}
	port := fmt.Sprintf(":%d", four.LocalAddr().(*net.UDPAddr).Port)
	for _, networks := range [][]string{{"udp"}, {"udp4", "udp6"}, {"udp6", "udp4"}} {
		r, m := newTestRegistry(t), newCommandWorker()
		given(t, r, four, six)
		if networks[0] == "udp" && socket.Groups {
			requireNotWhole(t, r, resolved(t, "udp", port))
		}
		for _, network := range networks {
			require.NoError(t, r.Answer(m, reread(t, resolved(t, network, port).message()), Terms{}))
			answer := roomtest.Await(t, m.answers, "answer")
			require.Contains(t, answer, `"errno":0`)
			require.Equal(t, network == "udp" && socket.Groups, strings.Contains(answer, `"sharded":true`))
			h := roomtest.Await(t, m.sockets, "socket")
			_, addr, err := socket.Inspect(h.FD())
			require.NoError(t, err)
			require.Equal(t, network == "udp6", addr.(*net.UDPAddr).IP.To4() == nil, network)
			h.Release()
		}
		if len(networks) == 2 || socket.Groups {
			require.Empty(t, r.Unused())
			continue
		}
		require.Len(t, r.Unused(), 1)
		require.Equal(t, six.LocalAddr().String(), r.Unused()[0].Addr.String())
	}
}

// An address that is in use names the service manager's sockets that nobody has
// recognised, to the worker and to the master itself.
func TestUnrecognised(t *testing.T) {
	r := newTestRegistry(t)
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	given(t, r, ln)
	wild := fmt.Sprintf(":%d", ln.Addr().(*net.TCPAddr).Port)
	m := newCommandWorker()
	require.NoError(t, r.Answer(m, question(t, wild, Shared), Terms{}))
	answer := roomtest.Await(t, m.answers, "answer")
	require.Contains(t, answer, "the service manager gave descriptor")
	require.Contains(t, answer, ln.Addr().String())
	_, err = r.HoldListener(t.Context(), resolved(t, "tcp", wild))
	require.ErrorIs(t, err, syscall.EADDRINUSE)
	require.ErrorContains(t, err, ln.Addr().String())
}

// Where workers are another user their links are not followed.
func TestGuardedAnswer(t *testing.T) {
	dir, link := linked(t)
	require.NoError(t, os.Chmod(filepath.Dir(link), 0o777))
	r := newTestRegistry(t)
	m := newCommandWorker()
	listening(t, r, newCommandWorker(), filepath.Join(dir, "s"))
	for _, name := range []string{"s", "new"} {
		w := reread(t, resolved(t, "unix", filepath.Join(link, name)).message())
		require.ErrorIs(t, r.Answer(m, w, Terms{Guarded: true}), syscall.EACCES)
		require.Contains(t, roomtest.Await(t, m.answers, "answer"), "symbolic link")
	}
	require.NoFileExists(t, filepath.Join(dir, "new"))
}

// A file that somebody has removed is made anew for the workers of the next program,
// and what the master held it holds again.
func TestRenewed(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	r := newTestRegistry(t)
	held, err := r.HoldListener(t.Context(), resolved(t, "unix", path))
	require.NoError(t, err)
	old, respawned, heir := newCommandWorker(), newCommandWorker(), newCommandWorker()
	listening(t, r, old, path)
	require.NoError(t, os.Remove(path))
	listening(t, r, respawned, path)
	require.NoFileExists(t, path, "only a reload makes it anew")
	heir.generation = 1
	key := listening(t, r, heir, path)
	c, err := net.Dial("unix", path)
	require.NoError(t, err)
	c.Close()

	r.Close(old, key, true)
	r.Forget(heir)
	r.Outdate(1, true)
	require.FileExists(t, path, "held")
	require.NoError(t, held.Close())
	require.NoFileExists(t, path)
	require.Empty(t, r.Listening())
}
