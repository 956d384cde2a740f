//go:build unix

package hostile_test

import (
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/go-cluster/cluster"
	"github.com/go-cluster/cluster/internal/clustertest"
)

// takesOver listens in the master at once, before it forks or after that, while somebody
// else has the address for a moment.
var takesOver = clustertest.Program("takes-over", func() {
	clustertest.Must(cluster.SetupMaster(cluster.Options{Workers: 1}))
	if cluster.IsMaster() {
		old, err := net.Listen(os.Getenv("NETWORK"), os.Getenv("ADDRESS"))
		clustertest.Must(err)
		time.AfterFunc(100*time.Millisecond, func() { old.Close() })
	}
	if os.Getenv("ORDER") == "after" {
		clustertest.Must(cluster.AutoFork())
	}
	ln, err := cluster.Listen(os.Getenv("NETWORK"), os.Getenv("ADDRESS"))
	clustertest.Must(err)
	clustertest.Must(cluster.AutoFork())
	if cluster.IsWorker() {
		fmt.Println("worker")
		clustertest.AnswerConns(ln)
		return
	}
	clustertest.Must(cluster.Run(context.Background()))
})

// TestTakeover: a master was killed, and its workers still have its addresses. The next master
// waits for an address, and gets it as soon as the workers have noticed the death.
func TestTakeover(t *testing.T) {
	t.Parallel()
	for _, order := range []string{"before", "after"} {
		for network, address := range map[string]string{
			"tcp":  clustertest.UnusedAddress(t, "tcp", ""),
			"unix": filepath.Join(t.TempDir(), "s"),
		} {
			t.Run(network+" "+order, func(t *testing.T) {
				t.Parallel()
				p := clustertest.Start(t, takesOver, "NETWORK="+network, "ADDRESS="+address, "ORDER="+order)
				p.Expect("worker")
			})
		}
	}
}
