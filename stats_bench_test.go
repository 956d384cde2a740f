package cluster

import (
	"os"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// BenchmarkStats is the cost of Stats for 64 workers, without what it reads in
// /proc: at most 50 µs.
func BenchmarkStats(b *testing.B) {
	m := newMaster()
	started := make(chan *Process, 64)
	m.start = func(p *Process, env []string) error { p.child.started = time.Now(); started <- p; return nil }
	m.kill = func(*Process, os.Signal) error { return nil }
	m.ping = func(*Process) bool { return false }
	require.NoError(b, m.setup(Options{Workers: 64}))
	require.NoError(b, m.autoFork())
	for range 64 {
		p := <-started
		m.call(func() { m.online(p); m.ready(p) })
	}
	b.ReportAllocs()
	for b.Loop() {
		m.stats()
	}
	m.call(func() { m.beginStop() })
	for _, p := range m.list() {
		m.call(func() { m.exited(p, nil) })
	}
}
