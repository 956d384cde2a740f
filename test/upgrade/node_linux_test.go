package upgrade_test

import (
	"context"
	"fmt"
	"net"
	"os"
	"strings"
	"syscall"
	"testing"

	"github.com/go-cluster/cluster"
	"github.com/go-cluster/cluster/internal/clustertest"
	"github.com/stretchr/testify/require"
)

// nodes is a master of node workers. When it adopts a worker it sends its version to it.
var nodes = clustertest.Program("upgrade nodes", func() {
	fmt.Println("main", version)
	cluster.OnAdopt(func(w *cluster.Process) { clustertest.Must(w.Send("hello from " + version)) })
	cluster.OnMessage(func(w *cluster.Process, m cluster.Message) { fmt.Println("message", w.PID(), m) })
	cluster.OnListening(func(w *cluster.Process, a net.Addr) { fmt.Println("address", a) })
	printEvents()
	poke()
	o := options()
	o.Exec, o.Args = os.Getenv("NODE_BINARY"), []string{os.Getenv("SCRIPT")}
	clustertest.Must(cluster.SetupMaster(o))
	clustertest.Must(cluster.Run(context.Background()))
})

// TestNodeWorkers: an upgrade keeps node workers as well, with their channels and what
// they serve.
func TestNodeWorkers(t *testing.T) {
	node := clustertest.NodeBinary(t)
	for _, scheduling := range []string{"shared", "robin"} {
		t.Run(scheduling, func(t *testing.T) {
			s := newSite(t)
			p, address := s.begin(nodes, "SCHEDULING="+scheduling, "NODE_BINARY="+node, "SCRIPT="+clustertest.Path("test", "upgrade", "testdata", "worker.js"))
			l := beginLoad(address)
			s.deploy("two")
			require.Equal(t, "<nil>", upgrade(p, clustertest.SigPoke))
			pids := []string{printed(t, p, "adopted 0 "), printed(t, p, "adopted 1 ")} // before or after that: in any order
			for i := range pids {
				pids[i] = "node " + strings.Fields(pids[i])[0]
				printed(t, p, "message "+pids[i][len("node "):]+" \"hello from two\"")
			}
			l.end(t)
			require.Contains(t, pids, serves(t, address))
			require.NotContains(t, p.Output(), "dead ")

			p.Signal(syscall.SIGHUP)
			require.Equal(t, "2 <nil>", p.Expect("reload "))
			require.NotContains(t, pids, serves(t, address))
			p.Terminate()
		})
	}
}
