//go:build !linux

package process

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
)

// Program is a program to execute. These systems cannot execute an open file, so
// it is its path at start.
type Program struct{ path, argv0 string }

// ErrClosed is why nothing can be started from a Program that is closed, on
// systems where that makes a difference.
var ErrClosed = errors.New("the program is closed")

// findStartPath is of no use here: see Open.
func findStartPath(_, _ string) string { return "" }

// Open finds the program at path: this one if path is "".
func (s *Self) Open(path string, _ bool) (*Program, error) {
	if path == "" {
		return &Program{s.Executable, s.argv0}, nil
	}
	if _, err := os.Stat(path); err != nil {
		// Windows lets the end of a program's name be left out.
		if _, lookErr := exec.LookPath(path); lookErr != nil {
			return nil, fmt.Errorf("program: %w", err)
		}
	}
	return &Program{path, path}, nil
}

// State is what another program of this process needs to have the same Program.
func (p *Program) State() (ProgramState, error) {
	return ProgramState{Path: p.path, Argv0: p.argv0, FD: -1}, nil
}

// RestoreProgram makes a Program of its state.
func RestoreProgram(s ProgramState) (*Program, error) { return &Program{s.Path, s.Argv0}, nil }

// Path is where this program lies for whoever starts it anew.
func (s *Self) Path() string { return s.Executable }

// start executes the program as cmd says.
func (p *Program) start(cmd *exec.Cmd) (*os.Process, error) {
	cmd.Path = p.path
	err := cmd.Start()
	return cmd.Process, err
}

// Imports reports false: programs are not looked into here.
func (p *Program) Imports(string) bool { return false }

// Close does nothing: nothing is held.
func (p *Program) Close() {}
