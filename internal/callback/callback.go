// Package callback calls functions of the application, whatever they do.
//
// A function of the application may return, block, panic, or end its goroutine by
// runtime.Goexit, as FailNow of package testing does. A panic is not recovered: it is a
// fault of the program, and the process ends with its stack. After a Goexit the others
// whom something has to be told must still hear it, so the work goes on on another
// goroutine.
//
// [Loop] is for many calls in a row, [Guard] for a call after which something has to be
// done if it does not return, [Wait] for a call whose result somebody waits for. A flag
// that is set after the call tells a Goexit. A panic leaves it unset as well, but then the
// process is about to end.
//
// [Running] counts calls, and somebody can wait for their end. Its lock is taken alone.
// There is no other state. The goroutines are those that replace one that has ended,
// and one for each Wait.
package callback

import "errors"

// ErrGoexit says that a function did not return.
var ErrGoexit = errors.New("the function ended its goroutine (runtime.Goexit, which FailNow of package testing calls)")

// Loop calls step again and again until it returns false. If step ends the goroutine, the
// loop goes on on another one, and Loop does not return to its caller. So Loop must be the
// last call of its goroutine, and what step needs must not be on the goroutine's stack.
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
