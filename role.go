package cluster

import (
	"encoding/json"
	"fmt"
	"os"
	"strconv"
	"time"

	"github.com/go-cluster/cluster/internal/channel"
)

// The variables that make a process a worker. A node primary sets all but the
// first and the last.
const (
	envWorkerID      = "NODE_WORKER_ID"
	envUniqueID      = "NODE_UNIQUE_ID"
	envChannelFD     = "NODE_CHANNEL_FD"
	envSerialization = "NODE_CHANNEL_SERIALIZATION_MODE"
	envAnnouncement  = "NODE_GO_CLUSTER"
)

var roleEnv = []string{envWorkerID, envUniqueID, envChannelFD, envSerialization, envAnnouncement}

// announcement is what a Go worker learns from its master beyond what a node
// worker does, as JSON in one environment variable.
type announcement struct {
	Version         int           `json:"version"`
	Slot            int           `json:"slot"`
	ManualReady     bool          `json:"manualReady,omitempty"`
	Connections     int           `json:"connections,omitempty"` // after which it is full
	ShutdownTimeout time.Duration `json:"shutdownTimeout"`       // ns
	MaxMessage      int           `json:"maxMessage"`
	MaxQueue        int           `json:"maxQueue"`
}

// pid is this process's.
var pid = os.Getpid()

// joinCluster finds this process's role and, in a worker, begins to talk to the
// master.
func joinCluster(c *cluster) *Process {
	env := make(map[string]string)
	for _, k := range roleEnv {
		env[k] = os.Getenv(k)
		// What this process starts itself is no worker of that master.
		os.Unsetenv(k)
	}
	id := env[envWorkerID]
	if id == "" {
		id = env[envUniqueID]
	}
	n, err := strconv.Atoi(id)
	if err != nil || n < 1 || env[envChannelFD] == "" {
		return nil
	}
	fd, err := strconv.Atoi(env[envChannelFD])
	if err != nil || fd < 0 {
		return nil
	}
	ch, err := channel.Inherit(fd)
	if err == channel.ErrForeign {
		// Going on would make a master of a worker: a fork bomb.
		fmt.Fprintf(os.Stderr, "cluster: this process is a worker of a node primary: %v on Windows; run primary and workers with this package\n", ErrNotSupported)
		os.Exit(1)
	}
	if err != nil {
		// The variables leaked from another worker; there is no channel here.
		return nil
	}
	if mode := env[envSerialization]; mode != "" && mode != "json" {
		// Going on would make a master of a worker: a fork bomb.
		fmt.Fprintf(os.Stderr, "cluster: worker %d: the primary uses serialization %q, which this package does not speak; "+
			"use cluster.setupPrimary({serialization: 'json'}), node's default\n", n, mode)
		os.Exit(1)
	}
	return newWorker(c, n, ch, readAnnouncement(env[envAnnouncement]))
}

// readAnnouncement reads the variable's value. Without one, or with something
// else in it, the master is taken for a node primary.
func readAnnouncement(text string) announcement {
	node := announcement{Slot: -1, ShutdownTimeout: defaultShutdownTimeout, MaxMessage: defaultMaxMessage, MaxQueue: defaultMaxQueue}
	hello := node
	if json.Unmarshal([]byte(text), &hello) != nil ||
		hello.Slot < -1 || hello.ShutdownTimeout <= 0 || hello.MaxMessage <= 0 || hello.MaxQueue <= 0 {
		return node
	}
	return hello
}
