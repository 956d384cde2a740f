// Package process finds a program and pins it, executes it, copies its output,
// and waits for its end. It knows nothing of clusters: what a worker is, and
// what is said over its channel, is its caller's business.
//
// [Self] is this program as it was started. From it come Programs: on Linux an
// open file, so that what is executed later is the same version whatever lies at
// its path by then. A [Launcher] starts processes from them; it is one for each
// cluster, and has what all its processes share. A [Process] is one of them.
//
// Who owns what: a Program owns its descriptor, until Close. A Process owns the
// pipes of its output and the goroutines that copy them; each of these ends when
// the last holder of the pipe's other end has closed it, which may be long after
// the process. The end of the channel that a process is given stays the caller's
// to close, and so do the files and writers of its Spec.
//
// Locks: one of each Program, of the thread that forks, of the tail of a process's
// standard error, of the pause of a copy, and of the copies which outlive their processes.
// None is held while another is taken, or while a writer of the caller runs.
//
// On Unix, descriptors that others left open in this process are marked close-on-exec
// before the first start. On Windows a process inherits only the handles that are listed
// for it, and a job ends the processes with their master. On Linux a process that is
// PID 1 can reap the orphans that fall to it: [ReapOrphans].
//
// A process that is no program of this module ([Foreign]) is this program first,
// which then becomes it. On Linux such processes are forked by one thread that lives
// until all of them have ended, the main thread if it can be had: a goroutine of the
// Launcher, which ends then as well.
//
// The tests here are of what needs no worker. The rest is tested through package
// cluster with real workers: its fork, output, leak and hostile tests.
package process
