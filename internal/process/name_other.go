//go:build !linux

package process

// SetName does nothing: a process is named after its program here.
func SetName(string) {}
