package systemd

import (
	"context"
	"crypto/rand"
	"net"
	"syscall"

	"golang.org/x/sys/unix"
)

// CanHear reports whether a program can tell this one how it is.
const CanHear = true

// maxNotice is the size of the largest datagram that is read, as systemd's.
const maxNotice = 4096

// Inbox is the socket for what a program that this one starts has to say of itself.
type Inbox struct {
	conn    *net.UnixConn
	address string
}

// NewInbox opens one. Its name is abstract: no file has to be removed, and no
// permission keeps another user away. Who may write is the reader's business.
func NewInbox() (*Inbox, error) {
	credentials := func(_, _ string, c syscall.RawConn) (err error) {
		failed := c.Control(func(fd uintptr) { err = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_PASSCRED, 1) })
		if failed != nil {
			return failed
		}
		return err
	}
	address := "@go-cluster-notify-" + rand.Text()
	lc := net.ListenConfig{Control: credentials}
	c, err := lc.ListenPacket(context.Background(), "unixgram", address)
	if err != nil {
		return nil, err
	}
	return &Inbox{c.(*net.UnixConn), address}, nil
}

// Address is what the program finds in NOTIFY_SOCKET.
func (i *Inbox) Address() string { return i.address }

// Serve calls told with what comes, and who has sent it, until Close.
func (i *Inbox) Serve(told func(pid int, n Notice)) {
	var b [maxNotice]byte
	oob := make([]byte, unix.CmsgSpace(unix.SizeofUcred)+unix.CmsgSpace(253*4)) // SCM_MAX_FD
	for {
		n, oobn, flags, _, err := i.conn.ReadMsgUnix(b[:], oob)
		if err != nil {
			return // which is its close
		}
		pid, fds := sender(oob[:oobn])
		if pid > 0 && flags&(unix.MSG_TRUNC|unix.MSG_CTRUNC) == 0 {
			told(pid, ParseNotice(string(b[:n])))
		}
		// For BARRIER=1: the sender waits until its descriptor is closed.
		for _, fd := range fds {
			unix.Close(fd)
		}
	}
}

// sender is who has sent a datagram, by the kernel's word, and which descriptors came
// with it.
func sender(oob []byte) (pid int, fds []int) {
	messages, err := unix.ParseSocketControlMessage(oob)
	if err != nil {
		return 0, nil
	}
	for i := range messages {
		if rights, err := unix.ParseUnixRights(&messages[i]); err == nil {
			fds = append(fds, rights...)
		} else if cred, err := unix.ParseUnixCredentials(&messages[i]); err == nil {
			pid = int(cred.Pid)
		}
	}
	return pid, fds
}

// Close ends Serve.
func (i *Inbox) Close() { i.conn.Close() }
