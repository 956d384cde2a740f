package hostile_test

import (
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"os/signal"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/go-cluster/cluster"
	"github.com/go-cluster/cluster/internal/clustertest"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// shell is what a shell with job control is to a cluster: the first process of the
// terminal's session. It starts the job in the background, passes a SIGHUP on to it
// and ends.
var shell = clustertest.Program("shell", func() {
	hangup := make(chan os.Signal, 1)
	signal.Notify(hangup, syscall.SIGHUP)
	script := `exec "$0"`
	if os.Getenv("NOHUP") != "" {
		script = `trap "" HUP; ` + script
	}
	job := exec.Command("/bin/sh", "-c", script, os.Args[0])
	job.Env = append(os.Environ(), clustertest.ProgramEnv+"="+os.Getenv("JOB"))
	job.Stdin, job.Stdout, job.Stderr = os.Stdin, os.Stdout, os.Stderr
	job.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	clustertest.Must(job.Start())
	fmt.Println("job", job.Process.Pid)
	<-hangup
	syscall.Kill(-job.Process.Pid, syscall.SIGHUP)
})

// chatty is a worker that writes to its terminal and reads from it.
var chatty = clustertest.Program("chatty", func() {
	tty, err := os.OpenFile("/dev/tty", os.O_RDWR, 0)
	clustertest.Must(err)
	for range 20 {
		_, err := tty.WriteString("x")
		clustertest.Must(err)
	}
	if _, err := tty.Read(make([]byte, 1)); err == nil {
		panic("it has read in the background")
	}
	ln, err := cluster.Listen("tcp", "127.0.0.1:0")
	clustertest.Must(err)
	clustertest.Must(cluster.Worker.Send(clustertest.Up{Cmd: "up"}))
	clustertest.Must(cluster.Serve(ln, new(http.Server)))
})

// openTerminal opens a new one: the end of who looks at it, and of its processes.
func openTerminal(t *testing.T) (user, tty *os.File) {
	t.Helper()
	user, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Skipf("no terminals here: %v", err)
	}
	t.Cleanup(func() { user.Close() })
	fd := int(user.Fd())
	require.NoError(t, unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0))
	n, err := unix.IoctlGetInt(fd, unix.TIOCGPTN)
	require.NoError(t, err)
	tty, err = os.OpenFile("/dev/pts/"+strconv.Itoa(n), os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Skipf("no terminals here: %v", err)
	}
	t.Cleanup(func() { tty.Close() })
	return user, tty
}

// inBackground starts a supervisor as a background job of a terminal.
func inBackground(t *testing.T, tty *os.File, s clustertest.Supervision, env ...string) (p *clustertest.Proc, job int) {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Stdin = tty
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
	p = clustertest.StartCmd(t, cmd, shell, clustertest.SuperviseEnv(t, &s, append(env, "JOB="+clustertest.Supervisor))...)
	job = clustertest.Atoi(p.Expect("job "))
	t.Cleanup(func() { syscall.Kill(-job, syscall.SIGKILL) })
	return p, job
}

// TestTerminalStopsNothing: a job in the background whose workers write to the
// terminal, which has tostop, and read it. The kernel's signals are taken for
// nobody's order, and nobody is stopped or goes round in circles.
func TestTerminalStopsNothing(t *testing.T) {
	t.Parallel()
	_, tty := openTerminal(t)
	settings, err := unix.IoctlGetTermios(int(tty.Fd()), unix.TCGETS)
	require.NoError(t, err)
	settings.Lflag |= unix.TOSTOP
	require.NoError(t, unix.IoctlSetTermios(int(tty.Fd()), unix.TCSETS, settings))
	p, job := inBackground(t, tty, clustertest.Supervision{Program: chatty, Workers: 2})
	ups := p.Ups(2)
	stats := func() string {
		clustertest.Kill(t, job, clustertest.SigPoke)
		return p.Expect("stats ")
	}
	require.Contains(t, stats(), `"target":2`)

	// The administrator cannot scale by them either, but reload.
	clustertest.Kill(t, -job, syscall.SIGTTIN)
	clustertest.Kill(t, -job, syscall.SIGTTOU)
	require.Contains(t, stats(), `"target":2`)
	clustertest.Kill(t, job, syscall.SIGHUP)
	p.Expect("reload 2 2 <nil>")
	for _, up := range ups {
		require.False(t, clustertest.Runs(up.PID))
	}
	clustertest.Kill(t, job, syscall.SIGTERM)
	p.Expect("run <nil>")
}

// TestClosedTerminalEndsTheCluster, as it ends any program; it does not reload.
func TestClosedTerminalEndsTheCluster(t *testing.T) {
	t.Parallel()
	user, tty := openTerminal(t)
	p, _ := inBackground(t, tty, clustertest.Supervision{Workers: 1})
	p.Ups(1)
	user.Close()
	p.Expect("run <nil>")
	p.Exit()
	require.NotContains(t, p.Output(), "reload ")
}

// TestNohup: a program that was made to outlive its terminal does, and goes on as
// it was.
func TestNohup(t *testing.T) {
	t.Parallel()
	user, tty := openTerminal(t)
	p, job := inBackground(t, tty, clustertest.Supervision{Workers: 1}, "NOHUP=1")
	ups := p.Ups(1)
	user.Close()
	p.Exit()
	// The signal has come by now, and is looked at for a moment.
	for end := time.Now().Add(time.Second); time.Now().Before(end); time.Sleep(100 * time.Millisecond) {
		clustertest.Kill(t, job, clustertest.SigPoke)
		line := p.Expect("stats ")
		require.Contains(t, line, `"generation":1`)
		require.Contains(t, line, `"pid":`+strconv.Itoa(ups[0].PID))
	}
	require.NotContains(t, p.Output(), "reload ")
	clustertest.Kill(t, job, syscall.SIGTERM)
	p.Expect("run <nil>")
}

// TestClosedTerminalOfItsOwn: the master is the first process of the terminal's
// session, as with `ssh -t host server`.
func TestClosedTerminalOfItsOwn(t *testing.T) {
	t.Parallel()
	user, tty := openTerminal(t)
	cmd := exec.Command(os.Args[0])
	cmd.Stdin = tty
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
	hangup := make(chan os.Signal, 1) // not inherited as ignored, as it is below nohup
	signal.Notify(hangup, syscall.SIGHUP)
	defer signal.Stop(hangup)
	s := clustertest.Supervision{Workers: 1}
	p := clustertest.StartCmd(t, cmd, clustertest.Supervisor, clustertest.SuperviseEnv(t, &s, nil)...)
	p.Ups(1)
	user.Close()
	require.Zero(t, p.Exit())
	require.False(t, strings.Contains(p.Output(), "reload "))
}
