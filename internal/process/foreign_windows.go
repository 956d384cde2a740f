package process

import (
	"os"
	"os/exec"
	"time"

	"github.com/go-cluster/cluster/internal/errs"
)

// CanPassSockets reports whether a process can get sockets by their descriptors.
const CanPassSockets = false

// Become returns: no process is started so here.
func Become() {}

func (*Launcher) startForeign(*exec.Cmd, *Spec) (*os.Process, *forkThread, error) {
	return nil, nil, errs.NotSupported
}

// forker has nothing to do: processes end with the job.
type forker struct{}

type forkThread struct{}

func (*forker) ended(*forkThread) {}

func (*forker) awaitAdopted() {}

func (*forker) adopt() *forkThread { return nil }

// HoldThread fails: there is no exec.
func (*Launcher) HoldThread(time.Duration) (run func(func()), release func(), err error) {
	return nil, nil, errs.NotSupported
}

// OnMain calls fn.
func OnMain(_ time.Duration, fn func()) { fn() }

// Descends reports false: who sends what is not told here.
func Descends(int, int) bool { return false }
