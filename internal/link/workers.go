package link

import "sync/atomic"

// workers are the goroutines of a link that read, and that answer requests. One
// that has done its job rests until there is the next, unless another one rests
// already: its stack has grown to what JSON takes, and to grow a new one costs as
// much as the rest.
type workers struct {
	*core
	read   func()    // the reader's
	answer func(job) // the requests'

	next    chan job     // to the one that rests
	resting atomic.Int32 // how many do: one, or none
}

// job is what a worker does: to answer a request by the handler found for it, or
// to read.
type job struct {
	asked
	by   Responder
	read bool
}

// spawn has j done by the worker that rests, or by a new one.
func (w *workers) spawn(j job) {
	select {
	case w.next <- j:
		// By who sends: where there is one P the other has not run yet, and this
		// goroutine may be the next to rest.
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
