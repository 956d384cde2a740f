// Package signals says which signals mean what, on each system.
//
// A master is told by signals to stop, to reload, to scale, to be replaced. A terminal
// sends some to all its processes at once, and the kernel some to who reads a terminal in
// the background. Which those are, and what can be done about each, stands here and
// nowhere else: the root acts on them.
//
// There is no state but that of package signal of the standard library, which is the
// process's. There are no goroutines and no locks. On Windows, which has next to no
// signals, those that do not exist have numbers that nothing sends.
//
// What a signal does is tested with processes, in the root and in test/upgrade.
package signals
