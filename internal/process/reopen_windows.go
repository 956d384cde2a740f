package process

import "os"

// reopenPipe returns nil: whether writes wait is not a matter of the pipe here.
func reopenPipe(*os.File) *os.File { return nil }
