package upgrade_test

import (
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/go-cluster/cluster/internal/clustertest"
	"github.com/stretchr/testify/require"
)

// pidOf is the number that a line begins with.
func pidOf(t *testing.T, line string) int {
	t.Helper()
	pid, err := strconv.Atoi(strings.Fields(line)[0])
	require.NoError(t, err)
	return pid
}

// TestSharded: an upgrade keeps the sockets that change hands, with a worker that is stopped
// as well, and the new master gives them and takes them as the old one did: nobody is
// refused, over the upgrade and a reload after it, when a worker dies, and when there are more.
func TestSharded(t *testing.T) {
	for _, scheduling := range []string{"Sharded", "ByClient"} {
		t.Run(scheduling, func(t *testing.T) {
			s := newSite(t)
			p, address := s.begin(server, "SCHEDULING="+strings.ToLower(scheduling))
			l := beginRequests(address)
			s.deploy("two")
			require.Equal(t, "<nil>", upgrade(p, clustertest.SigPoke))
			require.Equal(t, scheduling+" 64", printed(t, p, "listener "))
			p.Signal(syscall.SIGHUP)
			require.Equal(t, "2 <nil>", p.Expect("reload "))
			require.Equal(t, "two", serves(t, address))
			p.Signal(syscall.SIGTTIN)
			printed(t, p, "ready 2 ")
			p.Signal(syscall.SIGUSR2)
			require.Equal(t, "<nil>", p.Expect("upgraded "))
			require.Equal(t, "3 <nil>", p.Expect("reload "))
			l.end(t)

			pid := pidOf(t, printed(t, p, "ready 1 "))
			require.NoError(t, syscall.Kill(pid, syscall.SIGSTOP))
			s.deploy("three")
			require.Equal(t, "<nil>", upgrade(p, clustertest.SigPoke))
			for range 20 {
				serves(t, address) // by the others what it does not take
			}
			require.NoError(t, syscall.Kill(pid, syscall.SIGCONT))
			require.NoError(t, syscall.Kill(pid, syscall.SIGKILL))
			printed(t, p, "dead 1 ")
			printed(t, p, "ready 1 ")
			for range 20 {
				serves(t, address)
			}
			p.Terminate()
		})
	}
}
