package process

import (
	"os"
	"os/exec"

	"github.com/go-cluster/cluster/internal/errs"
)

// CanPassSockets reports whether a process can get sockets by their descriptors.
const CanPassSockets = false

// Become returns: no process is started so here.
func Become() {}

func (*Launcher) startForeign(*exec.Cmd, *Spec) (*os.Process, error) { return nil, errs.NotSupported }

// forker has nothing to do: processes end with the job.
type forker struct{}

func (*forker) ended() {}

// Descends reports false: who sends what is not told here.
func Descends(int, int) bool { return false }
