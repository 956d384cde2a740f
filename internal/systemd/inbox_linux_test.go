package systemd

import (
	"net"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

type notice struct {
	pid int
	Notice
}

// inbox is one at work, and what comes.
func inbox(t *testing.T) (*Inbox, chan notice) {
	i, err := NewInbox()
	require.NoError(t, err)
	heard, done := make(chan notice, 100), make(chan bool)
	go func() {
		defer close(done)
		i.Serve(func(pid int, n Notice) { heard <- notice{pid, n} })
	}()
	t.Cleanup(func() {
		i.Close()
		<-done
	})
	return i, heard
}

func await(t *testing.T, heard chan notice) notice {
	t.Helper()
	select {
	case n := <-heard:
		return n
	case <-time.After(time.Minute):
		t.Fatal("nothing comes")
		panic("unreachable")
	}
}

// TestInbox: what comes is read in order, with who sent it. What is too long, and what
// came with descriptors, is no trouble: they are closed.
func TestInbox(t *testing.T) {
	i, heard := inbox(t)
	c, err := net.DialUnix("unixgram", nil, &net.UnixAddr{Name: i.Address(), Net: "unixgram"})
	require.NoError(t, err)
	defer c.Close()
	_, err = c.Write([]byte("READY=1\nSTATUS=a=b\nMAINPID=12"))
	require.NoError(t, err)
	_, err = c.Write([]byte("STATUS=" + strings.Repeat("x", maxNotice)))
	require.NoError(t, err)
	r, w, err := os.Pipe()
	require.NoError(t, err)
	defer r.Close()
	rc, err := c.SyscallConn()
	require.NoError(t, err)
	require.NoError(t, rc.Write(func(fd uintptr) bool {
		err = unix.Sendmsg(int(fd), []byte("BARRIER=1"), unix.UnixRights(int(w.Fd()), int(w.Fd())), nil, 0)
		return err != unix.EAGAIN
	}))
	require.NoError(t, err)
	require.NoError(t, w.Close())
	require.NoError(t, r.SetReadDeadline(time.Now().Add(time.Minute)))
	_, err = r.Read(make([]byte, 1))
	require.ErrorContains(t, err, "EOF")
	require.Equal(t, notice{os.Getpid(), Notice{Ready: true, Status: "a=b", MainPID: 12}}, await(t, heard))
	require.Equal(t, notice{os.Getpid(), Notice{}}, await(t, heard))
	require.Empty(t, heard)
}

// TestInboxSystemdNotify: the tool of systemd's is understood, and does not wait for
// ever.
func TestInboxSystemdNotify(t *testing.T) {
	tool, err := exec.LookPath("systemd-notify")
	if err != nil {
		t.Skip("no systemd-notify here")
	}
	i, heard := inbox(t)
	cmd := exec.Command(tool, "--ready", "--status=all is well", "--pid="+strconv.Itoa(os.Getpid()))
	cmd.Env = []string{"NOTIFY_SOCKET=" + i.Address()}
	out, err := cmd.CombinedOutput()
	require.NoError(t, err, "%s", out)
	n := await(t, heard)
	require.Equal(t, Notice{Ready: true, Status: "all is well", MainPID: os.Getpid()}, n.Notice)
}
