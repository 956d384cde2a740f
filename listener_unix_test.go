//go:build unix

package cluster_test

import (
	"errors"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/go-cluster/cluster"
	"github.com/go-cluster/cluster/internal/clustertest"
	"github.com/stretchr/testify/require"
)

// The master takes no connection off the kernel's queue while no worker is free,
// and holds no descriptor of one that a worker has.
func TestRoundRobinHoldsLittle(t *testing.T) {
	w := clustertest.SocketWorkers(t, 1, cluster.Options{Scheduling: cluster.RoundRobin})[0]
	held := hold(t, w, "tcp", "127.0.0.1:0")
	before := len(sockets(t, os.Getpid()))
	answers := dialMany(t, 30, "tcp", held.Addr)
	const ends = 30 // the test's own
	require.LessOrEqual(t, len(sockets(t, os.Getpid())), before+ends+2)
	clustertest.Request(t, w, clustertest.SocketOrder{Cmd: "accept", N: held.N}, nil)
	for range 30 {
		require.Equal(t, w.ID(), clustertest.Await(t, answers, "answer"))
	}
	clustertest.Eventually(t, func() bool { return len(sockets(t, os.Getpid())) <= before+ends }, "the master lets go of the connections")
}

// sockets are the descriptors of a process. On Linux, those that are sockets.
func sockets(t *testing.T, pid int) (all []string) {
	t.Helper()
	dir := "/dev/fd"
	names, err := os.ReadDir(dir)
	require.NoError(t, err)
	for _, n := range names {
		what, err := os.Readlink(filepath.Join(dir, n.Name()))
		if errors.Is(err, fs.ErrNotExist) {
			continue // closed meanwhile
		}
		if err != nil || strings.HasPrefix(what, "socket:") {
			all = append(all, n.Name())
		}
	}
	return all
}

func umask(t *testing.T, mask int) {
	t.Helper()
	old := syscall.Umask(mask)
	t.Cleanup(func() { syscall.Umask(old) })
}

func fileMode(t *testing.T, path string) fs.FileMode {
	t.Helper()
	info, err := os.Lstat(path)
	require.NoError(t, err)
	return info.Mode().Perm()
}

// The file of a unix socket has the mode that was asked for, whatever the umask;
// without one, what the umask leaves.
func TestUnixMode(t *testing.T) {
	umask(t, 0o022)
	w := clustertest.SocketWorkers(t, 1, cluster.Options{})[0]
	dir := t.TempDir()
	for _, network := range []string{"unix", "unixgram"} {
		for _, exclusive := range []bool{false, true} {
			for mode, want := range map[fs.FileMode]fs.FileMode{0: 0o755, 0o600: 0o600, 0o666: 0o666, 0o777: 0o777} {
				path := filepath.Join(dir, network+mode.String())
				r := clustertest.MustListen(t, w, network, path, cluster.ListenConfig{Mode: mode, Exclusive: exclusive})
				require.Equal(t, want, fileMode(t, path), "%s, mode %v, exclusive %v", network, mode, exclusive)
				clustertest.CloseSocket(t, w, r)
				os.Remove(path)
			}
			require.NoError(t, cluster.Disconnect(t.Context()))
			w = clustertest.Fork(t)
		}
	}
	plain, err := cluster.ListenConfig{Mode: 0o666}.Listen(t.Context(), "unix", filepath.Join(dir, "held"))
	require.NoError(t, err)
	defer plain.Close()
	require.Equal(t, fs.FileMode(0o666), fileMode(t, filepath.Join(dir, "held")))
}

