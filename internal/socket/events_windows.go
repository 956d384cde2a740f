package socket

import (
	"io"
	"sync"
	"syscall"
	"time"

	"github.com/go-cluster/cluster/internal/handle"
	"golang.org/x/sys/windows"
)

// events reads and writes by calls that report to events, for a connection that is on
// another process's completion port. That process may go on using it. A read or write takes
// longer than that of an os.File, since a thread of the system waits for the event.
//
// At most one read and one write are under way. Meanwhile reading or writing is held, which
// is taken before any other lock.
type events struct {
	in, out          *calls // hold the socket
	reading, writing sync.Mutex
}

var _ waiter = (*events)(nil)

func newEvents(h *handle.Handle) *events { return &events{in: newCalls(h), out: newCalls(h)} }

// maxWrite bounds how much the kernel gets at once, in bytes: it keeps that in memory until
// it is sent.
const maxWrite = 1 << 20

func startRead(s windows.Handle, o *overlapped) error {
	b := bufOf(o.p)
	o.flags = 0
	return windows.WSARecv(s, &b, 1, nil, &o.flags, &o.ov, nil)
}

func startWrite(s windows.Handle, o *overlapped) error {
	b := bufOf(o.p)
	return windows.WSASend(s, &b, 1, nil, 0, &o.ov, nil)
}

func bufOf(p []byte) (b windows.WSABuf) {
	if len(p) > 0 {
		b = windows.WSABuf{Len: uint32(len(p)), Buf: &p[0]}
	}
	return b
}

func (e *events) Read(p []byte) (n int, err error) {
	e.reading.Lock()
	defer e.reading.Unlock()
	o, err := e.in.begin()
	if err != nil {
		return 0, err
	}
	defer e.in.end(o)
	if len(p) == 0 {
		return 0, nil
	}
	if err := e.read(o, p[:min(len(p), maxWrite)]); err != nil {
		return 0, err
	}
	if o.n == 0 {
		return 0, io.EOF
	}
	return int(o.n), nil
}

// read makes one read. If p is empty, it only waits until there is something to read.
func (e *events) read(o *overlapped, p []byte) error {
	o.p = p
	for {
		err := e.in.do(o, startRead)
		if err != windows.ERROR_OPERATION_ABORTED {
			return err
		}
		// The thread that began the call has ended, and the system has ended the call.
	}
}

func (e *events) Write(p []byte) (n int, err error) {
	e.writing.Lock()
	defer e.writing.Unlock()
	o, err := e.out.begin()
	if err != nil {
		return 0, err
	}
	defer e.out.end(o)
	for n < len(p) && err == nil {
		o.p = p[n:min(len(p), n+maxWrite)]
		o.ov.InternalHigh = 0
		err = e.out.do(o, startWrite)
		n += min(int(o.ov.InternalHigh), len(o.p)) // right for a write that was ended half way, too
	}
	return n, err
}

// Close ends all reads and writes.
func (e *events) Close() error {
	e.in.close()
	e.out.close()
	return nil
}

func (e *events) SetDeadline(t time.Time) error {
	if err := e.in.setDeadline(t); err != nil {
		return err
	}
	return e.out.setDeadline(t)
}

func (e *events) SetReadDeadline(t time.Time) error  { return e.in.setDeadline(t) }
func (e *events) SetWriteDeadline(t time.Time) error { return e.out.setDeadline(t) }

func (e *events) SyscallConn() (syscall.RawConn, error) { return rawEvents{e}, nil }

// rawEvents is what SyscallConn returns.
type rawEvents struct{ e *events }

func (r rawEvents) Control(f func(fd uintptr)) error { return r.e.in.control(f) }

func (r rawEvents) Read(f func(fd uintptr) bool) error {
	r.e.reading.Lock()
	defer r.e.reading.Unlock()
	o, err := r.e.in.begin()
	if err != nil {
		return err
	}
	defer r.e.in.end(o)
	for !f(uintptr(r.e.in.h.FD())) {
		if err := r.e.read(o, nil); err != nil {
			return err
		}
	}
	return nil
}

// Write cannot wait, as package net's cannot: the system does not tell when there is room.
func (r rawEvents) Write(f func(fd uintptr) bool) error {
	r.e.writing.Lock()
	defer r.e.writing.Unlock()
	done := false
	if err := r.e.out.control(func(s uintptr) { done = f(s) }); err != nil {
		return err
	}
	if !done {
		return syscall.EWINDOWS
	}
	return nil
}
