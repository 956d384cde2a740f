package quic_test

import (
	"context"
	"errors"
	"io"
	"net"
	"strings"
	"testing"

	"github.com/go-cluster/cluster"
	"github.com/go-cluster/cluster/internal/clustertest"
	"github.com/go-cluster/cluster/quic"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// scarce is a worker that has no descriptor free when it begins to take connections, until a
// request frees them.
var scarce = clustertest.Program("scarce", func() {
	ln, err := quic.Listen("127.0.0.1:0", serverTLS(), patient)
	clustertest.Must(err)
	clustertest.Must(unix.Setrlimit(unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: 128, Max: 128}))
	var taken []int
	for {
		fd, err := unix.Dup(0)
		if errors.Is(err, unix.EMFILE) {
			break
		}
		clustertest.Must(err)
		taken = append(taken, fd)
	}
	cluster.OnError(func(_ *cluster.Process, err error) {
		if !strings.Contains(err.Error(), "dgram.Native") {
			return
		}
		for range 3 { // with each receipt the master has sent it once more; then it does so no more by itself
			clustertest.Must(cluster.Worker.SendContext(context.Background(), "scarce"))
		}
	})
	cluster.OnRequest(func(*cluster.Process, cluster.Message) (any, error) {
		for _, fd := range taken {
			unix.Close(fd)
		}
		return nil, nil
	})
	for {
		conn, err := ln.Accept(context.Background())
		clustertest.Must(err)
		conn.CloseWithError(7, "")
	}
})

// TestNoDescriptors: a share that a worker could not open it gets again when it can.
func TestNoDescriptors(t *testing.T) {
	said := make(chan *cluster.Process, 100)
	t.Cleanup(cluster.OnMessage(func(w *cluster.Process, _ cluster.Message) { said <- w }))
	quiet := func(*cluster.Process) (stdout, stderr io.Writer) { return nil, io.Discard } // else that comes with a descriptor too
	addr, config, _ := beginWith(t, scarce, cluster.Options{Workers: 1, Output: quiet})
	var w *cluster.Process
	for range 3 {
		w = clustertest.Await(t, said, "word of a descriptor that was lost")
	}
	require.NoError(t, w.Request(t.Context(), "free", nil))
	connect := func(addr net.Addr) error {
		ctx, cancel := context.WithTimeout(t.Context(), clustertest.Patience)
		defer cancel()
		conn, err := transport(t).Dial(ctx, addr, config, patient)
		if err == nil {
			<-conn.Context().Done()
		}
		return err
	}
	require.NoError(t, connect(addr))
}
