package cluster

import (
	"os"

	"github.com/go-cluster/cluster/internal/handle"
)

// writeStderr writes to this process's standard error, of which a worker's log
// line must not be the end.
func writeStderr(p []byte) { os.Stderr.Write(p) }

// handOver ends the keeping of a worker's last words, once it is ready. Its
// standard error goes on through the master: there is no way to put another
// handle in the place of one that the program may have got hold of.
func (t *tail) handOver(*Process) {
	if t == nil {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.text, t.over = nil, true
}

// takeStderr: see handOver.
func takeStderr(*handle.Handle) {}
