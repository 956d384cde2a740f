package process

import (
	"errors"
	"fmt"
	"os"
	"os/signal"
	"runtime"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// forker starts the processes that are sent a SIGTERM with the end of this program. The
// kernel sends it at the end of the thread that has forked them, and an exec ends all
// threads but the one that executes, which is the main thread from then on. So the thread
// has to live until all of them have ended, and another program has to be executed on it.
//
// It is the main thread where that can be had. Then the processes that were there before an
// exec and those of after it are children of one thread, and so another exec is possible.
type forker struct {
	mu          sync.Mutex
	main, other forkThread
	hunt        chan struct{} // closed when the search for the main thread ends; nil if there is none
}

// forkThread is a thread and the processes that it has forked.
type forkThread struct {
	left int         // processes, and who wants the thread
	jobs chan func() // for the thread; nil if it is not held
}

// How long the main thread is waited for, and searched.
const (
	forkPatience     = 100 * time.Millisecond // for a first process
	togetherPatience = time.Second            // for one beside others that are its children
	huntTime         = time.Minute
)

// start starts a process on a thread. If it does, ended has to be called with that thread
// when the process has ended.
func (f *forker) start(fork func() (*os.Process, error)) (proc *os.Process, t *forkThread, err error) {
	t, run := f.enter()
	run(func() { proc, err = fork() })
	if err != nil {
		f.ended(t)
	}
	return proc, t, err
}

// enter returns the thread that is to fork, with one process more, and what runs a
// function on it.
func (f *forker) enter() (t *forkThread, run func(func())) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.main.jobs == nil && f.other.left == 0 {
		patience := forkPatience
		if f.main.left > 0 {
			patience = togetherPatience
		}
		f.await(patience)
	}
	if t = &f.main; t.jobs == nil {
		if t = &f.other; t.jobs == nil {
			t.jobs = make(chan func())
			go serve(t.jobs)
		}
	}
	t.left++
	return t, t.run()
}

// await waits until the main thread is held, or for so long. It is called with the lock,
// which it gives up meanwhile. The caller frees the thread if it does not use it.
func (f *forker) await(patience time.Duration) {
	f.main.left++
	f.seek()
	hunt := f.hunt
	f.mu.Unlock()
	select {
	case <-hunt:
	case <-time.After(patience):
	}
	f.mu.Lock()
	f.main.left--
}

// seek begins to search for the main thread, unless somebody does, or it is held. It is
// called with the lock.
func (f *forker) seek() {
	if f.hunt != nil || f.main.jobs != nil {
		return
	}
	ended := make(chan struct{})
	f.hunt = ended
	go func() {
		jobs := holdMain(huntTime, func() bool {
			f.mu.Lock()
			defer f.mu.Unlock()
			return f.main.left > 0
		})
		f.mu.Lock()
		defer f.mu.Unlock()
		f.hunt = nil
		if f.main.jobs = jobs; jobs != nil && f.main.left == 0 {
			f.main.free()
		}
		close(ended)
	}()
}

// run returns what runs a function on the thread and waits for its end. A process of the
// thread's must be there for as long.
func (t *forkThread) run() func(func()) {
	jobs := t.jobs
	return func(job func()) {
		done := make(chan struct{})
		jobs <- func() {
			job()
			close(done)
		}
		<-done
	}
}

// ended is told that a process of the thread has ended.
func (f *forker) ended(t *forkThread) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.leave(t)
}

// leave is ended, with the lock.
func (f *forker) leave(t *forkThread) {
	if t.left--; t.left == 0 {
		t.free()
	}
}

// free lets go of the thread, if it is held.
func (t *forkThread) free() {
	if t.jobs != nil {
		close(t.jobs)
		t.jobs = nil
	}
}

// adopt returns the thread whose child a process is that the program before has started. It
// is searched from now on: later it may wait in a system call for a long time.
func (f *forker) adopt() *forkThread {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.main.left++
	f.seek()
	return &f.main
}

// awaitAdopted waits a moment for the thread of what was adopted.
func (f *forker) awaitAdopted() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.awaitUsed(forkPatience)
}

// awaitUsed is await if there are processes of the main thread.
func (f *forker) awaitUsed(patience time.Duration) {
	if f.main.left == 0 || f.main.jobs != nil {
		return
	}
	if f.await(patience); f.main.left == 0 { // they have ended meanwhile
		f.main.free()
	}
}

// hold is Launcher.HoldThread.
func (f *forker) hold(within time.Duration) (run func(func()), release func(), err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.other.left == 0 {
		f.awaitUsed(within)
	}
	var t *forkThread
	switch {
	case f.main.left > 0 && f.other.left > 0:
		return nil, nil, errors.New("some of the Foreign workers are from before the last upgrade and some from after it, and the main thread was not free to start these: " +
			"the system would end some of them with the program that has started them; Reload first")
	case f.other.left > 0:
		t = &f.other
	case f.main.left == 0:
		return func(fn func()) { fn() }, func() {}, nil
	case f.main.jobs != nil:
		t = &f.main
	default:
		return nil, nil, fmt.Errorf("the main thread is not free within %v (runtime.LockOSThread, or a long system call), and with any other the system ends the Foreign workers when the program is executed; "+
			"Reload first", within)
	}
	t.left++ // until it is released
	return t.run(), func() { f.ended(t) }, nil
}

