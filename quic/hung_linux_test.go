package quic_test

import (
	"testing"
	"time"

	"github.com/go-cluster/cluster"
	"github.com/go-cluster/cluster/internal/clustertest"
	"github.com/stretchr/testify/require"
)

// TestHungWorker: who connects while a worker is stopped is served by the others, wherever
// its datagrams come; what is connected to that goes on when it does, and it takes part again.
func TestHungWorker(t *testing.T) {
	addr, config, _ := beginWith(t, echo, cluster.Options{Workers: 2, Watchdog: cluster.Watchdog{Interval: 100 * time.Millisecond, Timeout: time.Hour}})
	for pid, p := range dialAll(t, addr, config, 2) {
		if w := bySlot(0); w.PID() != pid {
			p.CloseWithError(0, "")
			continue
		}
		clustertest.PauseWorker(t, bySlot(0))
		for range 12 { // all of them for the other one by chance: 1 of 4,096
			fresh := dial(t, addr, config)
			other, _ := fresh.ask(t)
			require.NotEqual(t, pid, other)
			fresh.CloseWithError(0, "")
		}
		clustertest.Kill(t, pid, clustertest.SigCont)
		got, _ := p.ask(t)
		require.Equal(t, pid, got)
	}
	dialAll(t, addr, config, 2)
}

// bySlot returns the worker of a slot.
func bySlot(slot int) *cluster.Process {
	for _, w := range cluster.Workers() {
		if w.Slot() == slot {
			return w
		}
	}
	return nil
}
