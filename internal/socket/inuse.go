package socket

import (
	"context"
	"errors"
	"syscall"
	"time"
)

// inUseLook is how often an address that is in use is tried.
const inUseLook = 20 * time.Millisecond

// WhileInUse calls open until its error is another one than EADDRINUSE, or until the given
// time or the end of ctx, and returns what the last call returned. Time in which this
// process does not run does not count.
func WhileInUse[T any](ctx context.Context, until time.Time, open func() (T, error)) (opened T, err error) {
	for tries := time.Until(until) / inUseLook; ; tries-- {
		opened, err = open()
		if !errors.Is(err, syscall.EADDRINUSE) || tries <= 0 {
			return opened, err
		}
		select {
		case <-ctx.Done():
			return opened, err
		case <-time.After(inUseLook):
		}
	}
}
