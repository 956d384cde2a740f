package drain

import (
	"net"
	"os"
	"testing"
	"testing/synctest"
	"time"

	"github.com/go-cluster/cluster/internal/roomtest"
	"github.com/stretchr/testify/require"
)

// TestAcceptWaits: in a drain Accept waits until the listener is closed, whether it
// was under way before or not, and whatever deadline is set.
func TestAcceptWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorker()
		close(w.work)
		src := newSource()
		ln := w.Listener(src, src.Addr(), net.KeepAliveConfig{}, func() { w.note("release") })
		require.NoError(t, ln.SetDeadline(past))
		_, err := ln.Accept()
		require.ErrorIs(t, err, os.ErrDeadlineExceeded)
		require.NoError(t, ln.SetDeadline(time.Time{}))

		accept := func() error { _, err := ln.Accept(); return err }
		under := roomtest.Pending(accept)
		synctest.Wait()
		w.Begin(ByMaster, time.Hour)
		w.ended(t)
		require.NoError(t, ln.SetDeadline(past))
		after := roomtest.Pending(accept)
		synctest.Wait()
		require.Empty(t, under)
		require.Empty(t, after)
		require.NoError(t, ln.Close())
		for _, accept := range []<-chan error{under, after} {
			var op *net.OpError
			require.ErrorAs(t, <-accept, &op)
			require.Equal(t, "accept", op.Op)
			require.ErrorIs(t, op, net.ErrClosed)
		}
		require.ErrorIs(t, ln.Close(), net.ErrClosed)
	})
}

// TestFull: it is told once, when as many connections have come as were given.
func TestFull(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorker()
		src := newSource()
		ln := w.Listener(src, src.Addr(), net.KeepAliveConfig{}, func() {})
		defer ln.Close()
		for i, want := range []int{0, 1, 1, 1} {
			go src.connect()
			c, err := ln.Accept()
			require.NoError(t, err)
			require.Len(t, w.notes, want)
			accepted, active := w.Counts()
			require.EqualValues(t, i+1, accepted)
			require.Equal(t, 1, active)
			require.NoError(t, c.Close())
		}
	})
}

// TestLateListener: what is wrapped in a drain is stopped as well.
func TestLateListener(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorker()
		close(w.work)
		w.Begin(ByMaster, time.Hour)
		w.ended(t)
		src := newSource()
		ln := w.Listener(src, src.Addr(), net.KeepAliveConfig{}, func() {})
		_, err := src.Accept()
		require.ErrorIs(t, err, os.ErrDeadlineExceeded)
		require.NoError(t, ln.Close())
	})
}

// TestQueueAtTheEnd: when nobody comes after this worker it takes what is queued,
// and then the next client is refused. Else the socket is left to the others at once.
func TestQueueAtTheEnd(t *testing.T) {
	for _, why := range []Reason{ByMaster, ByOther} {
		require.Zero(t, queuedAtTheEnd(t, why, 3))
	}
	for _, why := range []Reason{ByStop, ByOrphan} {
		// On a busy machine the time for it may be over before Accept has been called.
		for end := time.Now().Add(roomtest.Patience); queuedAtTheEnd(t, why, 3) < 3; {
			require.True(t, time.Now().Before(end), "what is queued is taken")
		}
	}
}

// queuedAtTheEnd is how many of so many connections in the queue are taken.
func queuedAtTheEnd(t *testing.T, why Reason, queued int) int64 {
	w := newWorker()
	close(w.work)
	src := listen(t, "tcp")
	ln := w.Listener(src, src.Addr(), net.KeepAliveConfig{}, func() {})
	for range queued {
		c, err := net.Dial("tcp", ln.Addr().String())
		require.NoError(t, err)
		defer c.Close()
	}
	w.hooks.Announce = func(Reason) {
		go func() {
			for {
				c, err := ln.Accept()
				if err != nil {
					return
				}
				c.Close()
			}
		}()
	}
	w.Begin(why, roomtest.Patience)
	w.ended(t)
	_, err := net.Dial("tcp", ln.Addr().String())
	require.Error(t, err)
	accepted, _ := w.Counts()
	require.NoError(t, ln.Close())
	return accepted
}

// TestAccepts: the program's first Accept is told, whatever comes of it, and no other.
func TestAccepts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorker()
		close(w.work)
		src := newSource()
		ln := w.Listener(src, src.Addr(), net.KeepAliveConfig{}, func() {})
		require.Zero(t, w.accepts.Load(), "listening is not enough")
		accepted := roomtest.Pending(func() error { _, err := ln.Accept(); return err })
		synctest.Wait()
		require.EqualValues(t, 1, w.accepts.Load())
		defer src.connect().Close()
		require.NoError(t, <-accepted)
		roomtest.Pending(func() error { _, err := ln.Accept(); return err })
		synctest.Wait()
		require.EqualValues(t, 1, w.accepts.Load())
		require.NoError(t, ln.Close())
		synctest.Wait()

		late := newWorker()
		close(late.work)
		ln = late.Listener(newSource(), src.Addr(), net.KeepAliveConfig{}, func() {})
		late.Begin(ByMaster, time.Hour)
		late.ended(t)
		roomtest.Pending(func() error { _, err := ln.Accept(); return err })
		synctest.Wait()
		require.Zero(t, late.accepts.Load(), "in a drain nothing is taken")
		require.NoError(t, ln.Close())
	})
}
