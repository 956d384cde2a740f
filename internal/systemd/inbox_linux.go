package systemd

import (
	"context"
	"crypto/rand"
	"net"
	"syscall"

	"golang.org/x/sys/unix"
)

// CanHear says that a program can tell this one how it is.
const CanHear = true

// maxNotice bounds a datagram, in bytes, as in systemd.
const maxNotice = 4096

// Inbox is the socket on which programs that this one has started say how they are.
type Inbox struct {
	conn    *net.UnixConn
	address string
}

// NewInbox opens an Inbox. Its name is abstract, so there is no file to remove, and a worker
// of another user can write to it. Every other process can, too: the reader judges the
// sender.
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

// Address returns the value of NOTIFY_SOCKET for the programs.
func (i *Inbox) Address() string { return i.address }

// Serve reads datagrams until Close. It calls told with each, and with the pid of its
// sender.
func (i *Inbox) Serve(told func(pid int, n Notice)) {
	var b [maxNotice]byte
	oob := make([]byte, unix.CmsgSpace(unix.SizeofUcred)+unix.CmsgSpace(253*4)) // SCM_MAX_FD
	for {
		n, oobn, flags, _, err := i.conn.ReadMsgUnix(b[:], oob)
		if err != nil {
			return // closed
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

// sender returns the pid of a datagram's sender, as the kernel tells it, and the
// descriptors that came with the datagram.
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
