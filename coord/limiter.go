package coord

import (
	"context"
	"time"

	"github.com/go-cluster/cluster/internal/broker"
)

// Limiter is a token bucket for each key, for the whole cluster. In any interval of t seconds
// no more than burst + perSecond·t pass, however many processes there are.
//
// If a key is used often, a process takes tokens for it ahead, and keeps them for at most
// 5 ms, so that not every call asks the master. A key whose bucket is full again costs no
// memory. At most 2²⁰ others are kept, since an attacker may be able to choose keys. Beyond
// that a call with a new key returns [ErrTooMany].
type Limiter struct{ l *broker.Limiter }

// NewLimiter returns the limiter with that name. perSecond is how many tokens come to a
// bucket in a second; with math.Inf(1) everything passes. burst is how many tokens a bucket
// has at most. If processes give different numbers, the last ones hold in all of them.
// NewLimiter returns no error: the limiter's methods do, if the numbers make no sense, or if
// the process's slot has made 4,096 limiters.
func NewLimiter(name string, perSecond float64, burst int) *Limiter {
	return &Limiter{here.NewLimiter(name, perSecond, burst)}
}

// Allow takes one token of the key, if there is one. Otherwise ok is false, and before retry
// is over there will be none.
func (l *Limiter) Allow(ctx context.Context, key string) (ok bool, retry time.Duration, err error) {
	return l.l.AllowN(ctx, key, 1)
}

// AllowN is Allow for n tokens, all or none. It is an error if n is more than burst.
func (l *Limiter) AllowN(ctx context.Context, key string, n int) (ok bool, retry time.Duration, err error) {
	return l.l.AllowN(ctx, key, n)
}

// Wait takes one token of the key, and waits until there is one. If that is later than the
// deadline of ctx, it returns an error at once that wraps context.DeadlineExceeded. It
// returns ctx.Err() if ctx ends meanwhile.
func (l *Limiter) Wait(ctx context.Context, key string) error { return l.l.Wait(ctx, key) }
