//go:build !linux

package cluster

// reapOrphans: only Linux has containers in which a program is PID 1.
func (m *master) reapOrphans(<-chan struct{}) {}
