package handle

import (
	"os"
	"sync"
	"unsafe"

	"golang.org/x/sys/windows"
)

// Watch lets a goroutine wait until a kernel object is signalled. A system call that waits
// would keep a thread, and for a while the P: with GOMAXPROCS=1, which many workers have,
// nothing else would run meanwhile. The system's thread pool waits for many objects, and
// calls back.
type Watch struct {
	Signal chan struct{} // has a value when the object was signalled
	wait   windows.Handle
	id     uintptr
}

// watchers has the channels of all Watches that may be called back, by numbers that are
// never used again: a call that comes late finds nothing.
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
	// A process can have a few thousand callbacks in its life, so all Watches share one.
	watchCallback = sync.OnceValue(func() uintptr { return windows.NewCallback(signalled) })
)

const (
	executeInWaitThread = 0x4 // WT_EXECUTEINWAITTHREAD: signalled does not wait
	executeOnlyOnce     = 0x8 // WT_EXECUTEONLYONCE
)

// NewWatch begins to watch h, which must stay open until Stop. With once it watches for the
// first signal: h is a process, or an event that stays set. Without once it watches for every
// signal: h is an event that resets itself.
func NewWatch(h windows.Handle, once bool) (*Watch, error) {
	w := &Watch{Signal: make(chan struct{}, 1)}
	watchers.Lock()
	if watchers.all == nil {
		watchers.all = make(map[uintptr]chan struct{})
	}
	watchers.last++
	w.id = watchers.last
	watchers.all[w.id] = w.Signal
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

// signalled is called by a thread of the system.
func signalled(id, _ uintptr) uintptr {
	watchers.Lock()
	c := watchers.all[id]
	watchers.Unlock()
	select {
	case c <- struct{}{}:
	default: // an earlier value was not received yet
	}
	return 0
}

func (w *Watch) forget() {
	watchers.Lock()
	defer watchers.Unlock()
	delete(watchers.all, w.id)
}

// Stop ends the watch. It returns when no call is under way any more, so that
// the handle may be closed.
func (w *Watch) Stop() {
	procUnregisterWait.Call(uintptr(w.wait), ^uintptr(0)) // INVALID_HANDLE_VALUE: wait for the callback
	w.forget()
}

// Await waits until h is signalled.
func Await(h windows.Handle) error {
	w, err := NewWatch(h, true)
	if err != nil {
		return err
	}
	<-w.Signal
	w.Stop()
	return nil
}
