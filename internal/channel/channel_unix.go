//go:build unix

package channel

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

// Channel is one end of the socketpair between the master and a worker: bytes
// both ways, and descriptors beside them. It is non-blocking and on the
// runtime's poller. One goroutine receives and one at a time sends.
type Channel struct {
	f  *os.File
	rc syscall.RawConn

	in  incoming // of the goroutine that receives
	out outgoing // of the goroutine that sends

	closer *handle.Closer // closes what a worker has sent; nil in the worker, which trusts its master
}

// incoming is the receive under way, and outgoing the send. The functions that the poller
// calls are made once: a closure for each call would be three more allocations.
type incoming struct {
	wait func(fd uintptr) bool // receives, and reports false to be called again
	try  func(fd uintptr)      // receives
	got  *Input
	err  error
}

type outgoing struct {
	try func(fd uintptr) // sends
	p   []byte
	oob []byte
	n   int
	err error
}

// maxDescriptors is how many descriptors one message can carry (SCM_MAX_FD of Linux). With
// less room the kernel cuts the list off and closes the rest, silently.
const maxDescriptors = 253

// Pair returns the master's end of a new channel and the end to hand
// to a worker. The worker's end is blocking, as node's is; each side has its
// own open file description, so that only the worker sees when it changes it.
func Pair() (*Channel, *os.File, error) {
	fds, err := socketpair()
	if err != nil {
		return nil, nil, os.NewSyscallError("socketpair", err)
	}
	theirs := os.NewFile(uintptr(fds[1]), "cluster-channel")
	ours, err := open(fds[0])
	if err != nil {
		theirs.Close()
		return nil, nil, err
	}
	ours.closer = new(handle.Closer)
	return ours, theirs, nil
}

// open takes ownership of fd.
func open(fd int) (*Channel, error) {
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
	c := &Channel{f: f, rc: rc}
	c.in.try = func(fd uintptr) { c.in.got, c.in.err = receive(int(fd)) }
	c.in.wait = func(fd uintptr) bool {
		c.in.try(fd)
		return c.in.err != ErrWouldBlock
	}
	c.out.try = c.out.send
	return c, nil
}

// Inherit makes a channel of the descriptor that the master left open
// for this worker. It fails when fd is not a connected stream socket: then the
// variable that named it was inherited from somebody else's worker.
func Inherit(fd int) (*Channel, error) {
	typ, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_TYPE)
	if err != nil {
		return nil, os.NewSyscallError("getsockopt", err)
	}
	sa, err := unix.Getsockname(fd)
	if err != nil {
		return nil, os.NewSyscallError("getsockname", err)
	}
	// A channel's ends have no names. A socket that has one belongs to a log, or to a
	// service.
	peer, _ := unix.Getpeername(fd)
	if isNamed(sa) || isNamed(peer) || fd == 1 || fd == 2 {
		return nil, fmt.Errorf("descriptor %d is not a channel", fd)
	}
	// Not by getpeername: that fails on some systems when the master has died already,
	// and its worker must not take itself for a master then.
	listens, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_ACCEPTCONN)
	if _, ok := sa.(*unix.SockaddrUnix); !ok || typ != unix.SOCK_STREAM || err == nil && listens != 0 {
		return nil, fmt.Errorf("descriptor %d is not a channel", fd)
	}
	// A process that this worker starts must not hold the channel open, or the
	// master would never see its end.
	unix.CloseOnExec(fd)
	return open(fd)
}

// Descriptor is the number of this end, which stays the Channel's.
func (c *Channel) Descriptor() (n int) {
	n = -1
	c.rc.Control(func(fd uintptr) { n = int(fd) })
	return n
}

// Restore makes the master's end of a channel of the descriptor that another program of
// this process had. It takes the descriptor over.
func Restore(fd int) (*Channel, error) {
	c, err := open(fd)
	if err == nil {
		c.closer = new(handle.Closer)
	}
	return c, err
}

// isNamed reports whether sa is a unix socket's address that somebody has chosen.
func isNamed(sa unix.Sockaddr) bool {
	u, ok := sa.(*unix.SockaddrUnix)
	return ok && u.Name != "" && u.Name != "@" // so x/sys shows none
}

// Input is what one recvmsg returned. The descriptors are the receiver's to
// close.
type Input struct {
	Data [FullRead]byte
	N    int                         // of data
	oob  [maxDescriptors*4 + 64]byte // and room for its header
	FDs  []int

	Lines [][]byte // room for the receiver, to list what it finds in Data
}

// inputs are the buffers. They are taken when there is something to receive: a
// channel that is idle has none.
var inputs = sync.Pool{New: func() any { return new(Input) }}

// Free gives the buffer back: its data is gone, its descriptors are not closed.
func (in *Input) Free() {
	in.N, in.FDs = 0, nil
	in.clearLines()
	inputs.Put(in)
}

// Recv waits for input. Whatever err is, in has to be freed unless it is nil.
// The error is io.EOF at the end, and os.ErrDeadlineExceeded after Interrupt.
func (c *Channel) Recv() (in *Input, err error) {
	waitErr := c.rc.Read(c.in.wait)
	in, err = c.in.taken()
	if waitErr != nil && (err == nil || err == ErrWouldBlock) {
		err = closedError(waitErr)
	}
	return in, err
}

// closedError returns why a wait has ended: after Interrupt, or because this process has
// closed the file. For the second the poller's error is not os.ErrClosed.
func closedError(err error) error {
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return err
	}
	return os.ErrClosed
}

// TryRecv is Recv without the wait: it returns ErrWouldBlock instead.
func (c *Channel) TryRecv() (in *Input, err error) {
	ctlErr := c.rc.Control(c.in.try)
	in, err = c.in.taken()
	if ctlErr != nil {
		return nil, closedError(ctlErr)
	}
	return in, err
}

