package channel

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/windows"

	"github.com/go-cluster/cluster/internal/handle"
)

// Channel is one end of the named pipe between the master and a worker: bytes
// both ways. It is overlapped. Reads go through the runtime's poller. Writes do not, since
// the poller has no write that returns when the pipe is full: see Send. One goroutine
// receives and one at a time sends.
type Channel struct {
	f  *os.File
	rc syscall.RawConn

	mu      sync.Mutex
	closed  bool
	stop    chan struct{} // closed by Interrupt
	stopped bool          // stop is closed

	out outgoing // of the goroutine that sends

	peer   int            // the process that has the other end, in the master
	own    bool           // this process is a worker, and the channel its own
	closer *handle.Closer // closes what a worker has sent; nil in the worker, which trusts its master
}

// Client is the worker's end of a channel as the master has it: a handle that
// is on no completion port, since the worker puts it on its own.
type Client windows.Handle

// Close closes it in this process.
func (e Client) Close() error { return windows.CloseHandle(windows.Handle(e)) }

// Pair returns the master's end of a new channel and the end for a
// worker to inherit.
func Pair() (*Channel, Client, error) {
	server, client, err := newPipe()
	if err != nil {
		return nil, 0, err
	}
	ours, err := open(server)
	if err != nil {
		windows.CloseHandle(client)
		return nil, 0, err
	}
	ours.closer = new(handle.Closer)
	return ours, Client(client), nil
}

// open takes ownership of h, an overlapped end of a pipe.
func open(h windows.Handle) (*Channel, error) {
	c := &Channel{f: os.NewFile(uintptr(h), "cluster-channel"), stop: make(chan struct{})}
	var err error
	if c.rc, err = c.f.SyscallConn(); err != nil {
		c.f.Close()
		return nil, err
	}
	if c.out.event, err = windows.CreateEvent(nil, 1, 0, nil); err != nil {
		c.f.Close()
		return nil, os.NewSyscallError("CreateEvent", err)
	}
	return c, nil
}

// Inherit makes a channel of the handle that the master left open for
// this worker. It fails when that is none: then the variable that named it was
// inherited from somebody else's worker.
func Inherit(fd int) (*Channel, error) {
	if fd%4 != 0 {
		// Not a handle but a descriptor of the C runtime: the primary is node,
		// which speaks frames of libuv's own over its pipes.
		return nil, ErrForeign
	}
	h := windows.Handle(fd)
	if !isOurPipe(h) {
		return nil, fmt.Errorf("handle %#x is not a channel", fd)
	}
	// What this worker starts itself must not hold the channel open, or the
	// master would never see its end.
	windows.SetHandleInformation(h, windows.HANDLE_FLAG_INHERIT, 0)
	c, err := open(h)
	if err != nil {
		return nil, err
	}
	c.own = true
	return c, nil
}

// Input is what one read returned.
type Input struct {
	Data [FullRead]byte
	N    int   // of data
	FDs  []int // none: sockets come in the messages, see claim

	Lines [][]byte // room for the receiver, to list what it finds in Data
}

// inputs are the buffers. An overlapped read needs one from its beginning: a
// channel that is idle has one, unlike on Unix.
var inputs = sync.Pool{New: func() any { return new(Input) }}

// Free gives the buffer back: its data is gone, its descriptors are not closed.
func (in *Input) Free() {
	in.N = 0
	in.clearLines()
	inputs.Put(in)
}

// Recv waits for input. Whatever err is, in has to be freed unless it is nil.
// The error is io.EOF at the end, and os.ErrDeadlineExceeded after Interrupt.
func (c *Channel) Recv() (in *Input, err error) {
	in = inputs.Get().(*Input)
	in.N, err = c.f.Read(in.Data[:])
	if err == nil || in.N > 0 {
		return in, nil
	}
	in.Free()
	switch {
	case err == io.EOF, errors.Is(err, windows.ERROR_BROKEN_PIPE), errors.Is(err, windows.ERROR_PIPE_NOT_CONNECTED), errors.Is(err, windows.ERROR_NO_DATA):
		return nil, io.EOF
	case errors.Is(err, os.ErrDeadlineExceeded):
		return nil, os.ErrDeadlineExceeded
	case errors.Is(err, os.ErrClosed):
		return nil, os.ErrClosed
	}
	return nil, err
}

