// Package early does what tests want a process to do before package cluster is initialised,
// which takes the channel then.
//
// Go initialises packages in the order of their import paths, each when all its imports are
// initialised. This package imports only what package cluster imports too, so its turn comes
// first: package cluster has other imports, which are initialised later.
package early

import (
	"os"
	"time"
)

func init() {
	// A worker that is never online.
	for os.Getenv("CLUSTER_TEST_HANG") != "" {
		time.Sleep(time.Hour)
	}
	// A worker that uses its channel itself: for package cluster it is not a worker.
	if os.Getenv("CLUSTER_TEST_RAW") != "" {
		os.Setenv("CLUSTER_TEST_CHANNEL", os.Getenv("NODE_CHANNEL_FD"))
		os.Unsetenv("NODE_WORKER_ID")
		os.Unsetenv("NODE_UNIQUE_ID")
	}
}
