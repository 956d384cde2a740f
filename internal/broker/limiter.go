package broker

import (
	"context"
	"crypto/sha256"
	"fmt"
	"sync"
	"time"

	"github.com/go-cluster/cluster/internal/coordinate"
)

// Limiter is what this process knows of the limiter with one name: for each key the tokens
// that it has taken ahead, and until when it is refused.
type Limiter struct {
	c    *Client
	name string

	mu   sync.Mutex
	bad  error // why its numbers make no sense, or nil
	keys map[string]*limited
	look int // how many keys there may be until old ones are dropped
}

// limited is one key. Times are since Client.epoch.
type limited struct {
	mu      sync.Mutex
	lot     int // tokens that were taken ahead
	lotEnd  time.Duration
	used    int // tokens of the lot that are used
	refused int // so many tokens, or more, are refused until retry
	until   time.Duration
	retry   time.Duration // when there will be enough, as the master has said
	ahead   int           // how many tokens to take ahead next
	asked   time.Duration // when the master was asked last
	asking  chan struct{} // closed when the question under way is answered; nil if there is none
}

const (
	// rememberRefusal bounds how long a refusal is remembered: another process may
	// change the numbers.
	rememberRefusal = 50 * time.Millisecond
	firstLot        = 8
	largestLot      = 1 << 20
	minKeys         = 1024
	longKey         = 64
	longestKey      = len("sha256:") + 2*sha256.Size
	// longSleep bounds how long Wait sleeps until it asks again, for the same reason.
	longSleep = time.Second
)

// NewLimiter gives the limiter these numbers, in all processes.
func (c *Client) NewLimiter(name string, perSecond float64, burst int) *Limiter {
	q := &Question{Verb: verbRate, Name: name, Rate: min(perSecond, coordinate.Unlimited), N: int64(burst)}
	err := q.check()
	if err == nil {
		err = c.up.tell(q)
	}
	c.mu.Lock()
	l := c.limiters[name]
	if l == nil {
		l = &Limiter{c: c, name: name}
		c.limiters[name] = l
	}
	c.mu.Unlock()
	l.mu.Lock()
	defer l.mu.Unlock()
	l.bad, l.keys, l.look = err, make(map[string]*limited), minKeys
	return l
}

// AllowN takes n tokens, all or none.
func (l *Limiter) AllowN(ctx context.Context, key string, n int) (ok bool, retry time.Duration, err error) {
	if err = checkText("the key", key); err == nil && n < 0 {
		err = fmt.Errorf("%d tokens cannot be taken", n)
	}
	if err != nil {
		return false, 0, l.error(err)
	}
	if n == 0 {
		return true, 0, nil
	}
	if len(key) > longKey { // the state may keep a million keys
		key = fmt.Sprintf("sha256:%x", sha256.Sum256([]byte(key)))
	}
	k, err := l.key(key)
	if err != nil {
		return false, 0, l.error(err)
	}
	for {
		k.mu.Lock()
		now := time.Since(l.c.epoch)
		switch {
		case k.lot >= n && now < k.lotEnd:
			k.lot -= n
			k.used += n
			k.mu.Unlock()
			return true, 0, nil
		case now < k.until && n >= k.refused:
			retry = k.retry - now
			k.mu.Unlock()
			return false, retry, nil
		case k.asking == nil:
			k.asking = make(chan struct{})
			q := l.question(k, key, n, now)
			k.mu.Unlock()
			a, err := l.c.ask(ctx, q)
			return l.answered(ctx, k, n, now, a, err)
		}
		asking := k.asking
		k.mu.Unlock()
		select {
		case <-asking:
		case <-ctx.Done():
			return false, 0, ctx.Err()
		}
	}
}

// question asks for n tokens. If the key is used often, it also asks for a lot, of twice the
// tokens that were used of the last one. k.mu is held.
func (l *Limiter) question(k *limited, key string, n int, now time.Duration) *Question {
	q := &Question{Verb: verbTake, Name: l.name, Key: key, N: int64(n), Unused: k.lot}
	switch {
	case now-k.asked > coordinate.LotTime:
		k.ahead = 0
	case k.lot > 0:
		k.ahead = 2 * k.used
	default:
		k.ahead = min(max(2*k.ahead, firstLot), largestLot)
	}
	q.Ahead = k.ahead
	k.lot, k.used = 0, 0
	k.asked = now
	return q
}

// answered notes what the master said.
func (l *Limiter) answered(ctx context.Context, k *limited, n int, asked time.Duration, a Answer, err error) (ok bool, retry time.Duration, _ error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	close(k.asking)
	k.asking = nil
	switch {
	case err != nil:
		if ctx.Err() != nil {
			return false, 0, ctx.Err()
		}
		return false, 0, l.error(err)
	case a.OK:
		k.lot, k.lotEnd = a.Lot, asked+coordinate.LotTime
		k.until = 0
		return true, 0, nil
	}
	retry = time.Duration(a.N)
	now := time.Since(l.c.epoch)
	k.refused, k.until, k.retry = n, now+min(retry, rememberRefusal), now+min(retry, coordinate.Forever-now)
	return false, retry, nil
}

// key returns what is known of a key.
func (l *Limiter) key(key string) (*limited, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.bad != nil {
		return nil, l.bad
	}
	k := l.keys[key]
	if k == nil {
		if len(l.keys) >= l.look {
			l.forget()
		}
		k = new(limited)
		l.keys[key] = k
	}
	return k, nil
}

// forget drops the keys of which nothing is worth knowing any more. l.mu is held.
func (l *Limiter) forget() {
	now := time.Since(l.c.epoch)
	for key, k := range l.keys {
		k.mu.Lock()
		old := k.asking == nil && now >= k.lotEnd && now >= k.until && now-k.asked > coordinate.LotTime
		k.mu.Unlock()
		if old {
			delete(l.keys, key)
		}
	}
	l.look = max(minKeys, 2*len(l.keys))
}

// Wait takes a token, and waits until there is one, or until ctx ends. If ctx is known to end
// first, it does not wait.
func (l *Limiter) Wait(ctx context.Context, key string) error {
	for {
		ok, retry, err := l.AllowN(ctx, key, 1)
		if ok || err != nil {
			return err
		}
		if end, has := ctx.Deadline(); has && time.Until(end) < retry {
			return fmt.Errorf("coord: Limiter(%.64q).Wait: the token comes in %v, which is after the deadline: %w", l.name, retry, context.DeadlineExceeded)
		}
		timer := time.NewTimer(min(retry, longSleep))
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return ctx.Err()
		}
	}
}

func (l *Limiter) error(err error) error {
	return fmt.Errorf("coord: Limiter(%.64q): %w", l.name, err)
}
