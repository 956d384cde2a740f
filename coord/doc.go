// Package coord gives the processes of a cluster back what one process has: a
// counter, a cache, a lock, a job that runs once. The state is the master's.
//
//	coord.Lead("report", func(ctx context.Context) error { … })   // in one process at a time
//	coord.Once(ctx, "migrate", migrate)                           // in one process, and all wait for it
//	coord.Publish("prices", p)                                    // to all processes
//	unlock, err := coord.Lock(ctx, "invoice 7")                   // one at a time
//	n, err := coord.Open("hits").Incr(ctx, "/", 1, 0)             // counted together
//	ok, retry, err := limiter.Allow(ctx, clientIP)                // limited together
//
// The same program works in three roles. In a worker and in the master all calls
// concern the one state of the cluster, which lives in the master: it survives every
// worker, and ends with the master. In a process that has not forked the state is
// its own, so a program runs, and is tested, as one process. Only [Lead] runs
// nothing in a master that has forked. The master may be another program
// (cluster.Options.Exec) that does not import this package. Under a node primary all
// calls return an error that wraps cluster.ErrNotSupported.
//
// All functions may be called by any goroutine, callbacks of the cluster included.
// Errors wrap cluster.ErrClosed when the master is gone, [ErrTooLarge] for a name, a
// key or a value that is too long, [ErrTooMany] when a process has as many of
// something as it may, and are ctx.Err() when ctx ends first: what was asked for may
// have happened all the same then. Names and keys are UTF-8 of at most 1 KiB.
//
// # Two at once
//
// Within one master it is impossible that a name is led, or a lock held, in two
// processes at once: a successor is chosen when the function has returned there or
// the process is dead, as its parent sees it. A process that is stopped (SIGSTOP)
// keeps what it has. Another master is another cluster: when a master is killed its
// workers end what they lead, but a function that ignores its ctx may go on until
// Options.ShutdownTimeout while the next master has begun. Where that matters let
// the service manager end all processes of the old master first (systemd:
// KillMode=mixed), or let the function hold a file lock of its own.
//
// Several machines need more than this: Redis, NATS, a database.
package coord

import (
	"github.com/go-cluster/cluster"
	"github.com/go-cluster/cluster/internal/broker"
)

// here is this process's part of the cluster.
var here = cluster.Context().Value(broker.Key{}).(*broker.Client)

var (
	// ErrTooLarge is returned for a name, a key or a value that is longer than it may
	// be, or that does not fit into Options.MaxMessage or Options.MaxStore.
	ErrTooLarge = cluster.ErrTooLarge

	// ErrTooMany is returned when a process has as many of something as it may: names
	// that it leads, topics and waiting locks (4,096 each), keys of limiters.
	ErrTooMany = cluster.ErrTooMany
)
