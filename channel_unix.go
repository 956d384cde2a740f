//go:build unix

package cluster

import (
	"errors"
	"fmt"
	"io"
	"os"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// channel is one end of the socketpair between the master and a worker: bytes
// both ways, and descriptors beside them. It is non-blocking and on the
// runtime's poller. One goroutine receives and one at a time sends.
type channel struct {
	f   *os.File
	rc  syscall.RawConn
	oob []byte // room for the control message of one recvmsg; the receiver's
}

// maxDescriptors is what one message can carry (SCM_MAX_FD of Linux). With
// less room the kernel cuts the list off and closes the rest, silently.
const maxDescriptors = 253

// errWouldBlock says that the kernel's buffer is full.
var errWouldBlock = errors.New("channel: would block")

// newChannelPair returns the master's end of a new channel and the end to hand
// to a worker. The worker's end is blocking, as node's is; each side has its
// own open file description, so that only the worker sees when it changes it.
func newChannelPair() (*channel, *os.File, error) {
	fds, err := socketpair()
	if err != nil {
		return nil, nil, os.NewSyscallError("socketpair", err)
	}
	theirs := os.NewFile(uintptr(fds[1]), "cluster-channel")
	ours, err := newChannel(fds[0])
	if err != nil {
		theirs.Close()
		return nil, nil, err
	}
	return ours, theirs, nil
}

// newChannel takes ownership of fd.
func newChannel(fd int) (*channel, error) {
	if err := unix.SetNonblock(fd, true); err != nil {
		unix.Close(fd)
		return nil, os.NewSyscallError("fcntl", err)
	}
	f := os.NewFile(uintptr(fd), "cluster-channel")
	rc, err := f.SyscallConn()
	if err != nil {
		f.Close()
		return nil, err
	}
	return &channel{f: f, rc: rc, oob: make([]byte, unix.CmsgSpace(maxDescriptors*4))}, nil
}

// inheritChannel makes a channel of the descriptor that the master left open
// for this worker. It fails when fd is not a connected stream socket: then the
// variable that named it was inherited from somebody else's worker.
func inheritChannel(fd int) (*channel, error) {
	typ, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_TYPE)
	if err != nil {
		return nil, os.NewSyscallError("getsockopt", err)
	}
	sa, err := unix.Getsockname(fd)
	if err != nil {
		return nil, os.NewSyscallError("getsockname", err)
	}
	// Asked this way, as getpeername fails on some systems when the master has
	// died already, and its worker must not take itself for a master then.
	listens, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_ACCEPTCONN)
	if _, ok := sa.(*unix.SockaddrUnix); !ok || typ != unix.SOCK_STREAM || err == nil && listens != 0 {
		return nil, fmt.Errorf("descriptor %d is not a channel", fd)
	}
	// What this worker starts itself must not hold the channel open, or the
	// master would never see its end.
	unix.CloseOnExec(fd)
	return newChannel(fd)
}

// recv waits for bytes. It returns io.EOF at the end, and os.ErrDeadlineExceeded
// after interrupt. The descriptors are the caller's to close, whatever err is.
func (c *channel) recv(p []byte) (n int, fds []int, err error) {
	waitErr := c.rc.Read(func(fd uintptr) bool {
		n, fds, err = c.recvmsg(int(fd), p)
		return err != errWouldBlock
	})
	if waitErr != nil && (err == nil || err == errWouldBlock) {
		err = closedError(waitErr)
	}
	return n, fds, err
}

// closedError is what became of a wait: the poller's error for a file closed by
// this process is not os.ErrClosed.
func closedError(err error) error {
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return err
	}
	return os.ErrClosed
}

// tryRecv is recv without the wait: it returns errWouldBlock instead.
func (c *channel) tryRecv(p []byte) (n int, fds []int, err error) {
	ctlErr := c.rc.Control(func(fd uintptr) { n, fds, err = c.recvmsg(int(fd), p) })
	if ctlErr != nil {
		return 0, nil, closedError(ctlErr)
	}
	return n, fds, err
}

// unread is how many bytes recv would return without waiting.
func (c *channel) unread() (n int) {
	c.rc.Control(func(fd uintptr) { n, _ = unix.IoctlGetInt(int(fd), fionread) })
	return n
}

func (c *channel) recvmsg(fd int, p []byte) (n int, fds []int, err error) {
	for {
		var oobn int
		n, oobn, fds, err = recvmsgCloexec(fd, p, c.oob)
		if err == unix.EINTR {
			continue
		}
		switch {
		case err == unix.EAGAIN:
			return 0, nil, errWouldBlock
		case err == unix.ECONNRESET:
			// On a unix socket this only says that the peer closed its end with
			// data of ours unread.
			return 0, nil, io.EOF
		case err != nil:
			return 0, nil, os.NewSyscallError("recvmsg", err)
		case n == 0 && oobn == 0:
			return 0, nil, io.EOF
		}
		return n, fds, nil
	}
}

// parseRights returns the descriptors in a control message. What cannot be
// parsed was cut off by the kernel, which then has closed the rest.
func parseRights(oob []byte) (fds []int) {
	if len(oob) == 0 {
		return nil
	}
	msgs, err := unix.ParseSocketControlMessage(oob)
	if err != nil {
		return nil
	}
	for i := range msgs {
		if got, err := unix.ParseUnixRights(&msgs[i]); err == nil {
			fds = append(fds, got...)
		}
	}
	return fds
}

// send gives the kernel as much of p as it takes now, with fd (unless it is
// negative) attached to the first byte. When it takes nothing, send waits for
// room, or, if wait is false, returns errWouldBlock.
func (c *channel) send(p []byte, fd int, wait bool) (n int, err error) {
	var oob []byte
	if fd >= 0 {
		oob = unix.UnixRights(fd)
	}
	try := func(s uintptr) bool {
		for {
			n, err = unix.SendmsgN(int(s), p, oob, nil, sendFlags)
			if err != unix.EINTR {
				return err != unix.EAGAIN && err != unix.ENOBUFS
			}
		}
	}
	var connErr error
	if wait {
		connErr = c.rc.Write(try)
	} else {
		connErr = c.rc.Control(func(s uintptr) { try(s) })
	}
	switch {
	case connErr != nil:
		return 0, closedError(connErr)
	case err == unix.EAGAIN || err == unix.ENOBUFS:
		return 0, errWouldBlock
	case err != nil:
		return 0, os.NewSyscallError("sendmsg", err)
	}
	return n, nil
}

// waitHangup returns true when the peer has closed its end, even while data of
// it is unread, or false after interrupt. It must not run at the same time as
// recv.
func (c *channel) waitHangup() bool {
	err := c.rc.Read(func(fd uintptr) bool {
		p := []unix.PollFd{{Fd: int32(fd)}}
		_, err := unix.Poll(p, 0)
		return err == nil && p[0].Revents&unix.POLLHUP != 0
	})
	return err == nil
}

// resume undoes interrupt.
func (c *channel) resume() { c.f.SetReadDeadline(time.Time{}) }

// interrupt makes recv and waitHangup return, now or when they are next called,
// until resume.
func (c *channel) interrupt() { c.f.SetReadDeadline(time.Unix(1, 0)) }

// close closes this end; a recv or send under way returns.
func (c *channel) close() { c.f.Close() }

// closeDescriptors closes received descriptors that nobody claims.
func closeDescriptors(fds []int) {
	for _, fd := range fds {
		unix.Close(fd)
	}
}
