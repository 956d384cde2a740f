//go:build unix

package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/go-cluster/cluster"
)

// What the master's program hands to the next one.

// stateName is the name under which OnUpgrade saves the state.
const stateName = "soak"

// state is what is known of a run.
type state struct {
	Dir     string // of the files that all processes share
	Seed    uint64
	Random  []byte // of rand.PCG
	End     time.Time
	Before  counts
	Clients int // their pid
	Gap     time.Duration

	Done     map[string]int // events, by name
	Errors   int
	Upgrades int
	Failed   []string // upgrades, and why
	Stopped  []int    // pids of workers
}

func (s *state) file(name string) string { return filepath.Join(s.Dir, name) }

func (s *state) exists(name string) bool {
	_, err := os.Stat(s.file(name))
	return !errors.Is(err, fs.ErrNotExist)
}

// succeed goes on with the state of the program before, if there is one, and registers its
// saving for the next program.
func (s *soak) succeed() (was bool) {
	was, err := cluster.Upgraded(stateName, &s.state)
	check(err)
	if was {
		check(s.random.UnmarshalBinary(s.Random))
	}
	cluster.OnUpgrade(stateName, func() (any, error) {
		s.mu.Lock()
		defer s.mu.Unlock()
		over := s.state
		over.Done, over.Stopped = maps.Clone(s.Done), s.pauses.pids()
		var err error
		over.Random, err = s.random.MarshalBinary()
		return over, err
	})
	cluster.OnUpgraded(func(err error) {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.tell("upgraded: %v", err)
		switch {
		case err == nil:
			s.Upgrades++
		case !strings.Contains(err.Error(), "not within"): // this machine is slow
			s.Failed = append(s.Failed, err.Error())
		}
	})
	return was
}

// continueStopped continues the workers that the program before had stopped.
func (s *soak) continueStopped() {
	for _, pid := range s.Stopped {
		s.pauses.add(pid, 1)
		s.pauses.endsIn(time.Second, pid)
	}
}

// startClients starts the process of the clients.
func (s *soak) startClients(address string) {
	c := exec.Command(os.Args[0], os.Args[1:]...)
	c.Env = append(os.Environ(), clientsEnv+"="+address, witnessEnv+"="+s.Dir)
	c.Stdout, c.Stderr = os.Stdout, os.Stderr
	check(c.Start())
	s.Clients = c.Process.Pid
	go c.Wait() // as long as there is this program
}

// stopClients waits for what the clients have to tell.
func (s *soak) stopClients() (t tally) {
	check(os.WriteFile(s.file("stop"), nil, 0o600))
	for !s.exists("tally") {
		if syscall.Kill(s.Clients, 0) != nil && !s.exists("tally") {
			check(fmt.Errorf("the clients are gone"))
		}
		time.Sleep(10 * time.Millisecond)
	}
	text, err := os.ReadFile(s.file("tally"))
	check(err)
	check(json.Unmarshal(text, &t))
	return t
}
