package process

import (
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// TestProgramIsARegularFile: opening a FIFO would wait for a writer, and the reload and all
// later ones would wait too.
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
		case <-time.After(time.Minute):
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

// copyOf puts a copy of a program of the system at a path.
func copyOf(t *testing.T, program, path string) {
	t.Helper()
	from, err := exec.LookPath(program)
	require.NoError(t, err)
	b, err := os.ReadFile(from)
	require.NoError(t, err)
	os.Remove(path)
	require.NoError(t, os.WriteFile(path, b, 0o755))
}

// TestNameOfProcess: a process is shown by its program's name while that lies at its
// path; after that what was opened is executed all the same.
func TestNameOfProcess(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "a-program")
	copyOf(t, "sh", path)
	link := filepath.Join(dir, "a-link")
	require.NoError(t, os.Symlink(path, link))
	program, err := FindSelf().Open(link, false)
	require.NoError(t, err)
	defer program.Close()
	comm := func() string {
		t.Helper()
		var said buffer
		p := start(t, Spec{Program: program, Title: "title", Args: []string{"-c", "read x </proc/$$/comm; echo $0 $x >&2"}, Stdout: io.Discard, Stderr: &said, Channel: channelEnd(t)})
		p.Wait()
		return said.String()
	}
	require.Equal(t, "title a-link\n", comm())
	require.NoError(t, os.Remove(link))
	require.Equal(t, "title a-program\n", comm(), "by the path that is left")
	copyOf(t, "true", path)
	require.Regexp(t, `^title [0-9]+\n$`, comm(), "not what lies there now")
}

// TestErrorNamesTheProgram that cannot be executed, not the descriptor by which it
// is held.
func TestErrorNamesTheProgram(t *testing.T) {
	path := filepath.Join(t.TempDir(), "program")
	require.NoError(t, os.WriteFile(path, []byte("nothing that can be executed"), 0o755))
	program, err := FindSelf().Open(path, false)
	require.NoError(t, err)
	defer program.Close()
	_, err = new(Launcher).Start(Spec{Program: program, Channel: channelEnd(t)})
	require.ErrorIs(t, err, unix.ENOEXEC)
	require.ErrorContains(t, err, path)
	require.NotContains(t, err.Error(), "/proc/")
}

// TestImports: Imports tells programs that contain a module from others.
func TestImports(t *testing.T) {
	self, err := os.Executable()
	require.NoError(t, err)
	for path, want := range map[string]bool{self: true, "/bin/sh": false} {
		program, err := FindSelf().Open(path, false)
		require.NoError(t, err)
		require.Equal(t, want, program.Imports("github.com/go-cluster/cluster"), path)
		require.False(t, program.Imports("example.com/other"), path)
		program.Close()
	}
}

// TestNewDir: the directory of a new version is what the link leads to by then, by
// which the directory was entered or the program started.
func TestNewDir(t *testing.T) {
	top, err := filepath.EvalSymlinks(t.TempDir())
	require.NoError(t, err)
	for _, dir := range []string{"1/bin", "2/bin", "1/data", "2/data", "other"} {
		require.NoError(t, os.MkdirAll(filepath.Join(top, dir), 0o755))
	}
	program := filepath.Join(top, "current/bin/server")
	for _, version := range []string{"1", "2"} {
		require.NoError(t, os.WriteFile(filepath.Join(top, version, "bin/server"), nil, 0o755))
	}
	for name, c := range map[string]struct{ dir, program, want string }{
		"entered":          {"current", "", "2"},
		"entered below":    {"current/data", "", "2/data"},
		"of the program":   {"1", program, "2"},
		"beside it":        {"1/data", program, "2/data"},
		"elsewhere":        {"other", program, ""},
		"no link":          {"1", filepath.Join(top, "1/bin/server"), ""},
		"a similar name":   {"other", filepath.Join(top, "current/server"), ""},
		"without programs": {"1", "", ""},
	} {
		t.Run(name, func(t *testing.T) {
			link := filepath.Join(top, "current")
			os.Remove(link)
			require.NoError(t, os.Symlink("1", link))
			dir := filepath.Join(top, c.dir)
			t.Chdir(dir)
			info, err := os.Stat(".")
			require.NoError(t, err)
			s := &Self{dirInfo: info, dirLink: findDirLink(dir, c.program)}
			require.Empty(t, s.NewDir(), "the link has not moved")
			require.NoError(t, os.Remove(link))
			require.NoError(t, os.Symlink("2", link))
			want := c.want
			if want != "" {
				want = filepath.Join(top, want)
			}
			require.Equal(t, want, s.NewDir())
			t.Chdir(top)
			require.Empty(t, s.NewDir(), "this process has moved")
		})
	}
}

