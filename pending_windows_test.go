package cluster

import (
	"net"
	"testing"
	"time"
)

// pending runs fn and returns what it returns, later.
func pending(fn func() error) <-chan error {
	done := make(chan error, 1)
	go func() { done <- fn() }()
	return done
}

// result waits for what pending began.
func result(t *testing.T, c <-chan error) error {
	t.Helper()
	select {
	case err := <-c:
		return err
	case <-time.After(patienceIn):
		t.Fatal("it does not return")
		return nil
	}
}

func readByte(c net.Conn) func() error {
	return func() error {
		_, err := c.Read(make([]byte, 10))
		return err
	}
}
