//go:build !linux

package cluster

import (
	"fmt"
	"os"
	"os/exec"
)

// binary is a program to execute. These systems cannot execute an open file, so
// it is its path at start.
type binary struct{ path, argv0 string }

func openBinary(o *Options, _ bool) (*binary, error) {
	if o.Exec == "" {
		return &binary{executable, os.Args[0]}, nil
	}
	if _, err := os.Stat(o.Exec); err != nil {
		// Windows lets the end of a program's name be left out.
		if _, lookErr := exec.LookPath(o.Exec); lookErr != nil {
			return nil, fmt.Errorf("program: %w", err)
		}
	}
	return &binary{o.Exec, o.Exec}, nil
}

func (b *binary) forExec(int) (path string, done func(), err error) { return b.path, func() {}, nil }

func (b *binary) close() {}
