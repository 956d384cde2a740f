package coord

import "context"

// Lock takes the lock with that name. While another call in the cluster holds the lock, it
// waits, until ctx ends. Calls that wait get the lock in the order in which they came.
// unlock frees the lock, and may be called more than once. The death of this process frees
// the lock too.
//
// A goroutine that locks twice waits for itself. A process that is stopped, or does not end,
// keeps its locks. The error is ctx.Err() if ctx ends first, and [ErrTooMany] if 4,096 calls
// of this process wait already.
func Lock(ctx context.Context, name string) (unlock func(), err error) {
	return here.Lock(ctx, name)
}

// TryLock takes the lock if nobody holds it. Otherwise ok is false, and unlock nil.
func TryLock(name string) (unlock func(), ok bool, err error) { return here.TryLock(name) }
