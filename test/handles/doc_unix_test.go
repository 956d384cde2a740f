//go:build unix

package handles_test

import (
	"net"
	"testing"

	"github.com/go-cluster/cluster/internal/clustertest"
	"github.com/stretchr/testify/require"
)

// TestDocRuns: the program in docs/handles.md does what it says.
func TestDocRuns(t *testing.T) {
	t.Parallel()
	b := clustertest.BuildBlocks(t, "docs/handles.md", clustertest.Frame{
		In:     "SendHandle",
		Before: `if err := cluster.AutoFork(); err != nil { log.Fatal(err) }`,
		After:  `if cluster.IsMaster() { if err := cluster.Run(context.Background()); err != nil { log.Fatal(err) }; return }; select {}`,
	})
	address, manager := clustertest.UnusedAddress(t, "tcp", ""), clustertest.NewManager(t)
	p := b.Start(t, "SendHandle", address, manager.Env)
	for range 2 {
		var c net.Conn
		clustertest.Eventually(t, func() (ok bool) {
			var err error
			c, err = net.Dial("tcp", address)
			return err == nil
		}, "the program listens")
		defer c.Close()
		id, _ := clustertest.Greeting(t, c)
		require.Equal(t, 2, id)
	}
	manager.InRun()
	p.Terminate()
	p.GroupEmpty()
}