// serve runs the jobs on one thread.
func serve(jobs <-chan func()) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	for job := range jobs {
		job()
	}
}

// holdMain has the main thread run what comes, until the channel is closed. It returns nil
// if that thread cannot be had in time: a goroutine has locked it to itself, or waits on it
// in a system call.
//
// The scheduler cannot be asked for a certain thread. So goroutines look where they come
// up, and the one that comes up on the main thread stays there. This ends as well when
// nobody wants the thread any more.
func holdMain(within time.Duration, wanted func() bool) chan func() {
	limit := time.Now().Add(within)
	for round, pause := 0, time.Millisecond; wanted(); round, pause = round+1, min(2*pause, 100*time.Millisecond) {
		c := &catch{jobs: make(chan func()), release: make(chan struct{})}
		caught := c.look() || round < maxExhaust && c.exhaust()
		close(c.release)
		if caught {
			return c.jobs
		}
		if time.Now().Add(pause).After(limit) {
			break
		}
		unsettleSignals()
		time.Sleep(pause)
	}
	return nil
}

// unsettleSignals moves the goroutine of package os/signal to another thread. It waits for
// signals inside the runtime, on the thread on which it has come to that, and comes back to
// that one when it wakes up, unless all processors are busy then. So they are, and it is sent a
// signal which the runtime sends itself all the time.
func unsettleSignals() {
	urgent := make(chan os.Signal, 1)
	signal.Notify(urgent, unix.SIGURG)
	defer signal.Stop(urgent)
	var awake atomic.Bool
	defer awake.Store(true)
	for range runtime.GOMAXPROCS(0) {
		go func() {
			for !awake.Load() {
				runtime.Gosched()
			}
		}()
	}
	unix.Kill(unix.Getpid(), unix.SIGURG)
	select {
	case <-urgent:
	case <-time.After(100 * time.Millisecond):
	}
}

// maxExhaust bounds how often each thread that rests is had: it makes one thread more, and
// the runtime ends none.
const maxExhaust = 20

// catch is one attempt of holdMain.
type catch struct {
	jobs    chan func()
	caught  atomic.Bool
	release chan struct{} // closed at the end
}

// try reports on which thread it is. On the main thread it first tells that, and serves,
// unless that is done already; then it returns when the jobs end.
func (c *catch) try(tell func()) (tid int) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	tid = unix.Gettid()
	if tid == unix.Getpid() && c.caught.CompareAndSwap(false, true) {
		tell()
		serve(c.jobs)
	}
	return tid
}

// look finds the main thread if that runs this and that: goroutines that wake up come up on
// any thread that does.
func (c *catch) look() bool {
	n := 2 * runtime.GOMAXPROCS(0)
	ended := make(chan bool, 2*n)
	for range n {
		go func() {
			for range 20 {
				c.try(func() { ended <- true })
				if c.caught.Load() {
					break
				}
				time.Sleep(10 * time.Microsecond)
			}
			ended <- false
		}()
	}
	for range n {
		if <-ended {
			return true
		}
	}
	return c.caught.Load()
}

// exhaust finds the main thread if that rests. A goroutine is given to a thread that rests,
// the last one first; so each that comes is kept from coming again. When one comes that was
// not there before, none rests any more.
func (c *catch) exhaust() bool {
	known := threads()
	for range len(known) {
		came := make(chan int, 1)
		go func() {
			runtime.LockOSThread()
			defer runtime.UnlockOSThread()
			if tid := c.try(func() { came <- unix.Getpid() }); tid != unix.Getpid() {
				came <- tid
				<-c.release
			}
		}()
		switch tid := <-came; {
		case tid == unix.Getpid():
			return true
		case !known[tid]:
			return false
		}
	}
	return false
}

// threads are those of this process.
func threads() map[int]bool {
	names, _ := os.ReadDir("/proc/self/task")
	all := make(map[int]bool)
	for _, n := range names {
		if tid, err := strconv.Atoi(n.Name()); err == nil {
			all[tid] = true
		}
	}
	return all
}

// OnMain calls fn on the main thread, or where it is called from if that thread cannot be
// had in time.
func OnMain(within time.Duration, fn func()) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	if unix.Gettid() == unix.Getpid() {
		fn()
		return
	}
	if jobs := holdMain(within, func() bool { return true }); jobs != nil {
		defer close(jobs)
		done := make(chan struct{})
		jobs <- func() {
			fn()
			close(done)
		}
		<-done
		return
	}
	fn()
}
