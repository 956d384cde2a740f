package share

import (
	"fmt"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/go-cluster/cluster/internal/handle"
	"github.com/go-cluster/cluster/internal/socket"
)

// withDescriptors calls fn while this process may have no number from n on.
func withDescriptors(t *testing.T, n int, fn func()) {
	var was unix.Rlimit
	require.NoError(t, unix.Getrlimit(unix.RLIMIT_NOFILE, &was))
	few := was
	few.Cur = uint64(n)
	require.NoError(t, unix.Setrlimit(unix.RLIMIT_NOFILE, &few))
	defer func() { require.NoError(t, unix.Setrlimit(unix.RLIMIT_NOFILE, &was)) }()
	fn()
}

// asks is m's question for the n-th address of a directory, and how it is answered.
func asks(t *testing.T, r *Registry, m *commandWorker, dir string, n int) (granted bool) {
	w := resolved(t, "unix", filepath.Join(dir, fmt.Sprint(n))).message()
	require.NoError(t, r.Answer(m, reread(t, w), Terms{}))
	<-m.answers
	select {
	case h := <-m.sockets:
		h.Release()
		return true
	default:
		return false
	}
}

// However many addresses one worker asks for, and its successors after its death, there
// are some left for others, and descriptors to fork with.
func TestAddressesOfOneWorker(t *testing.T) {
	const limit = 200
	withDescriptors(t, limit, func() {
		r, dir := newTestRegistry(t), t.TempDir()
		r.host.UID = -1
		for life := range 4 {
			m := newCommandWorker()
			granted := 0
			for n := range 100 {
				if asks(t, r, m, dir, 1000*life+n) {
					granted++
				}
			}
			require.Equal(t, min(maxAddresses, socket.Budget()/2)/2, granted)
			other := newCommandWorker()
			require.True(t, asks(t, r, other, dir, 1000*life+500), "there is one left for another worker")
			free, err := unix.Open("/dev/null", unix.O_RDONLY|unix.O_CLOEXEC, 0)
			require.NoError(t, err)
			unix.Close(free)
			require.Less(t, free, socket.Budget())
			r.Forget(m) // it dies with all that
			r.Forget(other)
		}
	})
}

// What is kept of the descriptors is kept whatever else has taken the others. An address
// that only a dead worker had makes room.
func TestDescriptorsKept(t *testing.T) {
	const limit = 200
	withDescriptors(t, limit, func() {
		r, dir, m := newTestRegistry(t), t.TempDir(), newCommandWorker()
		require.True(t, asks(t, r, m, dir, 1))
		var others []*handle.Handle
		for fd := 0; fd < socket.Budget(); {
			var err error
			fd, err = unix.Open("/dev/null", unix.O_RDONLY|unix.O_CLOEXEC, 0)
			require.NoError(t, err)
			others = append(others, handle.New(fd))
		}
		t.Cleanup(func() {
			for _, h := range others {
				h.Release()
			}
		})
		require.False(t, asks(t, r, m, dir, 2))
		require.NoFileExists(t, filepath.Join(dir, "2"))
		r.Forget(m)
		require.True(t, asks(t, r, newCommandWorker(), dir, 3))
		require.NoFileExists(t, filepath.Join(dir, "1"))
	})
}
