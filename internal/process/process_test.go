package process

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-cluster/cluster/internal/roomtest"
	"github.com/stretchr/testify/require"
)

// The test binary executes itself: what it does then is told by a variable.
func TestMain(m *testing.M) {
	switch os.Getenv("PROCESS_TEST") {
	case "":
		os.Exit(m.Run())
	case "echo":
		fmt.Println("out", strings.Join(os.Args[1:], " "))
		fmt.Fprintln(os.Stderr, "err")
		os.Exit(7)
	case "own pipes":
		OwnPipes()
		makeNonblocking()
	case "nonblock":
		makeNonblocking()
	case "sleep":
		time.Sleep(time.Hour)
	case "sleep apart":
		ownGroup()
		time.Sleep(time.Hour)
	}
}

// buffer is a writer for several goroutines.
type buffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *buffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *buffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

// spec is what executes this binary.
func spec(t *testing.T, what string) Spec {
	t.Helper()
	program, err := FindSelf().Open("", false)
	require.NoError(t, err)
	t.Cleanup(program.Close)
	return Spec{Program: program, Env: append(os.Environ(), "PROCESS_TEST="+what), Channel: channelEnd(t)}
}

func start(t *testing.T, s Spec) *Process {
	t.Helper()
	p, err := new(Launcher).Start(s)
	require.NoError(t, err)
	return p
}

// TestOutput: all of it is there when the end is, in one pipe if both writers are
// the same, and the end of the standard error is kept until Settle.
func TestOutput(t *testing.T) {
	var out, err, both buffer
	s := spec(t, "echo")
	s.Args, s.Stdout, s.Stderr, s.KeepTail = []string{"a", "b"}, &out, &err, true
	begun := time.Now()
	p := start(t, s)
	require.Equal(t, p.OS.Pid, p.PID)
	require.WithinRange(t, p.Started, begun, time.Now())
	state, waitErr := p.Wait()
	require.NoError(t, waitErr)
	require.Equal(t, 7, state.ExitCode())
	require.Nil(t, SignalOf(state))
	require.Equal(t, "out a b\n", out.String())
	require.Equal(t, "err\n", err.String())
	require.Equal(t, "err\n", p.LastWords())
	require.False(t, p.Settle(), "it has a writer of its own")
	require.Empty(t, p.LastWords())

	s = spec(t, "echo")
	s.Stdout, s.Stderr = &both, &both
	p = start(t, s)
	p.Wait()
	require.Equal(t, "out \nerr\n", both.String())
	require.Empty(t, p.LastWords(), "not to be kept")

	s = spec(t, "echo")
	s.Stdout, s.Stderr, s.KeepTail = io.Discard, io.Discard, true
	p = start(t, s)
	p.Wait()
	require.Empty(t, p.LastWords(), "nobody reads it")
}

// stuckWriter hangs until it is released.
type stuckWriter chan struct{}

func (w stuckWriter) Write(p []byte) (int, error) {
	<-w
	return len(p), nil
}

// TestWritersThatHang: the end of a process does not wait for them, and what they
// cost is bounded, until they go on.
func TestWritersThatHang(t *testing.T) {
	var l Launcher
	run := func(w io.Writer) *Process {
		t.Helper()
		s := spec(t, "echo")
		s.Stdout, s.Stderr, s.KeepTail = w, w, true
		p, err := l.Start(s)
		require.NoError(t, err)
		state, err := p.Wait()
		require.NoError(t, err)
		require.Equal(t, 7, state.ExitCode())
		return p
	}
	hang := make(stuckWriter)
	for range maxStuck {
		require.NoError(t, run(hang).Muted)
	}
	before := runtime.NumGoroutine()
	for range 3 {
		require.ErrorIs(t, run(hang).Muted, errStuck)
	}
	// Those that have copied nothing end a moment after their process.
	roomtest.Eventually(t, func() bool { return runtime.NumGoroutine() <= before }, "as many goroutines as before")
	require.NoError(t, run(io.Discard).Muted, "nothing is lost")
	close(hang)
	require.Eventually(t, func() bool { return !l.leftovers.stuck() }, time.Minute, time.Millisecond)
	var said buffer
	require.NoError(t, run(&said).Muted)
	require.Equal(t, "out \nerr\n", said.String())
}

