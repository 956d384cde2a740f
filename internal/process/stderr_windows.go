package process

import (
	"errors"
	"os"
)

// writeStderr writes to this process's standard error.
func writeStderr(p []byte) { os.Stderr.Write(p) }

// DupStderr fails: a process's standard error goes on through this one, since
// there is no way to put another handle in the place of one that the program may
// have got hold of.
func DupStderr() (fd int, err error) { return -1, errors.ErrUnsupported }

// ReplaceStderr does nothing: see DupStderr.
func ReplaceStderr(int) {}

// OwnPipes does nothing: whether writes wait is not a matter of the pipe here.
func OwnPipes() {}
