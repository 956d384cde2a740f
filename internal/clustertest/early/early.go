// Package early does what tests want of a process before package cluster has
// looked at anything: that package takes its channel when it is initialised.
//
// Go initialises a package as soon as all that it imports is, in the order of
// import paths. This one imports only what package cluster imports too, so it
// comes before package cluster, whose other imports need package os themselves.
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
	// A worker that uses its channel itself: it is none as the package sees it.
	if os.Getenv("CLUSTER_TEST_RAW") != "" {
		os.Setenv("CLUSTER_TEST_CHANNEL", os.Getenv("NODE_CHANNEL_FD"))
		os.Unsetenv("NODE_WORKER_ID")
		os.Unsetenv("NODE_UNIQUE_ID")
	}
}