// TryRecv is Recv without the wait: it returns ErrWouldBlock instead. It is for
// after Interrupt, which it undoes where there is something to read.
func (c *Channel) TryRecv() (in *Input, err error) {
	for {
		n := 0
		ctlErr := c.rc.Control(func(h uintptr) { n, err = peekPipe(windows.Handle(h)) })
		switch {
		case ctlErr != nil:
			return nil, os.ErrClosed
		case err != nil:
			return nil, io.EOF
		case n == 0:
			return nil, ErrWouldBlock
		}
		c.Resume()
		if in, err = c.Recv(); err != os.ErrDeadlineExceeded { // interrupted once more
			return in, err
		}
	}
}

// Unread is how many bytes Recv would return without waiting.
func (c *Channel) Unread() (n int) {
	c.rc.Control(func(h uintptr) { n, _ = peekPipe(windows.Handle(h)) })
	return n
}

// outgoing is the write under way. The kernel has its address, so it is a part
// of the channel, which is on the heap, and the heap does not move.
type outgoing struct {
	ov      windows.Overlapped
	event   windows.Handle // set by the end of a write; the kernel resets it when one begins
	buf     []byte         // of a write that has not ended, or whose end send has not seen
	pending bool           // there is one
	waiting bool           // WaitRoom waits for the event
}

// Send gives the pipe p, or a part of it, and returns how much it has taken.
// When the pipe is full the write has begun all the same, and cannot be taken
// back, as the reader may have had a part of it. So after ErrWouldBlock the next
// Send has to be of the same bytes; it returns how that write has ended.
func (c *Channel) Send(p []byte, _ int) (n int, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	o := &c.out
	switch {
	case c.closed:
		return 0, os.ErrClosed
	case o.pending:
		n, err = c.endedWrite()
	default:
		n, err = c.beginWrite(p[:min(len(p), pipeBuffer)])
	}
	switch err {
	case windows.ERROR_IO_PENDING, windows.ERROR_IO_INCOMPLETE:
		o.pending = true
		return 0, ErrWouldBlock
	}
	o.pending, o.buf = false, nil
	return n, os.NewSyscallError("WriteFile", err)
}

// IsNoRoom reports whether send is to be tried again after WaitRoom.
func IsNoRoom(err error) bool { return err == ErrWouldBlock }

// WaitRoom waits until the pipe has taken what it was given last.
func (c *Channel) WaitRoom(error) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return os.ErrClosed
	}
	c.out.waiting = true
	c.mu.Unlock()
	err := handle.Await(c.out.event)
	c.mu.Lock()
	c.out.waiting = false
	if c.closed {
		c.letGo()
		return os.ErrClosed
	}
	return err
}

// beginWrite is one WriteFile. Its completion goes to the event and, as the low
// bit says, not to the completion port.
func (c *Channel) beginWrite(p []byte) (n int, err error) {
	o := &c.out
	o.buf = p
	o.ov = windows.Overlapped{HEvent: o.event | 1}
	ctlErr := c.rc.Control(func(h uintptr) { err = windows.WriteFile(windows.Handle(h), o.buf, nil, &o.ov) })
	if ctlErr != nil {
		return 0, os.ErrClosed
	}
	return int(o.ov.InternalHigh), err
}

// endedWrite is how that ended, or ERROR_IO_INCOMPLETE.
func (c *Channel) endedWrite() (n int, err error) {
	var done uint32
	ctlErr := c.rc.Control(func(h uintptr) {
		err = windows.GetOverlappedResult(windows.Handle(h), &c.out.ov, &done, false)
	})
	if ctlErr != nil {
		return 0, os.ErrClosed
	}
	return int(done), err
}

// letGo frees what a write needs, once the kernel needs it no more. c.mu is held,
// and the channel closed.
func (c *Channel) letGo() {
	if c.out.pending {
		windows.WaitForSingleObject(c.out.event, windows.INFINITE) // it was cancelled
		c.out.pending, c.out.buf = false, nil
	}
	windows.CloseHandle(c.out.event)
}

