package supervise

import "time"

// Event is what the Machine tells its Host. Sockets, callbacks, logs and the
// service manager follow from events; so does the state that a Process shows.
type Event interface{ event() }

type (
	// Answered is the outcome of a call: of Fork, AutoFork, Scale, ScaleBy, Reload or
	// Restart.
	Answered struct {
		Call   int
		Worker int // of Fork
		Err    error
	}
	// Stopped is the end of a stop: no worker is left.
	Stopped struct {
		Calls  []int
		Killed []int // workers that did not drain in time
		Undead []int // pids of those that could not be killed
	}

	// Forked says that a worker's process exists. It is the first report about it.
	Forked struct{ Worker int }
	// NotForked says that a worker gets no process: its start has failed.
	NotForked struct{ Worker int }
	// Changed is a worker's new state.
	Changed struct {
		Worker int
		State  State
	}
	// Volunteered says whether the worker's end was asked for. It comes before the order to
	// end, since the worker may obey that at once.
	Volunteered struct {
		Worker    int
		Voluntary bool
	}
	// CameOnline says that a worker's runtime is up.
	CameOnline struct{ Worker int }
	// Up says that a worker has come a step nearer to ready.
	Up struct{ Worker int }
	// Drains says that a worker takes no new work.
	Drains struct{ Worker int }
	// ChannelLost says that a worker's channel has closed.
	ChannelLost struct{ Worker int }
	// Outlives says that SIGKILL does not end a worker. The host answers with Exited, as if
	// the worker had ended.
	Outlives struct{ Worker int }
	// Died is a worker's end, the last report about it.
	Died struct {
		Worker int
		Exit   Exit
	}

	// Trouble is an error to report about a worker.
	Trouble struct {
		Worker int
		Err    error
	}
	// CheckFailed says what a worker's own checks have found.
	CheckFailed struct {
		Worker int
		Err    error
	}
	// Silent says that a worker has not answered for half of the watchdog's timeout. Left
	// is the rest of the timeout.
	Silent struct {
		Worker int
		Left   time.Duration
	}
	// Stalled says that a worker does not answer and is ended.
	Stalled struct {
		Worker  int
		Timeout time.Duration
	}
	// Overdue says that a worker did not drain in time and is killed.
	Overdue struct{ Worker int }
	// Crashed says that a worker has died by itself, and is to be replaced.
	Crashed struct {
		Worker, Place int
		Exit          Exit
		Boot          bool // before it was ready
	}
	// Resigned says that a worker asks not to be replaced.
	Resigned struct {
		Worker, Place int
		Exit          Exit
	}
	// ForkFailed says that a slot could not be filled, and is tried again after Retry.
	ForkFailed struct {
		Generation, Place int
		Err               error
		Retry             time.Duration
	}
	// RecyclingFailed says that a worker which is due could not be replaced, and is due
	// again after Retry.
	RecyclingFailed struct {
		Worker, Place int
		Err           error
		Retry         time.Duration
	}

	// Retargeted says how many workers are wanted from now on.
	Retargeted struct{ Workers int }
	// Reloading is the beginning of a reload.
	Reloading struct{}
	// Reloaded is the end of a reload.
	Reloaded struct {
		Result   Result
		Stopping bool // the reload has ended because the cluster is stopped
	}
	// GaveUp says that the supervision has ended by itself.
	GaveUp struct {
		Generation int // the error goes to the logger of its settings
		Err        error
	}
)

func (Answered) event()        {}
func (Stopped) event()         {}
func (Forked) event()          {}
func (NotForked) event()       {}
func (Changed) event()         {}
func (Volunteered) event()     {}
func (CameOnline) event()      {}
func (Up) event()              {}
func (Drains) event()          {}
func (ChannelLost) event()     {}
func (Outlives) event()        {}
func (Died) event()            {}
func (Trouble) event()         {}
func (CheckFailed) event()     {}
func (Silent) event()          {}
func (Stalled) event()         {}
func (Overdue) event()         {}
func (Crashed) event()         {}
func (Resigned) event()        {}
func (ForkFailed) event()      {}
func (RecyclingFailed) event() {}
func (Retargeted) event()      {}
func (Reloading) event()       {}
func (Reloaded) event()        {}
func (GaveUp) event()          {}
