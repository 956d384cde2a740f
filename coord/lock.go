package coord

import "context"

// Lock waits until nobody else in the cluster holds the lock with that name, or
// until ctx ends; those who wait get it in the order in which they came. It is freed
// by unlock, which may be called more than once, and by the death of this process.
//
// The lock does not know who calls: the same goroutine waits for itself if it locks
// twice. A process that is stopped keeps its locks, and so does one that does not
// end. It returns ctx.Err() if ctx ends first; [ErrTooMany] if 4,096 calls of this
// process wait already.
func Lock(ctx context.Context, name string) (unlock func(), err error) {
	return here.Lock(ctx, name)
}

// TryLock takes the lock if nobody holds it. Otherwise ok is false, and unlock nil.
func TryLock(name string) (unlock func(), ok bool, err error) { return here.TryLock(name) }
