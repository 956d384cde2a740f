// Package supervise decides which worker each slot should have: time and events
// go in, orders come out.
//
// A [Machine] is told what happens (a worker is online, or has exited; a Reload
// was called; a deadline has passed) and calls its [Host], which opens programs,
// starts processes, sends signals and passes reports on. It knows no process, no
// link and no file, and it starts no goroutine and no timer: deadlines are fields,
// [Machine.Next] tells the first of them, and the host calls [Machine.Advance]
// when it has come. Every method takes the time as its first parameter.
//
// The Machine has no lock: it belongs to one goroutine, the master's mailbox. A
// call of a method is one turn. In a turn the Host is called in the order in which
// things are decided; its methods return at once and do not call the Machine back.
// What takes time comes back as an event of its own: Opened after Open, Started or
// StartFailed after Start.
//
// The state refers to workers, slots and programs by number, and to the callers that wait
// for an outcome by the number of the call. So all of it can be written as JSON at the end
// of any turn, and [Restore] goes on from there.
//
// The tests drive a Machine with a host that has no processes and a clock that
// they set. The tests of pairs of events and of random lives write and restore the state
// after every turn, and check what must hold at any time (invariants_test.go).
package supervise
