package share

import (
	"testing"
	"time"

	"github.com/go-cluster/cluster/internal/roomtest"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// withoutDescriptors calls fn while no descriptor is free in this process.
func withoutDescriptors(t *testing.T, fn func()) {
	var was unix.Rlimit
	require.NoError(t, unix.Getrlimit(unix.RLIMIT_NOFILE, &was))
	none := was
	none.Cur = 0 // of those above it, the open ones stay open
	require.NoError(t, unix.Setrlimit(unix.RLIMIT_NOFILE, &none))
	defer func() { require.NoError(t, unix.Setrlimit(unix.RLIMIT_NOFILE, &was)) }()
	fn()
}

// A connection for which this worker has no descriptor is given back, and that is told
// once. To a node primary, which would offer it again at once, it goes after a moment, or
// in a drain.
func TestNoDescriptorForAConnection(t *testing.T) {
	for name, c := range map[string]struct{ goMaster, drains bool }{
		"Go master":                {goMaster: true},
		"node primary":             {},
		"node primary and a drain": {drains: true},
	} {
		t.Run(name, func(t *testing.T) {
			drains := false
			l, a, q := newTestQueue(&drains)
			told := make(chan error, 10)
			a.worker.Go = c.goMaster
			a.worker.Exhausted = func(err error) { told <- err }
			accepted := make(chan error, 1)
			go func() {
				c, err := q.Accept()
				if err == nil {
					c.Close()
				}
				accepted <- err
			}()
			for n := range int64(2) {
				require.Eventually(t, func() bool { q.mu.Lock(); defer q.mu.Unlock(); return q.waiting == 1 }, roomtest.Patience, time.Millisecond)
				h := someConn(t)
				withoutDescriptors(t, func() { a.Offered(offered(n+1), h) })
				if c.drains {
					break
				}
				require.Contains(t, roomtest.Await(t, l.said, "answer"), `"accepted":false`)
			}
			require.ErrorIs(t, roomtest.Await(t, told, "report"), unix.EMFILE)
			require.Empty(t, told)
			if c.drains {
				drains = true
				require.NoError(t, q.SetDeadline(time.Unix(1, 0)))
				require.Contains(t, roomtest.Await(t, l.said, "answer"), `"ack":1,"accepted":false`)
				require.Error(t, roomtest.Await(t, accepted, "end of Accept"))
				time.AfterFunc(3*exhaustedPause, func() { close(told) }) // beyond the pause it would have had
				for range told {
				}
				require.Empty(t, l.said, "it is given back once")
				return
			}
			a.Offered(offered(3), someConn(t))
			require.Contains(t, roomtest.Await(t, l.said, "answer"), `"ack":3,"accepted":true`)
			require.NoError(t, roomtest.Await(t, accepted, "connection"))
		})
	}
}

// When the master cannot accept, that is told once.
func TestNoDescriptorToAccept(t *testing.T) {
	r := newTestRegistry(t)
	told := make(chan error, 10)
	r.host.Exhausted = func(err error) { told <- err }
	worker := newCommandWorker()
	require.NoError(t, r.Answer(worker, question(t, "127.0.0.1:0", RoundRobin), Terms{}))
	roomtest.Await(t, worker.answers, "answer")
	r.exhausted(unix.EMFILE)
	r.exhausted(unix.EMFILE)
	require.ErrorIs(t, roomtest.Await(t, told, "report"), unix.EMFILE)
	require.Empty(t, told)
}