// taken returns what was received, and forgets it.
func (i *incoming) taken() (in *Input, err error) {
	in, err = i.got, i.err
	i.got, i.err = nil, nil
	return in, err
}

// Unread is how many bytes Recv would return without waiting.
func (c *Channel) Unread() (n int) {
	c.rc.Control(func(fd uintptr) { n, _ = unix.IoctlGetInt(int(fd), fionread) })
	return n
}

// receive is one recvmsg.
func receive(fd int) (in *Input, err error) {
	in = inputs.Get().(*Input)
	var oobn int
	for {
		in.N, oobn, in.FDs, err = recvmsgCloexec(fd, in.Data[:], in.oob[:])
		if err != unix.EINTR {
			break
		}
	}
	if err == nil && (in.N > 0 || oobn > 0) {
		return in, nil
	}
	in.Free()
	switch err {
	case nil, unix.ECONNRESET:
		// On a unix socket a reset says only that the peer closed its end before it
		// had read all.
		return nil, io.EOF
	case unix.EAGAIN:
		return nil, ErrWouldBlock
	}
	return nil, os.NewSyscallError("recvmsg", err)
}

// ParseRights returns the descriptors in a control message. If that cannot be parsed, the
// kernel has cut it off and closed the rest.
func ParseRights(oob []byte) (fds []int) {
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

// Send gives the kernel as much of p as it takes now, with fd (unless it is
// negative) attached to the first byte.
func (c *Channel) Send(p []byte, fd int) (n int, err error) {
	o := &c.out
	o.p, o.oob = p, nil
	if fd >= 0 {
		o.oob = unix.UnixRights(fd)
	}
	ctlErr := c.rc.Control(o.try)
	n, err = o.n, o.err
	o.p, o.oob, o.n, o.err = nil, nil, 0, nil
	switch {
	case ctlErr != nil:
		return 0, closedError(ctlErr)
	case err == unix.EAGAIN:
		return 0, ErrWouldBlock
	case err == unix.ETOOMANYREFS || err == unix.ENOBUFS:
		return 0, errExhausted
	case err != nil:
		return 0, os.NewSyscallError("sendmsg", err)
	}
	return n, nil
}

// send is one sendmsg.
func (o *outgoing) send(fd uintptr) {
	for {
		if o.n, o.err = unix.SendmsgN(int(fd), o.p, o.oob, nil, sendFlags); o.err != unix.EINTR {
			return
		}
	}
}

// errExhausted says that the system has no room, though this channel has: this
// user has more descriptors under way, in all its processes, than it may have
// open, or the kernel is short of memory.
var errExhausted = errors.New("channel: system resources exhausted")

// exhaustedPause is how long WaitRoom waits then: no event tells when that has ended.
const exhaustedPause = 10 * time.Millisecond

// IsNoRoom reports whether send is to be tried again after WaitRoom.
func IsNoRoom(err error) bool { return err == ErrWouldBlock || err == errExhausted }

// WaitRoom waits until the kernel takes more.
func (c *Channel) WaitRoom(noRoom error) error {
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

// WaitHangup returns true when the peer has closed its end, even while data of
// it is unread, or false after Interrupt. It must not run at the same time as
// Recv.
func (c *Channel) WaitHangup() bool {
	err := c.rc.Read(func(fd uintptr) bool {
		p := []unix.PollFd{{Fd: int32(fd)}}
		_, err := unix.Poll(p, 0)
		return err == nil && p[0].Revents&unix.POLLHUP != 0
	})
	return err == nil
}

// Resume undoes Interrupt.
func (c *Channel) Resume() { c.f.SetReadDeadline(time.Time{}) }

// Interrupt makes Recv and WaitHangup return, now or when they are next called,
// until Resume.
func (c *Channel) Interrupt() { c.f.SetReadDeadline(time.Unix(1, 0)) }

// Close closes this end; a Recv or Send under way returns. With the last descriptor of the
// channel the kernel closes what the worker has sent and nobody has received, which may
// take for ever. So the closer closes the last one, a duplicate, after the file's own.
func (c *Channel) Close() {
	last := -1
	if c.closer != nil {
		c.rc.Control(func(fd uintptr) {
			dup, err := unix.FcntlInt(fd, unix.F_DUPFD_CLOEXEC, 0)
			if err != nil {
				return
			}
			last = dup
			unix.Shutdown(last, unix.SHUT_RDWR) // the worker sees the end now
		})
	}
	c.f.Close()
	if last >= 0 {
		c.closer.Later(last)
	}
}

// AttachRoom is how many bytes Attach adds to a line: none.
const AttachRoom = 0

// Attach returns what carries h to the peer: the line as it is, and the descriptor
// beside it. kept has to be released when the peer has the descriptor; here it is nil.
func (c *Channel) Attach(line []byte, h *handle.Handle) (carrier []byte, beside, kept *handle.Handle) {
	return line, h.Retain(), nil
}

// Claim takes the descriptor that should have come with a line: the oldest of fds. It
// returns nil if there is none. rest is what is left of fds.
func (c *Channel) Claim(_ []byte, fds []int) (h *handle.Handle, rest []int) {
	if len(fds) == 0 {
		return nil, nil
	}
	h = handle.New(fds[0])
	if c.closer != nil {
		h.CloseBy(c.closer.Later)
	}
	return h, fds[1:]
}

// SetPeer tells the channel which process has the other end.
func (c *Channel) SetPeer(int) {}

// Drop closes received descriptors that nobody claims.
func (c *Channel) Drop(fds []int) {
	for _, fd := range fds {
		if c.closer != nil {
			c.closer.Later(fd)
		} else {
			unix.Close(fd)
		}
	}
}
