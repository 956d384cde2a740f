package coord

import (
	"context"
	"time"

	"github.com/go-cluster/cluster/internal/broker"
)

// Limiter is a token bucket for each key, for the whole cluster: in any interval no
// more than burst + perSecond·t pass, however many processes there are.
//
// A process takes tokens of a hot key ahead, for at most 5 ms, so that not each call
// asks the master. A key that is full again costs nothing; a million others (2²⁰)
// are kept, and beyond that a new key is [ErrTooMany]: it may be an attacker's to
// choose.
type Limiter struct{ l *broker.Limiter }

// NewLimiter returns the limiter with that name. The numbers that were given last
// hold, in all processes. burst is how many tokens a bucket has at most; with
// math.Inf(1) everything passes. Numbers that are none, and a process whose slot has
// made 4,096 limiters, are an error of each call.
func NewLimiter(name string, perSecond float64, burst int) *Limiter {
	return &Limiter{here.NewLimiter(name, perSecond, burst)}
}

// Allow takes one token of the key, if there is one. If not, retry is how long it is
// until there can be one.
func (l *Limiter) Allow(ctx context.Context, key string) (ok bool, retry time.Duration, err error) {
	return l.l.AllowN(ctx, key, 1)
}

// AllowN is Allow for n tokens, all or none. More than burst is an error.
func (l *Limiter) AllowN(ctx context.Context, key string, n int) (ok bool, retry time.Duration, err error) {
	return l.l.AllowN(ctx, key, n)
}

// Wait waits until it could take a token. It returns an error that wraps
// context.DeadlineExceeded at once if that is after ctx's deadline, and ctx.Err() if
// ctx ends meanwhile.
func (l *Limiter) Wait(ctx context.Context, key string) error { return l.l.Wait(ctx, key) }
