package process

import (
	"os"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// TestForker: processes are forked on the main thread if that can be had, and another
// program is executed on the thread whose children they are, whichever that is.
func TestForker(t *testing.T) {
	const patience = time.Minute
	var f forker
	start := func() (tid int, thread *forkThread) {
		_, thread, err := f.start(func() (*os.Process, error) {
			tid = unix.Gettid()
			return nil, nil
		})
		require.NoError(t, err)
		return tid, thread
	}
	exec := func() (tid int) {
		run, release, err := f.hold(patience)
		require.NoError(t, err)
		defer release()
		run(func() { tid = unix.Gettid() })
		return tid
	}
	require.NotZero(t, exec(), "without a process any thread will do")

	before := f.adopt() // a process of the program before
	require.Equal(t, unix.Getpid(), exec())
	f.awaitAdopted()
	require.NotNil(t, f.main.jobs, "the thread is held")
	tid, after := start()
	require.Equal(t, unix.Getpid(), tid)
	f.ended(after)
	f.ended(before)
	require.Nil(t, f.main.jobs, "nothing needs the thread")

	for { // a first process is not kept waiting for long
		tid, thread := start()
		f.ended(thread)
		if tid == unix.Getpid() {
			break
		}
	}
	require.Nil(t, f.main.jobs)

	taken := holdMain(patience, func() bool { return true }) // by somebody else
	require.NotNil(t, taken)
	tid, other := start()
	require.NotEqual(t, unix.Getpid(), tid)
	require.Equal(t, tid, exec())
	before = f.adopt()
	_, _, err := f.hold(patience)
	require.ErrorContains(t, err, "Reload first")
	f.ended(other)
	_, _, err = f.hold(time.Millisecond)
	require.ErrorContains(t, err, "main thread is not free")
	close(taken)
	require.Equal(t, unix.Getpid(), exec())
	f.ended(before)
}

// TestOnMain: it is the main thread whatever the others do.
func TestOnMain(t *testing.T) {
	stop := make(chan struct{})
	defer close(stop)
	for range 4 {
		go func() {
			for {
				select {
				case <-stop:
					return
				case <-time.After(time.Microsecond):
				}
			}
		}()
	}
	for range 20 {
		var tid int
		OnMain(time.Minute, func() { tid = unix.Gettid() })
		require.Equal(t, unix.Getpid(), tid)
	}
}
