package socket

import (
	"net"
	"os"
	"runtime"
	"sync"
	"time"

	"github.com/go-cluster/cluster/internal/handle"
	"golang.org/x/sys/windows"
)

// calls are the overlapped calls of one kind (accepts, reads or writes) on a socket that
// other processes may have too. A socket belongs to one completion port: that of the process
// that put it on one first. So each of these calls reports to an event. The low bit of the
// event is set, so that the completion port is not told. All calls end at the deadline and
// at close.
type calls struct {
	h *handle.Handle

	mu      sync.Mutex
	changed chan struct{} // closed, and replaced, by setDeadline and close
	limit   time.Time
	closed  bool
	spare   []*overlapped // not in use
	running sync.WaitGroup
}

// newCalls makes calls on h, and keeps a reference of its own.
func newCalls(h *handle.Handle) *calls {
	return &calls{h: h.Retain(), changed: make(chan struct{})}
}

// overlapped is the memory of one call. The kernel writes to it until the call has ended,
// so it must not move: it is on the heap, and pinned.
type overlapped struct {
	ov    windows.Overlapped
	n     uint32         // bytes
	flags uint32         // of a read
	p     []byte         // read or written
	event windows.Handle // resets itself
	ended *handle.Watch  // of event
	pin   runtime.Pinner
}

func newOverlapped() (*overlapped, error) {
	event, err := windows.CreateEvent(nil, 0, 0, nil)
	if err != nil {
		return nil, os.NewSyscallError("CreateEvent", err)
	}
	o := &overlapped{event: event}
	if o.ended, err = handle.NewWatch(event, false); err != nil {
		windows.CloseHandle(event)
		return nil, err
	}
	o.pin.Pin(o)
	return o, nil
}

func (o *overlapped) free() {
	o.ended.Stop()
	windows.CloseHandle(o.event)
	o.event = 0
	o.pin.Unpin()
}

// begin returns the memory for a call. close waits until end has it back.
func (cs *calls) begin() (*overlapped, error) {
	cs.mu.Lock()
	defer cs.mu.Unlock()
	if err := cs.over(); err != nil {
		return nil, err
	}
	if n := len(cs.spare); n > 0 {
		o := cs.spare[n-1]
		cs.spare = cs.spare[:n-1]
		cs.running.Add(1)
		return o, nil
	}
	o, err := newOverlapped()
	if err == nil {
		cs.running.Add(1)
	}
	return o, err
}

func (cs *calls) end(o *overlapped) {
	cs.mu.Lock()
	defer cs.mu.Unlock()
	o.p = nil
	if cs.closed {
		o.free()
	} else {
		cs.spare = append(cs.spare, o)
	}
	cs.running.Done()
}

// over returns why no call may go on now, or nil. cs.mu is held.
func (cs *calls) over() error {
	switch {
	case cs.closed:
		return net.ErrClosed
	case !cs.limit.IsZero() && !time.Now().Before(cs.limit):
		return os.ErrDeadlineExceeded
	}
	return nil
}

// do makes one call: start begins it, and do waits for its end.
func (cs *calls) do(o *overlapped, start func(s windows.Handle, o *overlapped) error) error {
	cs.mu.Lock()
	why := cs.over() // since begin, or since the caller's last call
	cs.mu.Unlock()
	if why != nil {
		return why
	}
	s := cs.h.Socket()
	o.ov = windows.Overlapped{HEvent: o.event | 1}
	if err := start(s, o); err != nil && err != windows.ERROR_IO_PENDING {
		return err
	}
	if why := cs.wait(o); why != nil {
		return o.abort(s, why, windows.CancelIoEx)
	}
	return o.result(s)
}

// wait returns nil when the call under way has ended, or the reason to end it.
func (cs *calls) wait(o *overlapped) error {
	for {
		if o.done(cs.h.Socket()) { // a signal may have been that of an earlier call
			return nil
		}
		cs.mu.Lock()
		why, limit, changed := cs.over(), cs.limit, cs.changed
		cs.mu.Unlock()
		if why != nil {
			return why
		}
		cs.waitOnce(o, limit, changed)
	}
}

// waitOnce waits until there is something to look at again.
func (cs *calls) waitOnce(o *overlapped, limit time.Time, changed <-chan struct{}) {
	var expired <-chan time.Time
	if !limit.IsZero() {
		timer := time.NewTimer(time.Until(limit))
		defer timer.Stop()
		expired = timer.C
	}
	select {
	case <-o.ended.Signal:
	case <-changed:
	case <-expired:
	}
}

// abort ends the call under way by cancel and returns why, or nil if the call had succeeded
// just before. Closing the socket would not end the call, since other processes have the
// socket too.
func (o *overlapped) abort(s windows.Handle, why error, cancel func(windows.Handle, *windows.Overlapped) error) error {
	cancel(s, &o.ov)
	for !o.done(s) { // cancel does not wait for the end
		<-o.ended.Signal
	}
	switch err := o.result(s); err {
	case windows.ERROR_OPERATION_ABORTED, windows.ERROR_MORE_DATA:
		// Wine returns the second one for a write that ended half way.
		return why
	default:
		return err
	}
}

// done reports whether the call under way has ended.
func (o *overlapped) done(s windows.Handle) bool {
	return o.result(s) != windows.ERROR_IO_INCOMPLETE
}

func (o *overlapped) result(s windows.Handle) error {
	var flags uint32
	return windows.WSAGetOverlappedResult(s, &o.ov, &o.n, false, &flags)
}

func (cs *calls) setDeadline(t time.Time) error {
	cs.mu.Lock()
	defer cs.mu.Unlock()
	if cs.closed {
		return net.ErrClosed
	}
	cs.limit = t
	cs.wake()
	return nil
}

// wake makes every call under way look at limit and closed again. cs.mu is held.
func (cs *calls) wake() {
	close(cs.changed)
	cs.changed = make(chan struct{})
}

// close makes every call under way return, and returns when they have. It reports
// whether it was the first.
func (cs *calls) close() (first bool) {
	cs.mu.Lock()
	first = !cs.closed
	if first {
		cs.closed = true
		cs.wake()
		for _, o := range cs.spare {
			o.free()
		}
		cs.spare = nil
	}
	cs.mu.Unlock()
	cs.running.Wait()
	if first {
		cs.h.Release()
	}
	return first
}

// control calls f with the socket, and keeps it open for that time.
func (cs *calls) control(f func(s uintptr)) error {
	cs.mu.Lock()
	if cs.closed {
		cs.mu.Unlock()
		return net.ErrClosed
	}
	h := cs.h.Retain()
	cs.mu.Unlock()
	defer h.Release()
	f(uintptr(h.FD()))
	return nil
}
