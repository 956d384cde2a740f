package systemd

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net"
	"os"
	"sync"
	"syscall"
	"time"

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
	served  chan struct{} // closed at the end of Serve

	mu     sync.Mutex
	wanted chan struct{} // closed at the end of the pause; nil if there is none
	parked chan struct{} // closed when Serve rests
}

func newInbox(c *net.UnixConn, address string) *Inbox {
	return &Inbox{conn: c, address: address, served: make(chan struct{})}
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
	return newInbox(c.(*net.UnixConn), address), nil
}

// State returns the Inbox as data, for the program that replaces this one in the same
// process. The descriptor stays the Inbox's.
func (i *Inbox) State() InboxState {
	s := InboxState{-1, i.address}
	if rc, err := i.conn.SyscallConn(); err == nil {
		rc.Control(func(fd uintptr) { s.FD = int(fd) })
	}
	return s
}

// RestoreInbox returns the Inbox of a state, and takes over its descriptor. It is nil if
// that was closed.
func RestoreInbox(s InboxState) (*Inbox, error) {
	if s.FD < 0 {
		return nil, nil
	}
	f := os.NewFile(uintptr(s.FD), "inbox")
	defer f.Close()
	c, err := net.FilePacketConn(f)
	if err != nil {
		return nil, fmt.Errorf("inbox: %w", err)
	}
	return newInbox(c.(*net.UnixConn), s.Address), nil
}

// Pause keeps Serve from taking anything more: what comes waits in the socket. It returns
// ctx's error if told does not return. Resume has to be called in any case.
func (i *Inbox) Pause(ctx context.Context) error {
	i.mu.Lock()
	i.wanted, i.parked = make(chan struct{}), make(chan struct{})
	parked := i.parked
	i.mu.Unlock()
	i.conn.SetReadDeadline(time.Unix(1, 0))
	select {
	case <-parked:
		return nil
	case <-i.served:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Resume ends the pause.
func (i *Inbox) Resume() {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.wanted != nil {
		i.conn.SetReadDeadline(time.Time{})
		close(i.wanted)
		i.wanted, i.parked = nil, nil
	}
}

// rest waits for the end of a pause.
func (i *Inbox) rest() {
	i.mu.Lock()
	wanted, parked := i.wanted, i.parked
	i.mu.Unlock()
	if wanted != nil {
		close(parked)
		<-wanted
	}
}

// Address returns the value of NOTIFY_SOCKET for the programs.
func (i *Inbox) Address() string { return i.address }

// Serve reads datagrams until Close. It calls told with each, and with the pid of its
// sender.
func (i *Inbox) Serve(told func(pid int, n Notice)) {
	defer close(i.served)
	var b [maxNotice]byte
	oob := make([]byte, unix.CmsgSpace(unix.SizeofUcred)+unix.CmsgSpace(253*4)) // SCM_MAX_FD
	for {
		n, oobn, flags, _, err := i.conn.ReadMsgUnix(b[:], oob)
		if errors.Is(err, os.ErrDeadlineExceeded) {
			i.rest()
			continue
		}
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
