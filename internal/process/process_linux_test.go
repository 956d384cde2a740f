package process

import (
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// TestProgramIsARegularFile: to open a FIFO would wait for who writes to it, and a
// reload with it, and all later ones.
func TestProgramIsARegularFile(t *testing.T) {
	dir := t.TempDir()
	fifo := filepath.Join(dir, "fifo")
	require.NoError(t, unix.Mkfifo(fifo, 0o755))
	for _, path := range []string{fifo, dir, os.DevNull} {
		opened := make(chan error, 1)
		go func() {
			_, err := FindSelf().Open(path, true)
			opened <- err
		}()
		select {
		case err := <-opened:
			require.ErrorContains(t, err, path+" is no regular file")
		case <-time.After(10 * time.Second):
			t.Fatalf("Open(%s) waits", path)
		}
	}
}

// TestProgramIsPinned: what is executed is the file that was opened, whatever
// lies at its path by then, until Close. A script is not held.
func TestProgramIsPinned(t *testing.T) {
	path := filepath.Join(t.TempDir(), "program")
	write := func(text string) {
		t.Helper()
		require.NoError(t, os.RemoveAll(path))
		require.NoError(t, os.WriteFile(path, []byte(text), 0o755))
	}
	run := func(p *Program) string {
		t.Helper()
		name, done, err := p.forExec(0)
		require.NoError(t, err)
		defer done()
		b, err := os.ReadFile(name)
		require.NoError(t, err)
		return string(b)
	}
	write("one")
	pinned, err := FindSelf().Open(path, false)
	require.NoError(t, err)
	write("two")
	require.Equal(t, "one", run(pinned))
	pinned.Close()
	_, _, err = pinned.forExec(0)
	require.ErrorIs(t, err, ErrClosed)

	write("#!one")
	script, err := FindSelf().Open(path, false)
	require.NoError(t, err)
	defer script.Close()
	write("#!two")
	require.Equal(t, "#!two", run(script))
}

// TestForExecAbove: the held file's number is above those of the new process.
func TestForExecAbove(t *testing.T) {
	path, err := exec.LookPath("sh")
	require.NoError(t, err)
	p, err := FindSelf().Open(path, false)
	require.NoError(t, err)
	defer p.Close()
	name, done, err := p.forExec(500)
	require.NoError(t, err)
	defer done()
	require.Regexp(t, `^/proc/self/fd/5[0-9][0-9]$`, name)
}

// TestParseStat: a process's name can look like the rest of the line.
func TestParseStat(t *testing.T) {
	stat := parseStat([]byte("42 (a) Z 7 (b) R 1 2 3 4 5 6 7 8 9 10 110 120 130\n"))
	require.Equal(t, "R", stat[statState])
	require.Equal(t, "1", stat[statParent])
	require.Equal(t, []string{"110", "120"}, []string{stat[statUser], stat[statSystem]})
	require.Nil(t, parseStat([]byte("42 (a) R 1")))
	require.Nil(t, parseStat(nil))
}

// TestUsageIsTold on Linux.
func TestUsageIsTold(t *testing.T) {
	require.Greater(t, Resident(os.Getpid()), int64(1<<20))
	begun := time.Now()
	for CPU(os.Getpid()) == 0 && time.Since(begun) < time.Minute {
	}
	require.Positive(t, CPU(os.Getpid()))
}

// TestReap: zombies are reaped once they are old, unless somebody waits for them
// or a process is being started.
func TestReap(t *testing.T) {
	child := exec.Command("true")
	require.NoError(t, child.Start())
	pid := child.Process.Pid
	require.Eventually(t, func() bool {
		for _, z := range zombieChildren() {
			if z == pid {
				return true
			}
		}
		return false
	}, time.Minute, time.Millisecond)

	var ours []int
	starting := false
	r := reaper{func() ([]int, bool) { return ours, starting }, make(map[int]time.Time)}
	ours = []int{pid}
	require.Zero(t, r.reap(), "somebody waits for it")
	ours = nil
	require.Equal(t, 1, r.reap(), "it is new")
	require.Equal(t, 1, r.reap())
	r.seen[pid] = time.Now().Add(-2 * orphanAge)
	starting = true
	require.Equal(t, 1, r.reap(), "it may be what is being started")
	require.Contains(t, zombieChildren(), pid)
	starting = false
	require.Zero(t, r.reap())
	require.NotContains(t, zombieChildren(), pid)
	require.Empty(t, r.seen)
	child.Wait()
}

// TestDiscardIsTheNullDevice, not a closed descriptor, which the next file that
// the process opens would get.
func TestDiscardIsTheNullDevice(t *testing.T) {
	path, err := exec.LookPath("sh")
	require.NoError(t, err)
	program, err := FindSelf().Open(path, false)
	require.NoError(t, err)
	defer program.Close()
	var said buffer
	p := start(t, Spec{Program: program, Args: []string{"-c", "x=$(readlink /proc/$$/fd/1); echo $x >&2"}, Stdout: io.Discard, Stderr: &said, Channel: channelEnd(t)})
	p.Wait()
	require.Equal(t, os.DevNull+"\n", said.String())
}
