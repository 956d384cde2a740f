package process

import (
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// orphanAge is how long a process must have been a zombie to count as an orphan: a program
// that waits for a child of its own has done so by then.
const orphanAge = time.Second

// ReapOrphans waits for zombies that nobody else waits for, until stop is closed.
// A process that is PID 1, as in a container, inherits the children of every
// process that dies, and has to wait for them: else they stay as zombies.
//
// waited returns the processes that somebody waits for, and whether a process is being
// started whose number is not known yet.
func ReapOrphans(stop <-chan struct{}, waited func() (pids []int, starting bool)) {
	r := reaper{waited: waited, seen: make(map[int]time.Time)}
	r.run(stop)
}

// ReapLeft waits for those of pids that nobody else waits for, until none of them is a
// child of this process any more. It is for children that the program before an upgrade
// has started. waited is as for [ReapOrphans].
func ReapLeft(pids []int, waited func() (pids []int, starting bool)) {
	r := reaper{waited: waited, seen: make(map[int]time.Time), only: make(map[int]bool)}
	for _, pid := range pids {
		r.only[pid] = true
	}
	if !r.over() {
		r.run(nil)
	}
}

// Children are the children of this process.
func Children() (pids []int) {
	lists, _ := filepath.Glob("/proc/self/task/*/children")
	for _, list := range lists {
		text, _ := os.ReadFile(list)
		for _, field := range strings.Fields(string(text)) {
			if pid, err := strconv.Atoi(field); err == nil {
				pids = append(pids, pid)
			}
		}
	}
	return pids
}

type reaper struct {
	waited func() (pids []int, starting bool)
	seen   map[int]time.Time // zombies, and since when
	only   map[int]bool      // nil: all
}

// run reaps until stop is closed, or over is true.
func (r *reaper) run(stop <-chan struct{}) {
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGCHLD)
	defer signal.Stop(signals)
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
			if due = r.reap() > 0; due {
				look.Reset(orphanAge)
			}
			if r.over() {
				return
			}
		case <-stop:
			return
		}
	}
}

// over reports whether no process of only is left. It forgets a process that is gone,
// since its number may be given to another one later.
func (r *reaper) over() bool {
	self := strconv.Itoa(os.Getpid())
	for pid := range r.only {
		if stat := readStat(pid); stat == nil || stat[statParent] != self {
			delete(r.only, pid)
		}
	}
	return r.only != nil && len(r.only) == 0
}

// reap reaps the zombies that were there orphanAge ago. It returns how many are
// left to look at again.
func (r *reaper) reap() (left int) {
	ours, starting := r.waited()
	zombies := make(map[int]bool)
	for _, pid := range zombieChildren() {
		if slices.Contains(ours, pid) || r.only != nil && !r.only[pid] {
			continue
		}
		zombies[pid] = true
		since, known := r.seen[pid]
		switch {
		case !known:
			r.seen[pid] = time.Now()
			left++
		case starting || time.Since(since) < orphanAge:
			left++
		default:
			// By its pid: wait4(-1) would take the status of a worker, or of a
			// command that somebody else waits for.
			unix.Wait4(pid, nil, unix.WNOHANG, nil)
			delete(r.seen, pid)
		}
	}
	for pid := range r.seen {
		if !zombies[pid] {
			delete(r.seen, pid)
		}
	}
	return left
}

// zombieChildren are the children of this process that have exited.
func zombieChildren() (pids []int) {
	dirs, _ := filepath.Glob("/proc/[0-9]*")
	self := strconv.Itoa(os.Getpid())
	for _, dir := range dirs {
		pid, err := strconv.Atoi(strings.TrimPrefix(dir, "/proc/"))
		if err != nil {
			continue
		}
		if stat := readStat(pid); stat != nil && stat[statState] == "Z" && stat[statParent] == self {
			pids = append(pids, pid)
		}
	}
	return pids
}