// hangupPoll is how often WaitHangup looks: a pipe tells nobody that its other
// end is closed while there is something to read.
const hangupPoll = 50 * time.Millisecond

// WaitHangup returns true when the peer has closed its end, even while data of
// it is unread, or false after Interrupt. It must not run at the same time as
// Recv.
func (c *Channel) WaitHangup() bool {
	ticker := time.NewTicker(hangupPoll)
	defer ticker.Stop()
	for {
		c.mu.Lock()
		stop := c.stop
		c.mu.Unlock()
		select {
		case <-stop:
			return false
		default:
		}
		gone := true
		c.rc.Control(func(h uintptr) { gone = pipeClosed(windows.Handle(h)) })
		if gone {
			return true
		}
		select {
		case <-stop:
			return false
		case <-ticker.C:
		}
	}
}

// Resume undoes Interrupt.
func (c *Channel) Resume() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.stopped {
		c.stop, c.stopped = make(chan struct{}), false
	}
	c.f.SetReadDeadline(time.Time{})
}

// Interrupt makes Recv and WaitHangup return, now or when they are next called,
// until Resume.
func (c *Channel) Interrupt() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.stopped {
		close(c.stop)
		c.stopped = true
	}
	c.f.SetReadDeadline(time.Unix(1, 0))
}

// Close closes this end; a Recv or Send under way returns. The peer can still read what
// the pipe has taken.
func (c *Channel) Close() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return
	}
	c.closed = true
	c.rc.Control(func(h uintptr) { windows.CancelIoEx(windows.Handle(h), &c.out.ov) })
	c.f.Close()
	if !c.out.waiting {
		c.letGo()
	}
}

// SetPeer tells the channel which process has the other end. It is called before the
// first Attach.
func (c *Channel) SetPeer(pid int) { c.peer = pid }

// A socket goes as a member "socket" at the end of its line.
const (
	memberHead = `,"socket":"`
	memberTail = "\"}\n"

	// AttachRoom is how many bytes Attach adds to a line at most.
	AttachRoom = len(memberHead) + handle.TextLen + 1
)

// Attach puts h's socket, as text, into the line that is to carry it. Nothing goes beside
// the line. For a worker the text is what WSADuplicateSocket returns for its process. If
// that fails, as when the worker has just died, the line goes without a socket, and the
// peer answers that none came. For the master the text is the number that the socket has
// in this process, from where the master fetches it.
//
// h is kept, and has to be released when the peer has the socket: the master may fetch it
// late, and a socket that WSADuplicateSocket has given to a process is certain to live on
// only when that process has opened it.
func (c *Channel) Attach(line []byte, h *handle.Handle) (carrier []byte, beside, kept *handle.Handle) {
	text := strconv.Itoa(h.FD())
	if !c.own {
		var err error
		if text, err = handle.Duplicate(h.Socket(), c.peer); err != nil {
			return line, nil, nil
		}
	}
	head := line[:len(line)-len("}\n")]
	return append(append(append(head[:len(head):len(head)], memberHead...), text...), memberTail...), nil, h.Retain()
}

// Claim takes the socket that should have come with a line. It returns nil if there is
// none. The master never adopts a socket by a worker's text: that would name a handle of
// the master's own, so a worker could make the master close any. It fetches the worker's.
func (c *Channel) Claim(line []byte, fds []int) (h *handle.Handle, rest []int) {
	var carrier struct {
		Socket string `json:"socket"`
	}
	if json.Unmarshal(line, &carrier) != nil {
		return nil, fds
	}
	var err error
	if c.own {
		h, err = handle.Adopt(carrier.Socket)
	} else {
		h, err = handle.Fetch(carrier.Socket, c.peer)
	}
	if err != nil {
		return nil, fds
	}
	if c.closer != nil {
		h.CloseBy(c.closer.Later)
	}
	return h, fds
}

// Drop does nothing: no descriptors come beside the bytes.
func (*Channel) Drop([]int) {}

// Descriptor is -1: no other program of this process can go on with a pipe.
func (*Channel) Descriptor() int { return -1 }

// Restore fails.
func Restore(int) (*Channel, error) { return nil, errors.ErrUnsupported }
