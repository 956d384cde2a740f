package node_test

// Tests with node that look at what only Linux shows.

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"testing"

	"github.com/go-cluster/cluster"
	"github.com/go-cluster/cluster/internal/clustertest"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// TestNodeBacklog: the backlog that the worker asks for is the socket's.
func TestNodeBacklog(t *testing.T) {
	schedulings(t, func(t *testing.T, s cluster.Scheduling) {
		c := clustertest.NewNodeCluster(t, cluster.Options{Scheduling: s})
		w := c.Fork()
		port := 0
		c.Run(w, `return (await listen(web(), {port: 0, host: '127.0.0.1', backlog: 17})).port`).Decode(t, &port)
		require.Equal(t, 17, processBacklog(t, os.Getpid(), port))
	})
}

// TestNodePrimaryBacklog: the backlog that a Go worker asks for is the socket's,
// whether node listens or the worker does.
func TestNodePrimaryBacklog(t *testing.T) {
	policies(t, func(t *testing.T, n *clustertest.NodePrimary) {
		w := n.Fork()
		r := n.Do(w, clustertest.GuestOrder{Do: "listen", Network: "tcp", Address: "127.0.0.1:0", Config: cluster.ListenConfig{Backlog: 17}})
		require.Empty(t, r.Err)
		_, port, err := net.SplitHostPort(r.Addr)
		require.NoError(t, err)
		require.Equal(t, 17, processBacklog(t, n.P.Cmd.Process.Pid, clustertest.Atoi(port)))
	})
}

// processBacklog returns the backlog of the socket that pid has and that listens
// on port.
func processBacklog(t testing.TB, pid, port int) int {
	t.Helper()
	pidfd, err := unix.PidfdOpen(pid, 0)
	require.NoError(t, err)
	defer unix.Close(pidfd)
	list, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", pid))
	require.NoError(t, err)
	for _, e := range list {
		fd, err := unix.PidfdGetfd(pidfd, clustertest.Atoi(e.Name()), 0)
		if err != nil {
			continue // closed meanwhile
		}
		backlog, found := listenBacklog(fd, port)
		unix.Close(fd)
		if found {
			return backlog
		}
	}
	t.Fatalf("process %d does not listen on port %d", pid, port)
	return 0
}

func listenBacklog(fd, port int) (backlog int, found bool) {
	listening, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_ACCEPTCONN)
	if err != nil || listening == 0 {
		return 0, false
	}
	sa, err := unix.Getsockname(fd)
	in4, ok := sa.(*unix.SockaddrInet4)
	if err != nil || !ok || in4.Port != port {
		return 0, false
	}
	return clustertest.SocketBacklog(uintptr(fd)), true
}

// TestNodeAbstract: an abstract unix socket has the name to which node's clients of that version
// connect. It is shown as it was asked for.
func TestNodeAbstract(t *testing.T) {
	schedulings(t, func(t *testing.T, s cluster.Scheduling) {
		c := clustertest.NewNodeCluster(t, cluster.Options{Scheduling: s})
		name := fmt.Sprintf("cluster-test-%d-%v", os.Getpid(), s)
		for _, w := range c.ForkN(2) {
			require.Equal(t, "\x00"+name, c.Run(w, `
				state.server = net.createServer((socket) => socket.end(String(cluster.worker.id)));
				return await listen(state.server, '\0' + args[0])`, name).String())
			c.Find(t, fmt.Sprintf("listening %d unix @%s", w.ID(), name))
		}
		for _, w := range cluster.Workers() {
			const ask = `
				const socket = await connect('\0' + args[0]);
				let text = '';
				for await (const chunk of socket) text += chunk;
				return text`
			require.Regexp(t, `^\d+$`, c.Run(w, ask, name).String())
		}
	})
}

// TestNodePrimaryAbstract: under a node primary a Go worker shares one with node's
// own, and makes no file of it. To node 18 all such names are one.
func TestNodePrimaryAbstract(t *testing.T) {
	policiesInTurn(t, func(t *testing.T, n *clustertest.NodePrimary) {
		w := n.Fork()
		name := fmt.Sprintf("cluster-test-%d-%v", os.Getpid(), n.P.Cmd.Process.Pid)
		require.Equal(t, "@"+name, n.Listen(w, "unix", "@"+name))
		require.Equal(t, fmt.Sprintf("go %d", w), n.Run(`
			return await new Promise((resolve, reject) => http.get({socketPath: '\0' + args[0], path: '/', agent: false}, (response) => {
				let text = '';
				response.on('data', (chunk) => text += chunk).on('end', () => resolve(text));
			}).on('error', reject))`, name).String())
		_, err := os.Lstat("@" + name)
		require.ErrorIs(t, err, os.ErrNotExist)
	})
}

// TestNodePrivilegedPort: EACCES of the kernel reaches node's 'error' event.
func TestNodePrivilegedPort(t *testing.T) {
	for _, s := range []cluster.Scheduling{cluster.Shared, cluster.RoundRobin} {
		t.Run(s.String(), func(t *testing.T) {
			env := []string{"NODE_BINARY=" + clustertest.NodeBinary(t), "SCRIPT=" + clustertest.NodeScript(t, "worker.js"),
				"SCHEDULING=" + strconv.Itoa(int(s)), `CODE=await listen(web(), ` + privilegedPort(t) + `)`}
			var p *clustertest.Proc
			withoutPrivilegedPorts(func() { p = clustertest.Start(t, nodeHolder, env...) })
			require.Contains(t, p.Expect("message"), `"code":"EACCES"`)
		})
	}
}

// TestNodePrimaryPrivilegedPort: and a Go worker's Listen under a node primary.
func TestNodePrimaryPrivilegedPort(t *testing.T) {
	for _, policy := range []string{"none", "rr"} {
		t.Run(policy, func(t *testing.T) {
			cmd := exec.Command(clustertest.NodeBinary(t), clustertest.NodeScript(t, "primary.js"))
			var n *clustertest.NodePrimary
			withoutPrivilegedPorts(func() { n = clustertest.StartPrimary(t, cmd, "NODE_CLUSTER_SCHED_POLICY="+policy) })
			r := n.Do(n.Fork(), clustertest.GuestOrder{Do: "listen", Network: "tcp", Address: ":" + privilegedPort(t)})
			require.True(t, r.Denied, r.Err)
			require.Contains(t, r.Err, "permission denied (the primary opens it)")
			n.End()
		})
	}
}

// withoutPrivilegedPorts calls start on a thread whose children may not bind
// the ports of root, even as root.
func withoutPrivilegedPorts(start func()) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread() // for good: the thread ends with the goroutine
		// This fails for a user that does not have the privilege anyway.
		unix.Prctl(unix.PR_CAPBSET_DROP, unix.CAP_NET_BIND_SERVICE, 0, 0, 0)
		start()
	}()
	<-done
}

// privilegedPort returns a port that takes the privilege.
func privilegedPort(t testing.TB) string {
	t.Helper()
	b, err := os.ReadFile("/proc/sys/net/ipv4/ip_unprivileged_port_start")
	require.NoError(t, err)
	first, err := strconv.Atoi(strings.TrimSpace(string(b)))
	require.NoError(t, err)
	require.Greater(t, first, 1, "any port may be bound by anyone here")
	return strconv.Itoa(first - 1)
}