// TestContinueStopped: what a terminal stops is continued; what somebody else stops
// is not.
func TestContinueStopped(t *testing.T) {
	child := start(t, spec(t, "sleep apart"))
	defer func() {
		child.Signal(os.Kill)
		child.Wait()
	}()
	// A terminal stops no process of an orphaned group, as that of these tests may be.
	require.Eventually(t, func() bool { pgid, err := unix.Getpgid(child.PID); return err == nil && pgid == child.PID },
		time.Minute, time.Millisecond)
	state := func() string { return readStat(child.PID)[statState] }
	inState := func(stopped bool) {
		require.Eventually(t, func() bool { return (state() == "T") == stopped }, time.Minute, time.Millisecond)
	}
	require.NoError(t, child.Signal(unix.SIGTTIN)) // before anybody looks
	require.Eventually(t, func() bool { return stoppedBy(child.PID) != 0 }, time.Minute, time.Millisecond)
	stop, ended, told := make(chan struct{}), make(chan struct{}), make(chan os.Signal, 10)
	go func() {
		ContinueStopped(stop, func() []int { return []int{child.PID} }, func(_ int, by os.Signal) { told <- by })
		close(ended)
	}()
	continued := func(want os.Signal) {
		select {
		case by := <-told:
			require.Equal(t, want, by)
		case <-time.After(time.Minute):
			t.Fatal("not noticed")
		}
		inState(false)
	}
	continued(unix.SIGTTIN)
	require.NoError(t, child.Signal(unix.SIGTTOU))
	continued(unix.SIGTTOU)
	time.Sleep(2 * stoppedAgain) // until it looks no more by itself
	require.NoError(t, child.Signal(unix.SIGSTOP))
	inState(true)
	time.Sleep(2 * stoppedAgain)
	require.Equal(t, "T", state())
	close(stop)
	<-ended
	require.Empty(t, told)
}

// TestHangUpOfOthers: a SIGHUP long after the terminal's end is not the terminal's.
func TestHangUpOfOthers(t *testing.T) {
	require.False(t, (*Terminal)(nil).HungUp())
	gone := &Terminal{gone: make(chan struct{})}
	close(gone.gone)
	gone.goneAt.Store(time.Now().Add(-time.Hour).UnixNano())
	require.False(t, gone.HungUp())
}

// TestTraced is a process with a debugger.
func TestTraced(t *testing.T) {
	child := start(t, spec(t, "sleep"))
	defer func() {
		child.Signal(os.Kill)
		child.Wait()
	}()
	require.False(t, Traced(child.PID))
	runtime.LockOSThread() // a tracer is a thread
	defer runtime.UnlockOSThread()
	if err := unix.PtraceSeize(child.PID); err != nil {
		t.Skipf("no debugger here: %v", err)
	}
	require.True(t, Traced(child.PID))
	unix.PtraceInterrupt(child.PID)
	unix.Wait4(child.PID, nil, unix.WALL, nil)
	require.NoError(t, unix.PtraceDetach(child.PID))
	require.False(t, Traced(child.PID))
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
	r := reaper{waited: func() ([]int, bool) { return ours, starting }, seen: make(map[int]time.Time)}
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

// TestPipeIsNotShared: a program that makes the pipe non-blocking which it gets does
// that to nobody else who writes to the same one.
func TestPipeIsNotShared(t *testing.T) {
	r, w, err := os.Pipe()
	require.NoError(t, err)
	defer r.Close()
	defer w.Close()
	fd := w.Fd() // which makes it blocking
	stdout, stderr := os.Stdout, os.Stderr
	defer func() { os.Stdout, os.Stderr = stdout, stderr }()
	for name, set := range map[string]func(*Spec){
		"given":     func(s *Spec) { s.Stdout, s.Stderr = w, w },
		"inherited": func(*Spec) { os.Stdout, os.Stderr = w, w },
	} {
		s := spec(t, "nonblock")
		set(&s)
		p, err := new(Launcher).Start(s)
		os.Stdout, os.Stderr = stdout, stderr
		require.NoError(t, err, name)
		state, err := p.Wait()
		require.NoError(t, err, name)
		require.Zero(t, state.ExitCode(), name)
		flags, err := unix.FcntlInt(fd, unix.F_GETFL, 0)
		require.NoError(t, err, name)
		require.Zero(t, flags&unix.O_NONBLOCK, name)
		buf := make([]byte, 100)
		n, err := r.Read(buf)
		require.NoError(t, err, name)
		require.Equal(t, "1 was blocking\n", string(buf[:n]), name)
	}
}

// TestOwnPipes: a process that was given a pipe which others have as well can make it
// its own.
func TestOwnPipes(t *testing.T) {
	r, w, err := os.Pipe()
	require.NoError(t, err)
	defer r.Close()
	defer w.Close()
	fd := w.Fd()
	c := exec.Command(os.Args[0])
	c.Env, c.Stdout = append(os.Environ(), "PROCESS_TEST=own pipes"), w
	require.NoError(t, c.Run())
	flags, err := unix.FcntlInt(fd, unix.F_GETFL, 0)
	require.NoError(t, err)
	require.Zero(t, flags&unix.O_NONBLOCK)
	b := make([]byte, 100)
	n, err := r.Read(b)
	require.NoError(t, err)
	require.Equal(t, "1 was blocking\n", string(b[:n]))
}

// TestFileIsShared: all who write to a regular file have one position in it.
func TestFileIsShared(t *testing.T) {
	f, err := os.Create(filepath.Join(t.TempDir(), "log"))
	require.NoError(t, err)
	defer f.Close()
	for _, arg := range []string{"one", "two"} {
		s := spec(t, "echo")
		s.Args, s.Stdout, s.Stderr = []string{arg}, f, io.Discard
		_, err := start(t, s).Wait()
		require.NoError(t, err)
	}
	b, err := os.ReadFile(f.Name())
	require.NoError(t, err)
	require.Equal(t, "out one\nout two\n", string(b))
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