// The file of a unix socket has the owner that was asked for, which takes privilege.
func TestUnixOwner(t *testing.T) {
	w := clustertest.SocketWorkers(t, 1, cluster.Options{})[0]
	for _, exclusive := range []bool{false, true} {
		path := filepath.Join(t.TempDir(), "s")
		lc := cluster.ListenConfig{Mode: 0o660, Owner: &cluster.Owner{UID: 65534, GID: -1}, Exclusive: exclusive}
		if os.Getuid() != 0 {
			r := clustertest.TryListen(t, w, "unix", path, lc)
			require.Contains(t, r.Err, "not permitted")
			require.NoFileExists(t, path)
			continue
		}
		clustertest.MustListen(t, w, "unix", path, lc)
		info, err := os.Lstat(path)
		require.NoError(t, err)
		require.Equal(t, uint32(65534), info.Sys().(*syscall.Stat_t).Uid)
		require.Equal(t, uint32(os.Getgid()), info.Sys().(*syscall.Stat_t).Gid)
		require.Equal(t, fs.FileMode(0o660), info.Mode().Perm())
	}
}

// A path that is too long for the kernel is opened relative to the master's
// working directory, where that helps; where not, the error says so.
func TestUnixLongPath(t *testing.T) {
	dir := filepath.Join(t.TempDir(), strings.Repeat("d", 60), strings.Repeat("e", 60))
	require.NoError(t, os.MkdirAll(dir, 0o755))
	t.Chdir(dir)
	workers := clustertest.SocketWorkers(t, 2, cluster.Options{Dir: "/"})
	path := filepath.Join(dir, "s")
	require.Greater(t, len(path), 108)
	first := clustertest.MustListen(t, workers[0], "unix", path, cluster.ListenConfig{Mode: 0o600})
	require.Equal(t, path, first.Addr)
	require.Equal(t, workers[0].ID(), answeredBy(t, "unix", "s"))
	second := clustertest.MustListen(t, workers[1], "unix", path, cluster.ListenConfig{Mode: 0o600}) // the socket is open already
	require.Equal(t, path, second.Addr)
	clustertest.CloseSocket(t, workers[0], first)
	require.Equal(t, workers[1].ID(), answeredBy(t, "unix", "s"))
	require.Equal(t, fs.FileMode(0o600), fileMode(t, path))
	long := clustertest.TryListen(t, workers[0], "unix", filepath.Join(dir, strings.Repeat("f", 120)), cluster.ListenConfig{})
	require.Contains(t, long.Err, "invalid argument")

	require.NoError(t, cluster.Disconnect(t.Context()))
	require.NoFileExists(t, path)
}

// A relative path is the worker's, and Addr says what was asked for.
func TestUnixRelativePath(t *testing.T) {
	dir := t.TempDir()
	w := clustertest.SocketWorkers(t, 1, cluster.Options{Dir: dir})[0]
	reported := make(chan net.Addr, 1)
	t.Cleanup(w.OnListening(func(_ *cluster.Process, addr net.Addr) { reported <- addr }))
	r := clustertest.MustListen(t, w, "unix", "sub/../s", cluster.ListenConfig{})
	require.Equal(t, "sub/../s", r.Addr)
	require.Equal(t, "sub/../s", clustertest.Await(t, reported, "listening event").String())
	require.Equal(t, w.ID(), answeredBy(t, "unix", filepath.Join(dir, "s")))
	again := clustertest.TryListen(t, w, "unix", filepath.Join(dir, "s"), cluster.ListenConfig{})
	require.True(t, again.InUse, "another spelling of the same path")
}

// The file that a dead process left behind is replaced.
func TestUnixStaleFile(t *testing.T) {
	dir := t.TempDir()
	stream, datagram := filepath.Join(dir, "stream"), filepath.Join(dir, "datagram")
	ln, err := net.ListenUnix("unix", &net.UnixAddr{Name: stream, Net: "unix"})
	require.NoError(t, err)
	ln.SetUnlinkOnClose(false)
	ln.Close()
	pc, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: datagram, Net: "unixgram"})
	require.NoError(t, err)
	pc.Close()
	require.FileExists(t, stream)
	require.FileExists(t, datagram)

	w := clustertest.SocketWorkers(t, 1, cluster.Options{})[0]
	clustertest.MustListen(t, w, "unix", stream, cluster.ListenConfig{})
	require.Equal(t, w.ID(), answeredBy(t, "unix", stream))
	clustertest.MustListen(t, w, "unixgram", datagram, cluster.ListenConfig{})
	require.Equal(t, w.ID(), answeredBy(t, "unixgram", datagram))

	// A whole cluster that was killed leaves one as well.
	dead := filepath.Join(dir, "dead")
	other := clustertest.Start(t, listenAt, listenAtEnv+"="+dead)
	other.Expect("listening")
	require.NoError(t, syscall.Kill(-other.Cmd.Process.Pid, syscall.SIGKILL))
	other.Exit()
	other.GroupEmpty()
	require.FileExists(t, dead)
	clustertest.MustListen(t, w, "unix", dead, cluster.ListenConfig{})
	require.Equal(t, w.ID(), answeredBy(t, "unix", dead))
}

