package socket

import (
	"context"
	"errors"
	"syscall"
	"time"
)

// inUseLook is the time between two tries of an address that is in use.
const inUseLook = 20 * time.Millisecond

// WhileInUse calls open again as long as its error is EADDRINUSE, until the given time or
// the end of ctx, and returns what the last call returned. It counts tries and does not look
// at the clock, so time in which this process does not run does not count.
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
