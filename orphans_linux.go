package cluster

import (
	"bytes"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// A process that is PID 1, as in a container, inherits the children of every
// process that dies, and has to wait for them: else they stay as zombies.

// orphanAge is how long a zombie must have been one to be nobody's: whoever
// waits for a child of its own has done so by then.
const orphanAge = time.Second

// reapOrphans waits for zombies that are no worker, until stop is closed.
func (m *master) reapOrphans(stop <-chan struct{}) {
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGCHLD)
	defer signal.Stop(signals)
	seen := make(map[int]time.Time)
	look, due := time.NewTimer(0), true
	defer look.Stop()
	for {
		select {
		case <-signals:
			if !due { // else a stream of them would put it off for ever
				look.Reset(orphanAge)
				due = true
			}
		case <-look.C:
			if due = m.reapOnce(seen) > 0; due {
				look.Reset(orphanAge)
			}
		case <-stop:
			return
		}
	}
}

// reapOnce reaps the zombies that were there orphanAge ago. It returns how many
// are left to look at again.
func (m *master) reapOnce(seen map[int]time.Time) (left int) {
	ours := make(map[int]bool)
	forking := false
	m.call(func() {
		s := m.supervisor.Snapshot(time.Now())
		forking = s.Forking
		for _, w := range s.Workers {
			ours[w.Worker.PID] = true
		}
	})
	zombies := make(map[int]bool)
	for _, pid := range zombieChildren() {
		if ours[pid] {
			continue
		}
		zombies[pid] = true
		since, known := seen[pid]
		switch {
		case !known:
			seen[pid] = time.Now()
			left++
		case forking || time.Since(since) < orphanAge:
			left++
		default:
			// By its pid: wait4(-1) would take the status of a worker, or of a
			// command that somebody else waits for.
			unix.Wait4(pid, nil, unix.WNOHANG, nil)
			delete(seen, pid)
		}
	}
	for pid := range seen {
		if !zombies[pid] {
			delete(seen, pid)
		}
	}
	return left
}

// zombieChildren are the children of this process that have exited.
func zombieChildren() (pids []int) {
	stats, _ := filepath.Glob("/proc/[0-9]*/stat")
	self := strconv.Itoa(os.Getpid())
	for _, path := range stats {
		b, err := os.ReadFile(path)
		if err != nil {
			continue
		}
		f := bytes.Fields(b[bytes.LastIndexByte(b, ')')+1:])
		if len(f) > 1 && string(f[0]) == "Z" && string(f[1]) == self {
			var pid int
			fmt.Sscanf(strings.TrimPrefix(path, "/proc/"), "%d", &pid)
			pids = append(pids, pid)
		}
	}
	return pids
}
