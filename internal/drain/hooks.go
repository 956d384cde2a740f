package drain

import (
	"context"
	"log/slog"
	"slices"
	"sync"
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

// Run calls the hooks one after another, the latest registered first, as
// deferred calls. It leaves one that does not return when ctx ends. An error is
// logged with what logger returns.
func (s *ShutdownHooks) Run(ctx context.Context, logger func() *slog.Logger) {
	s.mu.Lock()
	hooks := s.hooks
	s.mu.Unlock()
	wait(ctx, func() {
		for _, h := range slices.Backward(hooks) {
			if err := h.fn(ctx); err != nil {
				logger().Warn("cluster: an OnShutdown hook failed", "err", err)
			}
		}
	})
}
