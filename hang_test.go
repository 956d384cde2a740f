package cluster

import (
	"os"
	"time"
)

// A process with this variable hangs before the package has looked at anything:
// a worker that is never online.
var _ = func() bool {
	for os.Getenv("CLUSTER_TEST_HANG") != "" {
		time.Sleep(time.Hour)
	}
	return true
}()
