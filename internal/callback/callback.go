// Package callback calls functions of the application, whatever they do.
//
// A function of the application may return, block, panic, or end its goroutine by
// runtime.Goexit, as FailNow of package testing does. A panic is not recovered: it
// is a fault of the program, and its stack is worth more than what goes on. The end
// of the goroutine is no fault of the others whom something has to be told, so what
// was to follow follows on another goroutine.
//
// Each function here suits another place: [Loop] for many calls in a row, [Guard]
// where something has to be done if the call does not return, [Wait] where somebody
// waits for the result. Goexit is told by a flag that the call could not set. A
// panic leaves it unset as well, but then the process is about to end.
//
// [Running] counts calls for somebody who waits for their end. Its lock is taken alone.
// There is no other state. The goroutines are those that replace one that has ended,
// and the one of each Wait.
package callback

import "errors"

// ErrGoexit says that a function did not return.
var ErrGoexit = errors.New("the function ended its goroutine (runtime.Goexit, which FailNow of package testing calls)")

// Loop calls step again and again until it returns false. If step ends the
// goroutine, the loop goes on on another one, and the caller of Loop is gone: call
// it last, and keep what step needs elsewhere than on the stack.
func Loop(step func() (more bool)) {
	ended := false
	defer func() {
		if !ended {
			go Loop(step)
		}
	}()
	for step() {
	}
	ended = true
}

// Guard calls fn, and lost if fn does not return. lost is called on the goroutine
// that is about to end.
func Guard(fn, lost func()) {
	returned := false
	defer func() {
		if !returned {
			lost()
		}
	}()
	fn()
	returned = true
}

// Wait calls fn on a goroutine of its own and returns when it has ended: with fn's
// error, or with ErrGoexit if fn did not return.
func Wait(fn func() error) error {
	result := make(chan error, 1)
	go func() {
		err := ErrGoexit
		defer func() { result <- err }()
		err = fn()
	}()
	return <-result
}
