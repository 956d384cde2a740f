// Package handles_test has the tests of what goes with messages from process to
// process: connections, listeners, datagram sockets and files.
package handles_test

import (
	"testing"

	"github.com/go-cluster/cluster/internal/clustertest"
)

func TestMain(m *testing.M) { clustertest.Main(m) }
