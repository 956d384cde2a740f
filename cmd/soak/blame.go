//go:build unix

package main

import (
	"fmt"
	"net"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/go-cluster/cluster"
)

// Who had a request that got no answer, and whether that worker died of it: several
// die each second, so that the time alone would excuse nearly everything.

// acceptsEnv names the file of the accepts to the workers.
const acceptsEnv = "SOAK_ACCEPTS"

// accepts is a file to which the workers write, for each connection, who accepted
// it and when: it tells the same when they have crashed.
type accepts struct{ file *os.File }

func openAccepts(path string) (accepts, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_APPEND|os.O_CREATE, 0o600)
	return accepts{f}, err
}

// note is called by the worker that has accepted a connection from client.
func (a accepts) note(client net.Addr) {
	fmt.Fprintf(a.file, "%v %d %d\n", client, os.Getpid(), time.Now().UnixNano())
}

// by returns the pids of the workers that accepted client's connection, which began
// then. There are several when one was killed before it could tell the master that
// it has the connection, which then went to another one.
func (a accepts) by(client net.Addr, began time.Time) (pids []int) {
	info, err := a.file.Stat()
	check(err)
	tail := make([]byte, min(info.Size(), 1<<20))
	n, _ := a.file.ReadAt(tail, info.Size()-int64(len(tail)))
	for line := range strings.Lines(string(tail[:n])) {
		var address string
		var by int
		var at int64
		fmt.Sscan(line, &address, &by, &at)
		if address == client.String() && at >= began.UnixNano() { // ports come back
			pids = append(pids, by)
		}
	}
	return pids
}

// deaths are those of the workers.
type deaths struct {
	mu     sync.Mutex
	killed map[int]bool // by pid: whether it was no graceful end
	last   []time.Time  // of those that were none
}

// add is an OnDeath callback.
func (d *deaths) add(w *cluster.Process, e cluster.Exit) {
	d.mu.Lock()
	defer d.mu.Unlock()
	bad := e.Code != 0 || e.Reason == cluster.ReasonStall
	d.killed[w.PID()] = bad
	if bad {
		d.last = append(d.last, time.Now())
	}
}

const (
	// toDie is how long a worker may take that lost a request as it died: a drain
	// has less.
	toDie = 15 * time.Second
	// toReport is how long the report of a death may take.
	toReport = 2 * time.Second
)

// explain waits for the report of a death that explains the loss. A worker that
// was killed between accept and note has told nobody: there any death will do.
func (d *deaths) explain(l loss) bool {
	if len(l.workers) == 0 {
		time.Sleep(toReport)
		d.mu.Lock()
		defer d.mu.Unlock()
		for _, at := range d.last {
			if at.After(l.began.Add(-50 * time.Millisecond)) {
				return true
			}
		}
		return false
	}
	for end := time.Now().Add(toDie); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
		died, killed := d.of(l.workers)
		if killed || died == len(l.workers) {
			return killed
		}
	}
	return false
}

// of returns how many of the workers have died, and whether any by no graceful end.
func (d *deaths) of(workers []int) (died int, killed bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, pid := range workers {
		bad, dead := d.killed[pid]
		if dead {
			died++
		}
		killed = killed || bad
	}
	return died, killed
}
