//go:build !linux

package process

import "os"

// ContinueStopped does nothing: these systems do not tell what stopped a process
// without taking its end away from who waits for that.
func ContinueStopped(<-chan struct{}, func() []int, func(pid int, by os.Signal)) {}