// A path that a live process serves is refused with EADDRINUSE, and so is one
// where something else lies; both stay as they are.
func TestUnixLiveFile(t *testing.T) {
	dir := t.TempDir()
	w := clustertest.SocketWorkers(t, 1, cluster.Options{})[0]
	live := filepath.Join(dir, "live")
	ln, err := net.Listen("unix", live)
	require.NoError(t, err)
	defer ln.Close()
	file := filepath.Join(dir, "file")
	require.NoError(t, os.WriteFile(file, []byte("precious"), 0o644))
	link := filepath.Join(dir, "link")
	require.NoError(t, os.Symlink(filepath.Join(dir, "nowhere"), link))
	others := filepath.Join(dir, "others")
	other := clustertest.Start(t, listenAt, listenAtEnv+"="+others)
	other.Expect("listening")
	datagram := filepath.Join(dir, "datagram")
	pc, err := net.ListenPacket("unixgram", datagram)
	require.NoError(t, err)
	defer pc.Close()

	for _, path := range []string{live, file, link, others, datagram} {
		for _, network := range []string{"unix", "unixgram"} {
			for _, exclusive := range []bool{false, true} {
				r := clustertest.TryListen(t, w, network, path, cluster.ListenConfig{Exclusive: exclusive})
				require.True(t, r.InUse, "%s %s: %s", network, path, r.Err)
				require.Contains(t, r.Err, path)
			}
		}
	}
	content, err := os.ReadFile(file)
	require.NoError(t, err)
	require.Equal(t, "precious", string(content))
	clustertest.GreetingFrom(t, "unix", others)
	c, err := net.Dial("unix", live)
	require.NoError(t, err)
	c.Close()
}

// The file goes once, at the end of the cluster, and only if it is still the
// cluster's own: neither a worker's Close nor its death removes it.
func TestUnixUnlink(t *testing.T) {
	dir := t.TempDir()
	workers := clustertest.SocketWorkers(t, 2, cluster.Options{})
	own, replaced, datagram := filepath.Join(dir, "own"), filepath.Join(dir, "replaced"), filepath.Join(dir, "datagram")
	for _, w := range workers {
		r := clustertest.MustListen(t, w, "unix", own, cluster.ListenConfig{})
		clustertest.CloseSocket(t, w, r)
		clustertest.MustListen(t, w, "unix", own, cluster.ListenConfig{})
		clustertest.MustListen(t, w, "unix", replaced, cluster.ListenConfig{})
		clustertest.MustListen(t, w, "unixgram", datagram, cluster.ListenConfig{})
	}
	clustertest.KillAndWait(t, workers[0])
	require.NoError(t, workers[1].Disconnect(t.Context()))
	require.FileExists(t, own)
	require.FileExists(t, datagram)
	w := clustertest.Fork(t)
	clustertest.MustListen(t, w, "unix", own, cluster.ListenConfig{})
	require.Equal(t, w.ID(), answeredBy(t, "unix", own))

	require.NoError(t, os.Remove(replaced))
	ln, err := net.Listen("unix", replaced)
	require.NoError(t, err)
	defer ln.Close()
	require.NoError(t, cluster.Disconnect(t.Context()))
	require.NoFileExists(t, own)
	require.NoFileExists(t, datagram)
	require.FileExists(t, replaced)
}

