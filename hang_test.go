package cluster

import (
	"os"
	"time"
)

// What tests want of a process before the package has looked at anything.
var _ = func() bool {
	// A worker that is never online.
	for os.Getenv("CLUSTER_TEST_HANG") != "" {
		time.Sleep(time.Hour)
	}
	// A worker that uses its channel itself: it is none as the package sees it.
	if os.Getenv("CLUSTER_TEST_RAW") != "" {
		os.Setenv("CLUSTER_TEST_CHANNEL", os.Getenv(envChannelFD))
		os.Unsetenv(envWorkerID)
		os.Unsetenv(envUniqueID)
	}
	return true
}()
