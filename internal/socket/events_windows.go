package socket

import (
	"io"
	"sync"
	"syscall"
	"time"

	"github.com/go-cluster/cluster/internal/handle"
	"golang.org/x/sys/windows"
)

// events reads and writes by calls that report to events, for a connection that is
// on another process's completion port. That process may go on using it. A read or
// write takes longer than one of an os.File, by the thread of the system that waits
// for the event.
//
// One read and one write at a time is under way. reading and writing are held
// meanwhile, and no other lock before them.
type events struct {
	in, out          *calls // which hold the socket
	reading, writing sync.Mutex
}

var _ waiter = (*events)(nil)

func newEvents(h *handle.Handle) *events { return &events{in: newCalls(h), out: newCalls(h)} }

// maxWrite is how much is given to the kernel at once, in bytes: it keeps that in
// memory until it is sent.
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

// read is one read. Without room in p it only waits until there is something.
func (e *events) read(o *overlapped, p []byte) error {
	o.p = p
	for {
		err := e.in.do(o, startRead)
		if err != windows.ERROR_OPERATION_ABORTED {
			return err
		}
		// Not by us: the system does that when the thread ends that began it.
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
		n += min(int(o.ov.InternalHigh), len(o.p)) // also of a write that was ended half way
	}
	return n, err
}

// Close ends all that waits.
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

// Write cannot wait: the system does not tell when there is room, and package net's
// does not either.
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