// A unix socket that the program listened on before it forked is its workers'
// too, and its file stays for them when the program closes its own listener.
func TestUnixBeforeFork(t *testing.T) {
	clustertest.CheckLeaks(t)
	path := filepath.Join(t.TempDir(), "s")
	ln, err := cluster.Listen("unix", path)
	require.NoError(t, err)
	w := clustertest.SocketWorkers(t, 1, cluster.Options{})[0]
	clustertest.MustListen(t, w, "unix", path, cluster.ListenConfig{})
	require.NoError(t, ln.Close())
	require.Equal(t, w.ID(), answeredBy(t, "unix", path))
	require.NoError(t, cluster.Disconnect(t.Context()))
	require.NoFileExists(t, path)

	// While the program keeps its listener the file is the program's.
	ln, err = cluster.Listen("unix", path)
	require.NoError(t, err)
	w = clustertest.Fork(t)
	clustertest.MustListen(t, w, "unix", path, cluster.ListenConfig{})
	require.NoError(t, cluster.Disconnect(t.Context()))
	require.FileExists(t, path)
	require.NoError(t, ln.Close())
	require.NoFileExists(t, path)
}

// A worker's own (Exclusive) unix socket leaves no file when the worker drains.
func TestUnixExclusiveUnlink(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	w := clustertest.SocketWorkers(t, 1, cluster.Options{})[0]
	clustertest.MustListen(t, w, "unix", path, cluster.ListenConfig{Exclusive: true})
	require.Equal(t, w.ID(), answeredBy(t, "unix", path))
	require.NoError(t, w.Disconnect(t.Context()))
	require.NoFileExists(t, path)
}

// TestReloadEndsWhatPlainForksHad: no reload replaces plain Forks. What only they
// listened on ends when they are gone: at the end of the next reload, or after it when
// the program's own replacement is ready.
func TestReloadEndsWhatPlainForksHad(t *testing.T) {
	const readyFor = 10 * time.Millisecond
	clustertest.WithMaster(t, clustertest.SocketWorker, cluster.Options{Workers: 1, ReadyFor: readyFor})
	dir := t.TempDir()
	listens := func(w *cluster.Process, name string) (path string) {
		ready := make(chan bool, 1)
		defer w.OnReady(func(*cluster.Process) { ready <- true })()
		path = filepath.Join(dir, name)
		clustertest.MustListen(t, w, "unix", path, cluster.ListenConfig{})
		if w.State() != cluster.Ready {
			clustertest.Await(t, ready, "ready")
		}
		return path
	}
	reload := func() { require.NoError(t, cluster.Reload(clustertest.Within(t, clustertest.Patience))) }
	gone := func(path string) {
		clustertest.Eventually(t, func() bool { _, err := os.Stat(path); return errors.Is(err, fs.ErrNotExist) }, "the end of "+path)
	}
	online := make(chan *cluster.Process, 10)
	t.Cleanup(cluster.OnOnline(func(w *cluster.Process) { online <- w }))
	require.NoError(t, cluster.AutoFork())
	slot := listens(clustertest.Await(t, online, "online"), "slot")

	dead := clustertest.Fork(t)
	path := listens(dead, "dead")
	require.NoError(t, dead.OSProcess().Kill())
	clustertest.Eventually(t, dead.IsDead, "death")
	require.NoError(t, cluster.Scale(0))
	require.FileExists(t, path)
	reload()
	gone(path)
	require.FileExists(t, slot, "the slot's next worker is to come")

	old := clustertest.Fork(t)
	path = listens(old, "old")
	require.NoError(t, cluster.Scale(1))
	reload()
	require.NoError(t, old.OSProcess().Kill())
	clustertest.Eventually(t, old.IsDead, "death")
	require.FileExists(t, path, "its successor is to come")
	next := clustertest.Fork(t)
	last := listens(next, "next")
	gone(path)

	reload()
	listens(clustertest.Fork(t), "another")
	require.FileExists(t, last)
	require.NoError(t, next.Disconnect(clustertest.Within(t, clustertest.Patience)))
	gone(last)
}
