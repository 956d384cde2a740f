package supervise

import (
	"math/rand/v2"
	"time"
)

// Settings are what the supervision needs to know of a generation's options, with
// the defaults filled in.
type Settings struct {
	Workers                       int
	StartTimeout, ShutdownTimeout time.Duration
	ReadyFor                      time.Duration // how long a replacement is watched before its predecessor drains
	ManualReady                   bool
	ReadyAfter                    time.Duration // a worker that has been online so long is ready without a word; 0: it says so
	MaxBootFailures               int           // negative: never give up
	Backoff                       Backoff
	Watchdog                      Watchdog
	Recycle                       Recycle
}

// Backoff says how long to wait after crashes in a row.
type Backoff struct {
	Min    time.Duration
	Max    time.Duration
	Factor float64
	Reset  time.Duration // a worker that was ready so long makes the next crash a first one
	Jitter float64       // each wait is up to this fraction longer or shorter; negative: none
}

// Watchdog says how workers that hang are found.
type Watchdog struct {
	Interval time.Duration
	Timeout  time.Duration // negative: off
}

// Recycle says when a worker has served long enough. Zero limits are off.
type Recycle struct {
	Connections int
	Age         time.Duration
	Memory      int64
	Jitter      float64
	MinAge      time.Duration
}

// delay is the wait after the n-th failure in a row.
func (b Backoff) delay(n int, random float64) time.Duration {
	if n <= 1 {
		return 0
	}
	d := float64(b.Min)
	for range n - 2 {
		if d *= b.Factor; d >= float64(b.Max) {
			d = float64(b.Max)
			break
		}
	}
	return jittered(time.Duration(d), b.Jitter, random)
}

// jittered is v, up to the fraction longer or shorter; random is in [0, 1).
func jittered[T ~int | ~int64](v T, fraction, random float64) T {
	if fraction <= 0 {
		return v
	}
	return T(float64(v) * (1 + fraction*(2*random-1)))
}

// dice are the source of the jitter: how often they were cast is all their state.
type dice struct{ Seed, Casts uint64 }

func (d *dice) cast() float64 {
	d.Casts++
	return rand.New(rand.NewPCG(d.Seed, d.Casts)).Float64()
}
