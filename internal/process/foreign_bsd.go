//go:build unix && !linux

package process

import (
	"os"
	"syscall"
)

// endWithParent: nothing ends a process with its parent here.
func endWithParent(*syscall.SysProcAttr) {}

// forker starts processes on any thread.
type forker struct{}

func (*forker) start(fork func() (*os.Process, error)) (*os.Process, error) { return fork() }

func (*forker) ended() {}

// nameToExec is "": no program is held here.
func (*Program) nameToExec() string { return "" }

func (p *Program) liesAt(string) bool { return true }

// pathToExec is the path of the program.
func (p *Program) pathToExec(int) string { return p.path }

// duplicate is nil: no program is held here.
func (*Program) duplicate() (*os.File, error) { return nil, nil }

// Descends reports false: who sends what is not told here.
func Descends(int, int) bool { return false }
