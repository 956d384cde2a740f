package supervise

import (
	"math/rand/v2"
	"time"
)

// Settings are those of a generation's options that the supervision needs, with the defaults
// filled in.
type Settings struct {
	Workers                       int
	StartTimeout, ShutdownTimeout time.Duration
	ReadyFor                      time.Duration // how long a replacement must be up before its predecessor drains
	ManualReady                   bool
	ReadyAfter                    time.Duration // how long a worker must be online to count as ready; 0: it says when it is ready
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
	Reset  time.Duration // the crash of a worker that was ready for so long counts as the first
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

// delay returns the wait after the n-th failure in a row. random is in [0, 1).
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

// jittered returns v, larger or smaller by up to the fraction. random is in [0, 1).
func jittered[T ~int | ~int64](v T, fraction, random float64) T {
	if fraction <= 0 {
		return v
	}
	return T(float64(v) * (1 + fraction*(2*random-1)))
}

// dice is the source of the jitter. The seed and the number of casts are all its state, so
// it goes on after Restore.
type dice struct{ Seed, Casts uint64 }

func (d *dice) cast() float64 {
	d.Casts++
	return rand.New(rand.NewPCG(d.Seed, d.Casts)).Float64()
}
