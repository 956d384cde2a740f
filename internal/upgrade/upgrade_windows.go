package upgrade

import (
	"context"
	"time"

	"github.com/go-cluster/cluster/internal/errs"
)

// Supported says that this system can replace the program of a process.
const Supported = false

// Start is how this process was started.
type Start struct{ Env []string }

// Started returns nothing.
func Started() Start { return Start{} }

// Check runs a program as far as to where it would adopt.
type Check struct {
	Path    string
	Args    []string
	Env     []string
	Dir     string
	Timeout time.Duration
}

// Run fails.
func (Check) Run(context.Context) error { return errs.NotSupported }

// Child is never had.
type Child struct{}

// BeginCheck returns nil.
func BeginCheck() *Child { return nil }

// Report is not called.
func (*Child) Report() {}

// Exec is the replacement of this process's program.
type Exec struct {
	Path     string
	Args     []string
	Env      []string
	Dir      string
	Handover *Handover
	Fallback int
	Keep     []int
}

// Run fails.
func (*Exec) Run(func() error) error { return errs.NotSupported }

// Take returns nil.
func Take() (*Handover, error) { return nil, nil }

// Done is not called.
func (*Handover) Done() {}

// Rollback fails.
func (*Handover) Rollback(error, []string, []int) error { return errs.NotSupported }

// OpenRunning fails.
func OpenRunning() (int, error) { return -1, errs.NotSupported }

// Recover does nothing.
func Recover() {}

// File is a program that was looked at.
type File struct{ Path string }

// Look fails.
func Look(string) (File, error) { return File{}, errs.NotSupported }

// Same is not called.
func (File) Same() bool { return false }
