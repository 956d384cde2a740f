// Package upgrade replaces the program of this process: the system's part of it.
//
// The steps, and which room has which:
//
//	check    here: the new program runs as a child ([Check.Run]) until it says, by
//	         [Child.Report], that it has come to where it would adopt.
//	quiet    the root, in two steps. First no callback or handler begins any more, while
//	         channels are still read, for those that run. Then nothing is read or
//	         written: link, process, share and broker each have a pause.
//	capture  each room writes what it has as data, with the numbers of descriptors;
//	         the root puts it together, in one turn of the mailbox that ends with the
//	         exec, so that nothing can come in between.
//	exec     here: [Exec.Run]. It returns only if it fails, and has undone all then.
//	init     here: [Take], in the package initialisation of the new program.
//	adopt    the root, when main comes to AutoFork, Run or Fork: each room restores.
//	rollback here: [Handover.Rollback] executes the program of before, with the same state.
//
// If a step before the exec fails, the pauses end and all goes on. After it there is
// nobody to go back to but the old program, whose file is held open: it is executed once
// if the new one cannot read the state, does not adopt in time or fails to. A new program
// that exits before is a master's death.
//
// Who owns what: the state is a file without a name, which ends with the [Handover]. The
// descriptors of an Exec stay their owners'; here only their close-on-exec flag is
// changed. A Check owns its child. There is no lock and no state of the package.
// [Take] and [Started] are for package initialisation.
//
// What only Linux has (signals that survive an exec, the environment of the start, a
// program that is executed through its descriptor) is in files of its own. Windows has no
// exec: [Supported] is false there.
//
// The tests here are of what needs no cluster; those of test/upgrade have all of it.
package upgrade

import "encoding/json"

// Version is that of the state that this program writes. It reads this one and the one
// before.
const Version = 1

// Reads reports whether this program reads the version.
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
	FDs     []int           // that it gets, beside its standard files
	Failed  string          // why the program between the two was rolled back; "" if there was none
	Name    string          // of the process, where it is executed through a descriptor
	Body    json.RawMessage // the state of the rooms

	state, fallback int // descriptors: of the file, and of the old program or -1
}
