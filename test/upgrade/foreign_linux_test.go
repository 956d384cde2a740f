package upgrade_test

import (
	"context"
	"syscall"
	"testing"

	"github.com/go-cluster/cluster"
	"github.com/go-cluster/cluster/internal/clustertest"
	"github.com/stretchr/testify/require"
)

// foreigners is a master of a worker that is no Go program.
var foreigners = clustertest.Program("upgrade foreigners", func() {
	printEvents()
	poke()
	o := options()
	o.Foreign, o.Exec, o.Args, o.Workers = true, "/bin/sleep", []string{"1000"}, 1
	clustertest.Must(cluster.SetupMaster(o))
	clustertest.Must(cluster.Run(context.Background()))
})

// TestForeign: an upgrade that would end the workers is refused, and they run on.
func TestForeign(t *testing.T) {
	s := newSite(t)
	s.deploy("one")
	p := s.start(foreigners)
	pid := pidOf(t, p.Expect("fork 0 "))
	p.Expect("ready 0 ")
	require.Contains(t, upgrade(p, clustertest.SigPoke), "is a Foreign program: the system would end it")
	require.NoError(t, syscall.Kill(pid, 0))
	p.Signal(syscall.SIGHUP)
	require.Equal(t, "1 <nil>", p.Expect("reload "))
	p.Terminate()
}
