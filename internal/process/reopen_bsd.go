//go:build unix && !linux

package process

import (
	"errors"
	"os"
)

// reopenPipe returns nil: a descriptor that is opened here is a duplicate, with
// the same flags.
func reopenPipe(*os.File) *os.File { return nil }

func reopenPipeFD(int) (own int, err error) { return -1, errors.ErrUnsupported }
