//go:build unix

package cluster

import (
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/go-cluster/cluster/internal/handle"
)

// channel is one end of the socketpair between the master and a worker: bytes
// both ways, and descriptors beside them. It is non-blocking and on the
// runtime's poller. One goroutine receives and one at a time sends.
type channel struct {
	f  *os.File
	rc syscall.RawConn
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
	return &channel{f: f, rc: rc}, nil
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

// input is what one recvmsg returned. The descriptors are the receiver's to
// close.
type input struct {
	data [fullRead]byte
	n    int                         // of data
	oob  [maxDescriptors*4 + 64]byte // and room for its header
	fds  []int
}

// inputs are the buffers. They are taken when there is something to receive: a
// channel that is idle has none.
var inputs = sync.Pool{New: func() any { return new(input) }}

func (in *input) free() {
	in.n, in.fds = 0, nil
	inputs.Put(in)
}

// recv waits for input, which is to be freed, whatever err is; it may be nil.
// The error is io.EOF at the end, and os.ErrDeadlineExceeded after interrupt.
func (c *channel) recv() (in *input, err error) {
	waitErr := c.rc.Read(func(fd uintptr) bool {
		in, err = receive(int(fd))
		return err != errWouldBlock
	})
	if waitErr != nil && (err == nil || err == errWouldBlock) {
		err = closedError(waitErr)
	}
	return in, err
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
func (c *channel) tryRecv() (in *input, err error) {
	ctlErr := c.rc.Control(func(fd uintptr) { in, err = receive(int(fd)) })
	if ctlErr != nil {
		return nil, closedError(ctlErr)
	}
	return in, err
}

// unread is how many bytes recv would return without waiting.
func (c *channel) unread() (n int) {
	c.rc.Control(func(fd uintptr) { n, _ = unix.IoctlGetInt(int(fd), fionread) })
	return n
}

// receive is one recvmsg.
func receive(fd int) (in *input, err error) {
	in = inputs.Get().(*input)
	var oobn int
	for {
		in.n, oobn, in.fds, err = recvmsgCloexec(fd, in.data[:], in.oob[:])
		if err != unix.EINTR {
			break
		}
	}
	if err == nil && (in.n > 0 || oobn > 0) {
		return in, nil
	}
	in.free()
	switch err {
	case nil, unix.ECONNRESET:
		// On a unix socket a reset only says that the peer closed its end with
		// data of ours unread.
		return nil, io.EOF
	case unix.EAGAIN:
		return nil, errWouldBlock
	}
	return nil, os.NewSyscallError("recvmsg", err)
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
// negative) attached to the first byte.
func (c *channel) send(p []byte, fd int) (n int, err error) {
	var oob []byte
	if fd >= 0 {
		oob = unix.UnixRights(fd)
	}
	ctlErr := c.rc.Control(func(s uintptr) {
		for {
			if n, err = unix.SendmsgN(int(s), p, oob, nil, sendFlags); err != unix.EINTR {
				return
			}
		}
	})
	switch {
	case ctlErr != nil:
		return 0, closedError(ctlErr)
	case err == unix.EAGAIN:
		return 0, errWouldBlock
	case err == unix.ETOOMANYREFS || err == unix.ENOBUFS:
		return 0, errExhausted
	case err != nil:
		return 0, os.NewSyscallError("sendmsg", err)
	}
	return n, nil
}

// errExhausted says that the system has no room, though this channel has: this
// user has more descriptors under way, in all its processes, than it may have
// open, or the kernel is short of memory.
var errExhausted = errors.New("channel: system resources exhausted")

// exhaustedPause is how long to wait then: there is no event for the end of it.
const exhaustedPause = 10 * time.Millisecond

// isNoRoom reports whether send is to be tried again after waitRoom.
func isNoRoom(err error) bool { return err == errWouldBlock || err == errExhausted }

// waitRoom waits until the kernel takes more.
func (c *channel) waitRoom(noRoom error) error {
	if noRoom == errExhausted {
		time.Sleep(exhaustedPause)
		return nil
	}
	err := c.rc.Write(func(fd uintptr) bool {
		p := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLOUT}}
		n, err := unix.Poll(p, 0)
		return n > 0 || err != nil && err != unix.EINTR // an error shows in the next send
	})
	if err != nil {
		return closedError(err)
	}
	return nil
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

// attach returns what carries h to the peer: the line as it is, and the
// descriptor beside it.
func (c *channel) attach(line []byte, h *handle.Handle) ([]byte, *handle.Handle) {
	return line, h.Retain()
}

// claim takes the descriptor of a line that should have come with one: the
// oldest of fds. It returns nil if there is none, and what is left of fds.
func (c *channel) claim(_ []byte, fds []int) (h *handle.Handle, rest []int) {
	if len(fds) == 0 {
		return nil, nil
	}
	return handle.New(fds[0]), fds[1:]
}

// setPeer tells the channel which process has the other end.
func (c *channel) setPeer(int) {}

// closeDescriptors closes received descriptors that nobody claims.
func closeDescriptors(fds []int) {
	for _, fd := range fds {
		unix.Close(fd)
	}
}
