package link

import "sync/atomic"

// workers are the goroutines of a link that read and that answer requests. A worker
// that has done its job rests until there is another, unless one rests already. Its stack
// has grown to what JSON takes, and to grow the stack of a new goroutine costs as much as
// all the rest of a request.
type workers struct {
	*core
	read   func()    // of the reader
	answer func(job) // of the requests

	next    chan job     // to the worker that rests
	resting atomic.Int32 // how many rest: one, or none
}

// job is what a worker is to do: read, or answer a request.
type job struct {
	asked           // the request
	by    Responder // the handler found for it
	read  bool
}

// spawn has j done by the worker that rests, or by a new one.
func (w *workers) spawn(j job) {
	select {
	case w.next <- j:
		// The sender counts, not the worker that was woken: where there is one P that
		// worker has not run yet, and this goroutine may be the next to rest.
		w.resting.Add(-1)
	default:
		go w.work(j)
	}
}

// work is a worker.
func (w *workers) work(j job) {
	for {
		if j.read {
			w.read()
		} else {
			w.answer(j)
		}
		if !w.resting.CompareAndSwap(0, 1) {
			return
		}
		select {
		case j = <-w.next:
		case <-w.done:
			return
		}
	}
}
