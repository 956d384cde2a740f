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

// accepting accepts on ln for as long as that goes on, and returns what comes.
func accepting(ln net.Listener) (conns chan net.Conn, end chan error) {
	conns, end = make(chan net.Conn, 100), make(chan error, 1)
	go func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				end <- err
				return
			}
			conns <- c
		}
	}()
	return conns, end
}

// A worker that is full accepts no more, on none of its listeners, until a connection
// ends.
func TestAFullWorkerAcceptsNoMore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorkerWith(Limits{Open: 2})
		var sources [2]*source
		var conns [2]chan net.Conn
		var ends [2]chan error
		var listeners [2]*Listener
		for i := range sources {
			sources[i] = newSource()
			listeners[i] = w.Listener(sources[i], sources[i].Addr(), net.KeepAliveConfig{}, func() {})
			conns[i], ends[i] = accepting(listeners[i])
		}
		synctest.Wait()
		sources[0].connect()
		first := <-conns[0]
		sources[1].connect()
		second := <-conns[1]
		synctest.Wait()
		require.True(t, w.Full())
		for _, s := range sources {
			go s.connect()
		}
		time.Sleep(time.Hour)
		require.Empty(t, conns[0])
		require.Empty(t, conns[1])
		require.Zero(t, w.rooms.Load())

		first.Close()
		synctest.Wait()
		require.Equal(t, 1, len(conns[0])+len(conns[1]), "one place, one connection")
		require.EqualValues(t, 1, w.rooms.Load())
		second.Close()
		first.Close() // it has left only once
		synctest.Wait()
		require.Equal(t, 2, len(conns[0])+len(conns[1]))
		for i, ln := range listeners {
			require.NoError(t, ln.Close())
			require.ErrorIs(t, <-ends[i], net.ErrClosed)
		}
	})
}

// What ends an Accept ends one that waits for room as well.
func TestWhatEndsTheWaitForRoom(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorkerWith(Limits{Open: 1})
		close(w.work)
		src := newSource()
		ln := w.Listener(src, src.Addr(), net.KeepAliveConfig{}, func() {})
		go src.connect()
		c, err := ln.Accept()
		require.NoError(t, err)
		accept := func() error { _, err := ln.Accept(); return err }

		require.NoError(t, ln.SetDeadline(time.Now().Add(time.Minute)))
		begun := time.Now()
		require.ErrorIs(t, accept(), os.ErrDeadlineExceeded)
		require.Equal(t, time.Minute, time.Since(begun))
		require.NoError(t, ln.SetDeadline(time.Time{}))

		waits := roomtest.Pending(accept)
		synctest.Wait()
		require.NoError(t, ln.SetDeadline(past))
		require.ErrorIs(t, <-waits, os.ErrDeadlineExceeded)
		require.NoError(t, ln.SetDeadline(time.Time{}))

		waits = roomtest.Pending(accept)
		synctest.Wait()
		w.Begin(ByMaster, time.Minute)
		synctest.Wait()
		c.Close()
		w.ended(t)
		synctest.Wait()
		require.Empty(t, waits, "in a drain Accept waits until the listener is closed")
		require.NoError(t, ln.Close())
		require.ErrorIs(t, <-waits, net.ErrClosed)

		w = newWorkerWith(Limits{Open: 1})
		src = newSource()
		ln = w.Listener(src, src.Addr(), net.KeepAliveConfig{}, func() {})
		go src.connect()
		c, err = ln.Accept()
		require.NoError(t, err)
		waits = roomtest.Pending(accept)
		synctest.Wait()
		require.NoError(t, ln.Close())
		require.ErrorIs(t, <-waits, net.ErrClosed)
		c.Close()
	})
}

// reservingSource takes a place for each connection before Accept returns it.
type reservingSource struct {
	*source
	tracker *Tracker
}

func (reservingSource) Reserves() {}

func (s reservingSource) Accept() (net.Conn, error) {
	c, err := s.source.Accept()
	if err == nil && !s.tracker.Reserve() {
		c.Close()
		return nil, os.ErrNoDeadline
	}
	return c, err
}

// A place that was reserved is the connection's, and not another one.
func TestReservedPlaces(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorkerWith(Limits{Open: 2})
		var last Counts
		w.Publish(func(c Counts) { last = c })
		require.Equal(t, Counts{}, last)
		src := reservingSource{newSource(), w.Tracker}
		ln := w.Listener(src, src.Addr(), net.KeepAliveConfig{}, func() {})
		defer ln.Close()
		go src.connect()
		c, err := ln.Accept()
		require.NoError(t, err)
		require.Equal(t, Counts{1, 1}, last)
		require.True(t, w.Reserve())
		require.Equal(t, Counts{1, 2}, last)
		require.True(t, w.Full())
		require.False(t, w.Reserve())
		go src.connect()
		_, err = ln.Accept()
		require.ErrorIs(t, err, os.ErrNoDeadline, "it is not made to wait, since it can give back what comes")
		w.Unreserve()
		require.EqualValues(t, 1, w.rooms.Load())
		c.Close()
		require.Equal(t, Counts{1, 0}, last)
		require.EqualValues(t, 1, w.rooms.Load(), "there was room already")
	})
}

// What this package does not wrap has places as well: it is beyond the bound if it has to
// be, and nothing else is accepted before there is room.
func TestPlacesOfOthers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorkerWith(Limits{Open: 2, Ever: 2})
		src := newSource()
		ln := w.Listener(src, src.Addr(), net.KeepAliveConfig{}, func() {})
		accepted, ended := w.Connects()
		require.Zero(t, w.filled.Load())
		accepted()
		_, second := w.Connects()
		_, third := w.Connects()
		require.EqualValues(t, 2, w.filled.Load())
		require.False(t, w.Reserve())
		n, active := w.Counts()
		require.Equal(t, []any{int64(1), 3}, []any{n, active})

		waits := roomtest.Pending(func() error { _, err := ln.Accept(); return err })
		go src.connect()
		second()
		synctest.Wait()
		require.Empty(t, waits, "two of two")
		require.Zero(t, w.rooms.Load())
		ended()
		require.NoError(t, <-waits)
		require.EqualValues(t, 1, w.rooms.Load())
		require.Len(t, w.notes, 1, "the second that was accepted is the last: full")
		third()
		require.NoError(t, ln.Close())
	})
}
