package callback

import (
	"errors"
	"runtime"
	"testing"
	"time"

	"github.com/go-cluster/cluster/internal/roomtest"
)

// TestLoopGoesOn: a step that ends its goroutine costs no other step.
func TestLoopGoesOn(t *testing.T) {
	const steps = 100
	n, done := 0, make(chan struct{})
	go Loop(func() bool {
		if n++; n == steps {
			close(done)
			return false
		}
		if n%3 == 0 {
			runtime.Goexit()
		}
		return true
	})
	select {
	case <-done:
	case <-time.After(roomtest.Patience):
		t.Fatal("the loop has ended")
	}
	if n != steps {
		t.Fatal(n)
	}
}

// TestGuard: lost is called if the function does not return, and only then.
func TestGuard(t *testing.T) {
	lost := make(chan bool, 2)
	Guard(func() {}, func() { lost <- true })
	lost <- false
	if <-lost {
		t.Fatal("it has returned")
	}
	go Guard(runtime.Goexit, func() { lost <- true })
	select {
	case <-lost:
	case <-time.After(roomtest.Patience):
		t.Fatal("nothing is told")
	}
}

// TestGuardLetsAPanicPass.
func TestGuardLetsAPanicPass(t *testing.T) {
	defer func() {
		if r := recover(); r != "as it was" {
			t.Fatal(r)
		}
	}()
	Guard(func() { panic("as it was") }, func() {})
}

// TestWait returns what the function does, or that it did not.
func TestWait(t *testing.T) {
	want := errors.New("x")
	if err := Wait(func() error { return want }); err != want {
		t.Fatal(err)
	}
	if err := Wait(func() error { return nil }); err != nil {
		t.Fatal(err)
	}
	if err := Wait(func() error { runtime.Goexit(); return nil }); err != ErrGoexit {
		t.Fatal(err)
	}
}
