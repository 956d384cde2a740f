package handle

import (
	"os"
	"sync"
	"unsafe"

	"golang.org/x/sys/windows"
)

// Watch lets a goroutine wait until a kernel object is signalled. A wait of its
// own would keep a thread in the kernel, and the P for so long that with
// GOMAXPROCS=1, which many a worker has, nothing else would run meanwhile. The
// system's thread pool waits for many, and calls back.
type Watch struct {
	Signal chan struct{} // has a value when the object was signalled
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

// NewWatch begins to watch h, which must stay open until Stop. With once it is
// for the first signal, of a process or of an event that stays set; without, for
// every signal of an event that resets itself.
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
