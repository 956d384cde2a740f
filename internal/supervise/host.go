package supervise

import (
	"os"
	"time"
)

// Host is what a Machine acts through. No method blocks, and none calls the
// Machine.
type Host interface {
	// Open finds the program and the settings in force for a new generation; for
	// a reload it looks at the program's path anew. The answer is Opened.
	Open(generation int, reload bool)
	// Release closes the generation's program: nothing is started from it any more.
	Release(generation int)

	// Start makes the worker's process. The answer is Started or StartFailed.
	Start(o Order)
	// Signal sends a signal to the worker's process.
	Signal(worker int, sig os.Signal) error
	// Ping asks the worker for a heartbeat. It reports whether the worker
	// understands that.
	Ping(worker int) bool
	// Drain orders the worker to finish what it does within the timeout, and to
	// exit.
	Drain(worker int, timeout time.Duration)
	// HandOver is called when the worker is ready: the end of its standard error need
	// not be kept any longer.
	HandOver(worker int)

	// LastWords is the end of what a worker has written to its standard error before it
	// was ready.
	LastWords(worker int) string
	// Traced reports whether a debugger has stopped the worker.
	Traced(worker int) bool
	// Examine has somebody look at a worker that is stalled, before it is ended. It
	// reports whether anybody does; then the answer is Examined.
	Examine(worker int) bool
	// Resident is the worker's size in bytes, or 0 if the system does not tell.
	Resident(worker int) int64

	// Tell reports what has happened, in order.
	Tell(e Event)
}

// Order is a worker to be started.
type Order struct {
	Worker      int
	Generation  int
	Place       int      // the number of its slot; -1 for a plain Fork
	Workers     int      // how many share the machine's cores
	Connections int      // after how many the worker says that it is full; 0: never
	Env         []string // beside that of the settings, for a plain Fork
}
