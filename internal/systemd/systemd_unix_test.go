//go:build unix

package systemd

import (
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// manager is a service manager's end of a notification socket.
func manager(t *testing.T) *net.UnixConn {
	t.Helper()
	dir, err := os.MkdirTemp("", "notify") // short: sun_path has little room
	require.NoError(t, err)
	t.Cleanup(func() { os.RemoveAll(dir) })
	c, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: filepath.Join(dir, "s"), Net: "unixgram"})
	require.NoError(t, err)
	t.Cleanup(func() { c.Close() })
	t.Setenv("NOTIFY_SOCKET", c.LocalAddr().String())
	return c
}

func heard(t *testing.T, c *net.UnixConn) string {
	t.Helper()
	b := make([]byte, 64<<10)
	require.NoError(t, c.SetReadDeadline(time.Now().Add(time.Minute)))
	n, err := c.Read(b)
	require.NoError(t, err)
	return string(b[:n])
}

// TestNotify: between Begin and End what is said is heard, in order.
func TestNotify(t *testing.T) {
	c := manager(t)
	var n Notifier
	n.Notify("before Begin")
	n.Begin()
	const count = 5 // all of which the socket takes
	for i := range count {
		n.Notify(strconv.Itoa(i))
	}
	n.Notify(Stopping)
	n.End()
	n.Notify("after End")
	n.Flush(nil)
	for i := range count {
		require.Equal(t, strconv.Itoa(i), heard(t, c))
	}
	require.Equal(t, Stopping, heard(t, c))
	n.Begin()
	n.Notify(Alive)
	require.Equal(t, Alive, heard(t, c))
}

// TestNotifyWithoutManager: one that is gone keeps nobody waiting, and neither
// does one that does not read.
func TestNotifyWithoutManager(t *testing.T) {
	t.Setenv("NOTIFY_SOCKET", filepath.Join(t.TempDir(), "none"))
	var n Notifier
	n.Begin()
	n.Notify(Alive)
	n.Flush(nil)

	manager(t)
	n.Begin()
	for range 50 { // more than the socket takes
		n.Notify(Alive)
	}
	done := make(chan struct{})
	close(done)
	n.Flush(done)
	n.End()
}

// TestWatchdog: its time is for this process, if any is named.
func TestWatchdog(t *testing.T) {
	for _, c := range []struct {
		usec, pid string
		want      time.Duration
	}{
		{"", "", 0}, {"x", "", 0}, {"0", "", 0}, {"-5", "", 0},
		{"200000", "", 200 * time.Millisecond},
		{"200000", strconv.Itoa(os.Getpid()), 200 * time.Millisecond},
		{"200000", "1", 0},
	} {
		t.Setenv("WATCHDOG_USEC", c.usec)
		t.Setenv("WATCHDOG_PID", c.pid)
		var n Notifier
		n.Begin()
		require.Equal(t, c.want, n.Watchdog(), "%+v", c)
		n.End()
		require.Zero(t, n.Watchdog())
	}
}

// TestTexts are as sd_notify(3) wants them: a line for each assignment.
func TestTexts(t *testing.T) {
	require.Equal(t, "READY=1\nSTATUS=one two", Ready("one\ntwo"))
	before := monotonic()
	lines := strings.Split(Reloading(), "\n")
	require.Len(t, lines, 3)
	require.Equal(t, "RELOADING=1", lines[0])
	usec, err := strconv.ParseInt(strings.TrimPrefix(lines[1], "MONOTONIC_USEC="), 10, 64)
	require.NoError(t, err)
	require.InDelta(t, before.Microseconds(), usec, float64(time.Minute.Microseconds()))
}

// TestSockets: those that are for this process, which is another one here as the
// descriptors have fixed numbers; made non-blocking, and not inherited.
func TestSockets(t *testing.T) {
	if os.Getenv("SYSTEMD_TEST") != "" {
		var said []string
		for _, s := range Sockets() {
			flags, _ := unix.FcntlInt(uintptr(s.FD), unix.F_GETFL, 0)
			fdFlags, _ := unix.FcntlInt(uintptr(s.FD), unix.F_GETFD, 0)
			said = append(said, strconv.Itoa(s.FD), s.Name, strconv.FormatBool(flags&unix.O_NONBLOCK != 0), strconv.FormatBool(fdFlags&unix.FD_CLOEXEC != 0))
		}
		os.Stdout.WriteString(strings.Join(said, " ") + "\n")
		os.Exit(0)
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer ln.Close()
	f, err := ln.(*net.TCPListener).File()
	require.NoError(t, err)
	defer f.Close()
	null, err := os.Open(os.DevNull)
	require.NoError(t, err)
	defer null.Close()
	for of, want := range map[string]string{"$$": "4 web true true\n", "1": "\n"} {
		cmd := exec.Command("/bin/sh", "-c", `LISTEN_PID=`+of+` LISTEN_FDS=2 LISTEN_FDNAMES=null:web exec "$0" -test.run='^TestSockets$'`, os.Args[0])
		cmd.Env = append(os.Environ(), "SYSTEMD_TEST=1")
		cmd.ExtraFiles = []*os.File{null, f}
		out, err := cmd.Output()
		require.NoError(t, err)
		require.Equal(t, want, string(out))
	}
}
