// Package upgrade is the system's part in the replacement of this process's program.
//
// The steps, and the room that takes each:
//
//	check    here: the new program runs as a child ([Check.Run]) until it says, by
//	         [Child.Report], that it has come to where it would adopt.
//	quiet    the root, in two steps. First no callback or handler begins any more, while
//	         channels are still read, for those that run. Then nothing is read or
//	         written: link, process, share and broker each have a pause.
//	capture  each room writes what it has as data, with the numbers of descriptors;
//	         the root puts it together, in one turn of the mailbox that ends with the
//	         exec, so that nothing can come in between.
//	exec     here: [Exec.Run]. It returns only if it fails, when it has undone everything.
//	init     here: [Take], in the package initialisation of the new program.
//	adopt    the root, when main comes to AutoFork, Run or Fork: each room restores.
//	rollback here: [Handover.Rollback] executes the old program again, with the same state.
//
// If a step before the exec fails, the pauses end and all goes on. After the exec the old
// program is gone, but its file is held open. It is executed again, once, if the new program
// cannot read the state, does not adopt in time, or fails to adopt. If the new program exits
// before that, the master is dead.
//
// The state is a file without a name, which ends with the [Handover]. The descriptors of an
// Exec stay with their owners; only their close-on-exec flag is changed here. A Check owns
// its child. The package has no lock and no state. [Take] and [Started] are for package
// initialisation.
//
// Only Linux can make signals survive an exec, tell the environment of the start, and
// execute a program through its descriptor: that is in files of its own. Windows has no
// exec, so [Supported] is false there.
//
// There are no tests here: those of test/upgrade try all of it with real processes.
package upgrade

import "encoding/json"

// Version is the version of the state that this program writes. It reads this version and
// the one before.
const Version = 1

// Reads reports whether this program reads a state of that version.
func Reads(version int) bool { return version == Version || version == Version-1 && version > 0 }

// The variables by which a program learns that it is a successor, or a check.
const (
	envState = "NODE_GO_CLUSTER_UPGRADE"
	envCheck = "NODE_GO_CLUSTER_CHECK"
)

// Handover is what a program hands to its successor.
type Handover struct {
	Version int
	PID     int
	FDs     []int           // descriptors that the successor gets, beside its standard files
	Failed  string          // after a rollback: why the new program was given up; else ""
	Name    string          // of the process, if it is executed through a descriptor
	Body    json.RawMessage // the state of the rooms

	state, fallback int // descriptors: of the file, and of the old program or -1
}