// TestPipesOfTheDead: the output of processes that outlive a worker is copied on, for
// the newest of them.
func TestPipesOfTheDead(t *testing.T) {
	var l leftovers
	var said [maxLeft + 2]buffer
	var ends [maxLeft + 2]*os.File
	var copies [maxLeft + 2]*outputCopy
	for i := range copies {
		r, w, err := outputPipe()
		require.NoError(t, err)
		ends[i], copies[i] = w, &outputCopy{r: r, w: &said[i], all: &l, done: make(chan struct{})}
		go copies[i].run()
		if i == 1 { // it is over, and counts no more
			require.NoError(t, w.Close())
			<-copies[i].done
		}
		l.add(copies[i])
	}
	<-copies[0].done
	_, err := ends[0].WriteString("nobody reads this\n")
	require.Error(t, err)
	require.NoError(t, ends[0].Close())
	for i := 2; i < len(copies); i++ {
		_, err := ends[i].WriteString("still here\n")
		require.NoError(t, err)
		require.NoError(t, ends[i].Close())
		<-copies[i].done
		require.Equal(t, "still here\n", said[i].String())
	}
	require.Empty(t, l.all)
}

// TestKilled by a signal, which is told where there are signals.
func TestKilled(t *testing.T) {
	p := start(t, spec(t, "sleep"))
	require.NoError(t, p.Signal(os.Kill))
	state, err := p.Wait()
	require.NoError(t, err)
	require.False(t, state.Success())
	if CanSwitchUser { // Unix
		require.Equal(t, os.Kill, SignalOf(state))
	}
	require.Error(t, p.Signal(os.Kill), "it has ended")
}

// TestStartFails: the error names what is missing, and nothing is left open.
func TestStartFails(t *testing.T) {
	s := spec(t, "echo")
	s.Dir, s.Stdout = "/does/not/exist", new(buffer)
	_, err := new(Launcher).Start(s)
	require.ErrorIs(t, err, os.ErrNotExist)
	require.ErrorContains(t, err, "exist")

	_, err = FindSelf().Open("/does/not/exist", false)
	require.ErrorIs(t, err, os.ErrNotExist)
}

// TestTail keeps the end, passes all on, and ends with Settle.
func TestTail(t *testing.T) {
	var to buffer
	p := &Process{tail: &stderrTail{to: &to}}
	for range 3 {
		n, err := p.tail.Write(bytes.Repeat([]byte("x"), tailSize-1))
		require.NoError(t, err)
		require.Equal(t, tailSize-1, n)
	}
	p.tail.Write([]byte("end"))
	require.Equal(t, strings.Repeat("x", tailSize-3)+"end", p.LastWords())
	require.Len(t, to.String(), 3*(tailSize-1)+3)
	p.Settle()
	p.tail.Write([]byte("later"))
	require.Empty(t, p.LastWords())
	require.True(t, strings.HasSuffix(to.String(), "later"))

	own := &Process{tail: new(stderrTail)}
	require.True(t, own.Settle(), "it goes to this process's own")
	require.False(t, own.Settle(), "told once")
	var none *Process
	require.False(t, none.Settle())
	require.Empty(t, none.LastWords())
}

// TestSameWriter: of types that cannot be compared no two are the same.
func TestSameWriter(t *testing.T) {
	w := new(buffer)
	require.True(t, sameWriter(w, w))
	require.False(t, sameWriter(w, new(buffer)))
	require.False(t, sameWriter(slice{}, slice{}))
}

type slice []byte

func (slice) Write(p []byte) (int, error) { return len(p), nil }

// TestUsage of this process, where the system tells it, and of none.
func TestUsage(t *testing.T) {
	rss, cpu := Resident(os.Getpid()), CPU(os.Getpid())
	require.GreaterOrEqual(t, rss, int64(0))
	require.GreaterOrEqual(t, cpu, time.Duration(0))
	const none = 1 << 28
	require.Zero(t, Resident(none))
	require.Zero(t, CPU(none))
}
