//go:build unix

package main

import (
	"fmt"
	"net"
	"os"
	"strings"
	"time"

	"github.com/go-cluster/cluster"
)

// Which worker had a request that got no answer, and whether that worker died. Several workers
// die each second, so the time alone would excuse nearly every loss.

// acceptsEnv tells the workers the name of the file of accepts.
const acceptsEnv = "SOAK_ACCEPTS"

// accepts is a file in which the workers note, for each connection, which of them accepted it
// and when. The notes stay when a worker crashes.
type accepts struct{ file *os.File }

func openAccepts(path string) (accepts, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_APPEND|os.O_CREATE, 0o600)
	return accepts{f}, err
}

// note is called by the worker that has accepted a connection from client.
func (a accepts) note(client net.Addr) {
	fmt.Fprintf(a.file, "%v %d %d\n", client, os.Getpid(), time.Now().UnixNano())
}

// by returns the pids of the workers that accepted client's connection, which began at the time
// began. There are several if a worker was killed before it could tell the master that it had
// the connection: then the connection went to another one.
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
		if address == client.String() && at >= began.UnixNano() { // an earlier connection may have had the port
			pids = append(pids, by)
		}
	}
	return pids
}

// deaths is a file of the workers' deaths. The master writes it, also after an upgrade, and the
// clients read it.
type deaths struct{ file *os.File }

func openDeaths(path string) (deaths, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_APPEND|os.O_CREATE, 0o600)
	return deaths{f}, err
}

// add is an OnDeath callback.
func (d deaths) add(w *cluster.Process, e cluster.Exit) {
	bad := e.Code != 0 || e.Reason == cluster.ReasonStall
	_, err := fmt.Fprintf(d.file, "%d %v %d\n", w.PID(), bad, time.Now().UnixNano())
	check(err)
}

// all returns the deaths so far, by pid: whether the worker was killed or crashed. last is the
// time of the last such death.
func (d deaths) all() (killed map[int]bool, last time.Time) {
	info, err := d.file.Stat()
	check(err)
	text := make([]byte, info.Size())
	n, _ := d.file.ReadAt(text, 0)
	killed = make(map[int]bool)
	for line := range strings.Lines(string(text[:n])) {
		var pid int
		var bad bool
		var at int64
		fmt.Sscan(line, &pid, &bad, &at)
		if killed[pid] = bad; bad {
			last = time.Unix(0, at)
		}
	}
	return killed, last
}

const (
	// toDie bounds the time from the loss of a request to the death of the worker that had it.
	// A drain takes less.
	toDie = 15 * time.Second
	// toReport bounds the time until a death is reported, if an upgrade is under way.
	toReport = 8 * time.Second
)

// explain waits for the report of a death that explains the loss. A worker that was killed
// between accept and note has noted nothing: then any death will do.
func (d deaths) explain(l loss) bool {
	if len(l.workers) == 0 {
		time.Sleep(toReport)
		_, last := d.all()
		return last.After(l.began.Add(-50 * time.Millisecond))
	}
	for end := time.Now().Add(toDie); time.Now().Before(end); time.Sleep(50 * time.Millisecond) {
		died, killed := d.of(l.workers)
		if killed || died == len(l.workers) {
			return killed
		}
	}
	return false
}

// of returns how many of the workers have died, and whether one of them was killed or crashed.
func (d deaths) of(workers []int) (died int, killed bool) {
	all, _ := d.all()
	for _, pid := range workers {
		bad, dead := all[pid]
		if dead {
			died++
		}
		killed = killed || bad
	}
	return died, killed
}
