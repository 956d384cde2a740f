package cluster

import (
	"context"
	"log/slog"

	"github.com/go-cluster/cluster/internal/drain"
)

// testInside is a worker's own side of p whose drain ends nothing.
func testInside(p *Process, hello announcement) *inside {
	in := newInside(p, hello)
	in.drain = drain.New(p.id, hello.Connections, drain.Hooks{
		Logger:    slog.Default,
		Begun:     func() {},
		Announce:  func(drain.Reason) {},
		Full:      func() {},
		Work:      func() {},
		Flush:     func(context.Context) {},
		Close:     func() {},
		Callbacks: func(<-chan struct{}) {},
		Exit:      func(int) {},
	})
	return in
}
