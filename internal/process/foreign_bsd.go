//go:build unix && !linux

package process

import (
	"os"
	"syscall"
	"time"
)

// endWithParent: nothing ends a process with its parent here.
func endWithParent(*syscall.SysProcAttr) {}

// forker starts processes on any thread.
type forker struct{}

type forkThread struct{}

func (*forker) start(fork func() (*os.Process, error)) (*os.Process, *forkThread, error) {
	proc, err := fork()
	return proc, nil, err
}

func (*forker) ended(*forkThread) {}

func (*forker) adopt() *forkThread { return nil }

func (*forker) awaitAdopted() {}

func (*forker) hold(time.Duration) (run func(func()), release func(), err error) {
	return func(fn func()) { fn() }, func() {}, nil
}

// OnMain calls fn: an exec on any thread ends no process here.
func OnMain(_ time.Duration, fn func()) { fn() }

// nameToExec is "": no program is held here.
func (*Program) nameToExec() string { return "" }

func (p *Program) liesAt(string) bool { return true }

// pathToExec is the path of the program.
func (p *Program) pathToExec(int) string { return p.path }

// duplicate is nil: no program is held here.
func (*Program) duplicate() (*os.File, error) { return nil, nil }

// Descends reports false: who sends what is not told here.
func Descends(int, int) bool { return false }
