// Package signals says which signals mean what, on each system.
//
// Signals tell a master to stop, to reload, to scale, to replace its program. A terminal
// sends some signals to all its processes at once, and the kernel sends some to a process
// that reads a terminal in the background. This package says which signals those are and
// what can be done about each; the root acts on them.
//
// There is no state but that of the standard library's package signal, which belongs to
// the process. There are no goroutines and no locks. Windows has next to no signals: those
// that do not exist have numbers there that nothing sends.
//
// What a signal does is tested with processes, in the root and in test/upgrade.
package signals
