package roomtest

import (
	"os"
	"testing"
)

// OpenPeer takes over the worker's end of a channel, a handle. It is an *os.File.
func OpenPeer[H ~uintptr](_ testing.TB, theirs H) Peer {
	return os.NewFile(uintptr(theirs), "peer")
}
