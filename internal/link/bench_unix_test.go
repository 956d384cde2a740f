//go:build unix

package link

import (
	"context"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/go-cluster/cluster/internal/channel"
	"github.com/go-cluster/cluster/internal/roomtest"
	"github.com/go-cluster/cluster/internal/wire"
)

// The benchmarks here compare a trick of timing with the same link without it. Both
// ends are in one process. That of readTurn is in test/bench: it saves a wake-up, and
// one process does not wake itself.

// benchItem is an ordinary message.
type benchItem struct {
	Cmd string `json:"cmd"`
	N   int    `json:"n"`
}

// benchEnds are the two ends of a channel. prepare changes them before they read.
func benchEnds(b *testing.B, prepare func(ours, theirs *testLink)) (ours, theirs *testLink) {
	c, file, err := channel.Pair()
	require.NoError(b, err)
	fd, err := unix.FcntlInt(file.Fd(), unix.F_DUPFD_CLOEXEC, 0)
	require.NoError(b, err)
	require.NoError(b, file.Close())
	other, err := channel.Inherit(fd)
	require.NoError(b, err)
	end := func(c *channel.Channel) *testLink {
		l := &testLink{t: b, errors: make(chan error, 1000), internals: make(chan internalCall, 1000),
			overruns: make(chan struct{}, 1000), ended: make(chan struct{})}
		l.p = &above{errs: l.errors, responders: make(map[string]answers), forgets: true}
		l.Link = New(c, l.p, l, PeerGo, Options{Name: "worker 1", MaxMessage: 64 << 20, MaxQueue: 64 << 20})
		l.p.link = l.Link
		return l
	}
	ours, theirs = end(c), end(other)
	theirs.p.onRequest("echo", func(msg []byte) (any, error) { return benchItem{"echo", 1}, nil })
	theirs.p.onMessage(func(string) {})
	prepare(ours, theirs)
	ours.Start(0)
	theirs.Start(0)
	b.Cleanup(func() {
		ours.Close()
		roomtest.Await(b, ours.ended, "end")
		roomtest.Await(b, theirs.ended, "end")
	})
	return ours, theirs
}

func benchRequests(b *testing.B, l *testLink) {
	for b.Loop() {
		var got benchItem
		if err := l.Request(context.Background(), benchItem{"echo", 1}, &got); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkAnswer is a Request that is answered by the goroutine that has read it, by one that
// rests until a request comes, and by a new goroutine for each.
func BenchmarkAnswer(b *testing.B) {
	for name, prepare := range map[string]func(theirs *testLink){
		"reader":  func(*testLink) {},
		"resting": func(l *testLink) { l.in.byCaller = true }, // the reader has better things to do
		"new": func(l *testLink) {
			l.in.byCaller = true
			l.workers.resting.Store(1) // one rests already, it says
		},
	} {
		b.Run(name, func(b *testing.B) {
			ours, _ := benchEnds(b, func(_, theirs *testLink) { prepare(theirs) })
			benchRequests(b, ours)
		})
	}
}

// BenchmarkDeliver is one of many messages in a loop, which are decoded by who has read them,
// and by another goroutine.
func BenchmarkDeliver(b *testing.B) {
	take := func(m string) {
		var v benchItem
		if err := wire.Decode([]byte(m), &v); err != nil {
			b.Error(err)
		}
	}
	for name, prepare := range map[string]func(theirs *testLink){
		"reader": func(l *testLink) { l.here(take) },
		"queue":  func(l *testLink) { l.p.onMessage(take) },
	} {
		b.Run(name, func(b *testing.B) {
			ours, _ := benchEnds(b, func(_, theirs *testLink) { prepare(theirs) })
			for b.Loop() {
				for ours.Send(benchItem{"count", 1}, nil) != nil {
					ours.Flush(context.Background()) // the bound is reached
				}
			}
			if err := ours.SendContext(context.Background(), benchItem{"last", 1}); err != nil {
				b.Fatal(err)
			}
		})
	}
}

// BenchmarkHoldBack is one of many messages in a loop: held back until they make
// a batch, and each for itself as soon as the kernel takes it.
func BenchmarkHoldBack(b *testing.B) {
	for name, run := range map[string]int{"held": burstRun, "at once": -1 << 30} {
		b.Run(name, func(b *testing.B) {
			ours, _ := benchEnds(b, func(ours, theirs *testLink) {})
			for b.Loop() {
				ours.out.mu.Lock()
				ours.out.back.run = run
				ours.out.mu.Unlock()
				for ours.Send(benchItem{"count", 1}, nil) != nil {
					ours.Flush(context.Background()) // the bound is reached
				}
			}
			ours.Flush(context.Background())
		})
	}
}
