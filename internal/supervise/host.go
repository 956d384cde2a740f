package supervise

import (
	"os"
	"time"
)

// Host does what a Machine decides. No method blocks, and none calls the Machine.
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
	// Ping asks the worker for a heartbeat. It reports whether the worker understands the
	// question.
	Ping(worker int) bool
	// Drain orders the worker to finish what it does within the timeout, and to
	// exit.
	Drain(worker int, timeout time.Duration)
	// HandOver is called when the worker is ready, or has been online for long: the end of
	// its standard error need not be kept any longer. It may be called more than once.
	HandOver(worker int)

	// LastWords returns the end of what the worker has written to its standard error, until
	// HandOver.
	LastWords(worker int) string
	// Traced reports whether a debugger is attached to the worker. The worker is not ended
	// then for not answering.
	Traced(worker int) bool
	// Examine has somebody look at a stalled worker before it is ended. It reports whether
	// somebody does; then the answer is Examined.
	Examine(worker int) bool
	// Resident returns the worker's memory in bytes, or 0 if the system does not tell.
	Resident(worker int) int64

	// Tell reports what has happened, in order.
	Tell(e Event)
}

// Order is a worker to be started.
type Order struct {
	Worker      int
	Generation  int
	Place       int      // the place of its slot; -1 for a plain Fork
	Workers     int      // how many workers share the machine's cores
	Connections int      // after how many connections the worker says that it is full; 0: never
	Env         []string // for a plain Fork, beside that of the settings
}
