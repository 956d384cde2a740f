//go:build !linux

package handle

// Touched is false: only Linux tells how much was read from a connection.
func (*Handle) Touched() bool { return false }
