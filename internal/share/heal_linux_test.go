package share

import (
	"net"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/go-cluster/cluster/internal/handle"
	"github.com/go-cluster/cluster/internal/socket"
)

// A socket that one worker has shut down is open again, though no worker dies of it: for
// all who have a TCP socket, and for those that ask for a unix socket from now on.
func TestShutDownHeals(t *testing.T) {
	for network, address := range map[string]string{
		"tcp":  "127.0.0.1:0",
		"unix": filepath.Join(t.TempDir(), "s"),
	} {
		for name, how := range map[string]int{"for reading": unix.SHUT_RD, "both": unix.SHUT_RDWR} {
			t.Run(network+" "+name, func(t *testing.T) {
				r := newTestRegistry(t)
				ask := func() *handle.Handle {
					m := newCommandWorker()
					w := resolved(t, network, address).message()
					require.NoError(t, r.Answer(m, reread(t, w), Terms{}))
					require.Contains(t, waitFor(t, m.answers, "answer"), `"errno":0`)
					return waitFor(t, m.sockets, "socket")
				}
				listen := func() net.Listener {
					h := ask()
					defer h.Release()
					ln, err := socket.NewListener(h)
					require.NoError(t, err)
					t.Cleanup(func() { ln.Close() })
					if u, ok := ln.(*net.UnixListener); ok {
						u.SetUnlinkOnClose(false)
					}
					return ln
				}
				ln, h := listen(), ask()
				real := ln.Addr().String()
				require.False(t, socket.ShutDown(h))
				require.NoError(t, unix.Shutdown(h.FD(), how))
				require.True(t, socket.ShutDown(h))
				h.Release()
				var c net.Conn
				require.Eventually(t, func() bool {
					var err error
					c, err = net.Dial(network, real)
					return err == nil
				}, patience, 10*time.Millisecond)
				defer c.Close()
				if network == "unix" {
					ln = listen()
				}
				s, err := ln.Accept()
				require.NoError(t, err)
				s.Close()
			})
		}
	}
}
