//go:build unix

package socket

import (
	"strconv"
	"testing"

	"github.com/go-cluster/cluster/internal/handle"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// TestListenBound: a socket that a node primary has bound to what was asked for
// listens; one that is bound to nothing, or by now to something else, does not.
func TestListenBound(t *testing.T) {
	for name, c := range map[string]struct {
		bind bool
		ask  func(port int) int
		err  error
	}{
		"as asked":     {true, func(port int) int { return port }, nil},
		"any port":     {true, func(int) int { return 0 }, nil},
		"another port": {true, func(port int) int { return port ^ 1 }, unix.EADDRINUSE},
		"unbound":      {false, func(int) int { return 4711 }, unix.EADDRINUSE},
		"unbound, any": {false, func(int) int { return 0 }, unix.EADDRINUSE},
	} {
		t.Run(name, func(t *testing.T) {
			fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM, 0)
			require.NoError(t, err)
			h := handle.New(fd)
			defer h.Release()
			if c.bind {
				require.NoError(t, unix.Bind(fd, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}))
			}
			sa, err := unix.Getsockname(fd)
			require.NoError(t, err)
			ask := c.ask(sa.(*unix.SockaddrInet4).Port)
			require.Equal(t, c.err, ListenBound(h, Address{Network: "tcp4", Literal: "127.0.0.1:" + strconv.Itoa(ask), FD: -1}))
			listens, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_ACCEPTCONN)
			require.NoError(t, err)
			require.Equal(t, c.err == nil, listens != 0)
		})
	}
}
