// Package coord gives the processes of a cluster what one process has by itself: a counter,
// a cache, a lock, a job that runs once. The master has the state.
//
//	coord.Lead("report", func(ctx context.Context) error { … })   // in one process at a time
//	coord.Once(ctx, "migrate", migrate)                           // in one process, and all wait for it
//	coord.Publish("prices", p)                                    // to all processes
//	unlock, err := coord.Lock(ctx, "invoice 7")                   // one at a time
//	n, err := coord.Open("hits").Incr(ctx, "/", 1, 0)             // counted together
//	ok, retry, err := limiter.Allow(ctx, clientIP)                // limited together
//
// A program can use the package in three roles. In a worker and in the master all calls
// concern the one state of the cluster, which is in the master: it survives every worker,
// and ends with the master. A process that has not forked has a state of its own, so the
// same program runs, and is tested, as one process. The one exception is [Lead]: in a
// master that has forked it runs nothing. The master may be another program
// (cluster.Options.Exec) that does not import this package. Under a node primary all
// calls return an error that wraps cluster.ErrNotSupported.
//
// Any goroutine may call the functions, and so may callbacks of the cluster. An error wraps
// cluster.ErrClosed when the master is gone, [ErrTooLarge] when a name, a key or a value is
// too long, and [ErrTooMany] when the process has as many of something as it may. It is
// ctx.Err() when ctx ends first; what the call asked for may have happened even so. Names
// and keys are UTF-8 of at most 1 KiB.
//
// # Two at once
//
// Within one master it is impossible that two processes lead a name, or hold a lock, at the
// same time. A successor is chosen when the function has returned, or when the process is
// dead, which its parent knows for certain. A process that is stopped (SIGSTOP) keeps what
// it has.
//
// Another master is another cluster. When a master is killed its workers end what they
// lead. But a function that ignores its ctx may go on until Options.ShutdownTimeout, when
// the next master has begun already. Where that matters, let the service manager end all
// processes of the old master first (systemd: KillMode=mixed), or let the function hold a
// file lock of its own.
//
// Several machines need more than this: the module fleet of this repository has the same
// verbs over NATS.
package coord

import (
	"github.com/go-cluster/cluster"
	"github.com/go-cluster/cluster/internal/broker"
)

// here is this process's part of the cluster.
var here = cluster.Context().Value(broker.Key{}).(*broker.Client)

var (
	// ErrTooLarge is returned when a name, a key or a value is longer than it may be, or
	// does not fit into Options.MaxMessage or Options.MaxStore.
	ErrTooLarge = cluster.ErrTooLarge

	// ErrTooMany is returned when a process has as many of something as it may: names
	// that it leads, topics and waiting locks (4,096 each), keys of limiters.
	ErrTooMany = cluster.ErrTooMany
)
