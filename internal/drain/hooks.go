package drain

import (
	"context"
	"log/slog"
	"slices"
	"sync"

	"github.com/go-cluster/cluster/internal/callback"
)

// ShutdownHooks are functions to run at the end: of a worker's drain, or of the
// master's Run. The zero value is empty and ready to use.
type ShutdownHooks struct {
	mu    sync.Mutex
	hooks []*shutdownHook // in the order of their registration; never changed in place
}

type shutdownHook struct{ fn func(context.Context) error }

// Add registers fn. The returned func unregisters it.
func (s *ShutdownHooks) Add(fn func(context.Context) error) (stop func()) {
	h := &shutdownHook{fn}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.hooks = append(slices.Clone(s.hooks), h)
	return func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.hooks = slices.DeleteFunc(slices.Clone(s.hooks), func(x *shutdownHook) bool { return x == h })
	}
}

// atOnce are functions that are called in the beginning of a drain, each on a goroutine
// of its own.
type atOnce struct {
	mu    sync.Mutex
	fns   []func()
	begun bool
}

// AtOnce registers fn to be called at the beginning of the drain, when nothing new is
// taken any more. It is for servers that end their connections themselves. If the drain
// has come so far already, fn is called now.
func (d *Drain) AtOnce(fn func()) {
	d.atOnce.mu.Lock()
	defer d.atOnce.mu.Unlock()
	if d.atOnce.begun {
		go fn()
		return
	}
	d.atOnce.fns = append(d.atOnce.fns, fn)
}

func (a *atOnce) begin() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.begun = true
	for _, fn := range a.fns {
		go fn()
	}
	a.fns = nil
}

// Run calls the hooks one after another, the latest registered first, as
// deferred calls. It leaves one that does not return when ctx ends. An error is
// logged with what logger returns.
func (s *ShutdownHooks) Run(ctx context.Context, logger func() *slog.Logger) {
	s.mu.Lock()
	hooks := s.hooks
	s.mu.Unlock()
	wait(ctx, func() {
		for _, h := range slices.Backward(hooks) {
			if err := callback.Wait(func() error { return h.fn(ctx) }); err != nil {
				logger().Warn("cluster: an OnShutdown hook failed", "err", err)
			}
		}
	})
}
