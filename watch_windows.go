package cluster

import (
	"os"
	"sync"
	"unsafe"

	"golang.org/x/sys/windows"
)

// watched lets a goroutine wait until a kernel object is signalled. A wait of its
// own would keep a thread in the kernel, and the P for so long that with
// GOMAXPROCS=1, which many a worker has, nothing else would run meanwhile. The
// system's thread pool waits for many, and calls back.
type watched struct {
	signal chan struct{} // gets a value when the object was signalled
	wait   windows.Handle
	id     uintptr
}

// watchers are those that may be called back, by numbers that are never used
// again: a call that comes late finds nothing.
var watchers struct {
	sync.Mutex
	last uintptr
	all  map[uintptr]chan struct{}
}

// kernel32 has what golang.org/x/sys does not wrap.
var (
	kernel32           = windows.NewLazySystemDLL("kernel32.dll")
	procRegisterWait   = kernel32.NewProc("RegisterWaitForSingleObject")
	procUnregisterWait = kernel32.NewProc("UnregisterWaitEx")
	// The system has a few thousand callbacks at most for the life of a process:
	// one does for all.
	watchCallback = sync.OnceValue(func() uintptr { return windows.NewCallback(signalled) })
)

const (
	executeInWaitThread = 0x4 // WT_EXECUTEINWAITTHREAD: signalled does not wait
	executeOnlyOnce     = 0x8 // WT_EXECUTEONLYONCE
)

// watchHandle begins to watch h, which must stay open until stop: for its first signal
// (of a process, of an event that stays set), or every one of an event that
// resets itself.
func watchHandle(h windows.Handle, once bool) (*watched, error) {
	w := &watched{signal: make(chan struct{}, 1)}
	watchers.Lock()
	if watchers.all == nil {
		watchers.all = make(map[uintptr]chan struct{})
	}
	watchers.last++
	w.id = watchers.last
	watchers.all[w.id] = w.signal
	watchers.Unlock()
	flags := uintptr(executeInWaitThread)
	if once {
		flags |= executeOnlyOnce
	}
	ok, _, err := procRegisterWait.Call(uintptr(unsafe.Pointer(&w.wait)), uintptr(h), watchCallback(), w.id, windows.INFINITE, flags)
	if ok == 0 {
		w.forget()
		return nil, os.NewSyscallError("RegisterWaitForSingleObject", err)
	}
	return w, nil
}

// signalled is called by a thread of the system's.
func signalled(id, _ uintptr) uintptr {
	watchers.Lock()
	c := watchers.all[id]
	watchers.Unlock()
	select {
	case c <- struct{}{}:
	default: // there is one that nobody has seen yet
	}
	return 0
}

func (w *watched) forget() {
	watchers.Lock()
	defer watchers.Unlock()
	delete(watchers.all, w.id)
}

// stop ends the watch. It returns when no call is under way any more, so that
// the handle may be closed.
func (w *watched) stop() {
	procUnregisterWait.Call(uintptr(w.wait), ^uintptr(0)) // INVALID_HANDLE_VALUE: wait for the callback
	w.forget()
}

// awaitHandle waits until h is signalled.
func awaitHandle(h windows.Handle) error {
	w, err := watchHandle(h, true)
	if err != nil {
		return err
	}
	<-w.signal
	w.stop()
	return nil
}
