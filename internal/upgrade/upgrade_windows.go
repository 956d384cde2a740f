package upgrade

import (
	"context"
	"os"
	"time"

	"github.com/go-cluster/cluster/internal/errs"
)

// Supported says that this system can replace the program of a process.
const Supported = false

// Start is how this process was started.
type Start struct{ Env []string }

// Started returns nothing.
func Started() Start { return Start{} }

// Check would run a new program as a child.
type Check struct {
	Path    string
	Args    []string
	Env     []string
	Dir     string
	Timeout time.Duration
}

// Run returns errs.NotSupported.
func (Check) Run(context.Context) error { return errs.NotSupported }

// Child would be the check of an upgrade.
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
	Files    uint64
}

// Run returns errs.NotSupported.
func (*Exec) Run(func() error) error { return errs.NotSupported }

// Take returns nil.
func Take() (*Handover, error) { return nil, nil }

// Done is not called.
func (*Handover) Done() {}

// Rollback returns errs.NotSupported.
func (*Handover) Rollback(error, []string, []int) error { return errs.NotSupported }

// OpenRunning returns errs.NotSupported.
func OpenRunning() (int, error) { return -1, errs.NotSupported }

// NewFile fails.
func NewFile() (*os.File, error) { return nil, errs.NotSupported }

// Recover does nothing.
func Recover() {}

// File is a program that was looked at.
type File struct{ Path string }

// Look returns errs.NotSupported.
func Look(string) (File, error) { return File{}, errs.NotSupported }

// Same is not called.
func (File) Same() bool { return false }
