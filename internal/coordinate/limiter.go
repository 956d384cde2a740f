package coordinate

import (
	"container/heap"
	"encoding/json"
	"fmt"
	"math"
	"time"
)

// A limiter is a token bucket for each key: the bucket fills at a rate, up to a
// burst. A member may take tokens ahead, as a lot: it uses them by itself until the
// lot expires. So that no more than burst + rate·t pass in any interval, wherever
// it begins, a lot counts against the burst until it has expired or its member says
// that it uses it no more: what the bucket has and what is in lots is never more
// than the burst.

const (
	// LotTime is how long a lot may be used. The member counts from when it asked,
	// the state from when it gave.
	LotTime = 5 * time.Millisecond
	// MaxKeys is what Settings.MaxKeys is for a cluster.
	MaxKeys = 1 << 20
	// Unlimited is a rate that lets everything pass.
	Unlimited = math.MaxFloat64
	// Forever is how long to wait for what does not come.
	Forever = time.Duration(math.MaxInt64)
)

// Rate is what a limiter lets pass.
type Rate struct {
	PerSecond float64
	Burst     int
}

type limiters struct {
	rates   map[string]Rate
	names   map[string]string // of rates: the string that their buckets share
	buckets map[bucketName]*bucket
	full    byTime[*bucket] // the next to be full first
}

type bucketName struct{ Limiter, Key string }

// bucket is one that is not full.
type bucket struct {
	bucketName
	Level float64
	As    time.Time // when that was the level
	Lots  []lot     // not expired
	Full  time.Time // when it is full again, about
	at    int       // in full; -1 before it is there
}

type lot struct {
	Member, Tokens int
	End            time.Time
}

func (l *limiters) init() {
	l.rates = make(map[string]Rate)
	l.names = make(map[string]string)
	l.buckets = make(map[bucketName]*bucket)
}

// SetRate gives the limiter new numbers.
func (st *State) SetRate(member int, name string, r Rate) error {
	l := &st.Limiters
	if _, has := l.rates[name]; !has {
		p := st.place(member)
		n := st.Lasting[p]
		if n.Limiters >= Most {
			return tooMany("%d limiters were made", Most)
		}
		n.Limiters++
		st.Lasting[p] = n
		l.names[name] = name
	}
	l.rates[name] = r
	return nil
}

// Take is what a member wants of a limiter.
type Take struct {
	Name, Key string
	Tokens    int // that pass now
	Ahead     int // more, as a lot, if there are enough; 0 for none
	Unused    int // of the last lot for this key, which is used no more
}

// Taken is what it gets.
type Taken struct {
	OK    bool
	Lot   int           // tokens that it may use for LotTime
	Retry time.Duration // if it is not OK: when it can be at the soonest
}

// Take takes tokens, all or none.
func (st *State) Take(now time.Time, member int, t Take) (Taken, error) {
	l := &st.Limiters
	r, has := l.rates[t.Name]
	switch {
	case !has:
		return Taken{}, fmt.Errorf("limiter %q has no numbers", t.Name)
	case r.PerSecond >= Unlimited:
		return Taken{OK: true, Lot: t.Ahead}, nil
	case t.Tokens > r.Burst:
		return Taken{Retry: Forever}, fmt.Errorf("%d tokens are more than the burst, which is %d", t.Tokens, r.Burst)
	}
	l.forgetFull(now, 2)
	b, err := l.bucket(now, t, r, st.Settings.MaxKeys)
	if err != nil {
		return Taken{}, err
	}
	b.update(now, r)
	b.giveBack(now, member, t.Unused, r)
	if b.Level < float64(t.Tokens) {
		l.fix(b, r)
		return Taken{Retry: r.time(float64(t.Tokens) - b.Level)}, nil
	}
	b.Level -= float64(t.Tokens)
	got := Taken{OK: true}
	// A lot is no more than what comes in half of its time, and leaves as much to
	// others.
	got.Lot = max(0, int(min(float64(t.Ahead), r.PerSecond*LotTime.Seconds()/2, b.Level/2)))
	if got.Lot > 0 {
		b.Level -= float64(got.Lot)
		b.Lots = append(b.Lots, lot{member, got.Lot, now.Add(LotTime)})
	}
	l.fix(b, r)
	return got, nil
}

// bucket returns that of the key, a full one if it is not there. There are so many at
// most.
func (l *limiters) bucket(now time.Time, t Take, r Rate, most int) (*bucket, error) {
	name := bucketName{t.Name, t.Key}
	if b := l.buckets[name]; b != nil {
		return b, nil
	}
	// A few at a time: the others that ask wait meanwhile.
	for len(l.buckets) >= most && !l.full[0].Full.After(now) {
		l.forgetFull(now, 64)
	}
	if len(l.buckets) >= most {
		return nil, tooMany("%d keys of limiters are in use", most)
	}
	name.Limiter = l.names[name.Limiter]
	b := &bucket{bucketName: name, Level: float64(r.Burst), As: now, at: -1}
	l.buckets[name] = b
	return b, nil
}

// update lets the bucket fill until now. Lots end in between, and what they leave
// free fills from then on.
func (b *bucket) update(now time.Time, r Rate) {
	out := 0
	for _, o := range b.Lots {
		out += o.Tokens
	}
	for len(b.Lots) > 0 && !b.Lots[0].End.After(now) {
		b.fill(b.Lots[0].End, r, out)
		out -= b.Lots[0].Tokens
		b.Lots = b.Lots[1:]
	}
	b.fill(now, r, out)
	if len(b.Lots) == 0 {
		b.Lots = nil
	}
}

// fill adds what has come until at, while out tokens are in lots.
func (b *bucket) fill(at time.Time, r Rate, out int) {
	if d := at.Sub(b.As); d > 0 {
		b.Level += r.PerSecond * d.Seconds()
		b.As = at
	}
	b.Level = min(b.Level, float64(r.Burst-out))
}

// giveBack ends the member's lot, of which so many tokens were not used.
func (b *bucket) giveBack(now time.Time, member, unused int, r Rate) {
	for i, o := range b.Lots {
		if o.Member == member {
			b.Lots = append(b.Lots[:i:i], b.Lots[i+1:]...)
			b.Level += float64(max(0, min(unused, o.Tokens)))
			return
		}
	}
}

// time is how long so many tokens take to come.
func (r Rate) time(tokens float64) time.Duration {
	d := math.Ceil(tokens / r.PerSecond * float64(time.Second))
	if !(d < float64(Forever)) {
		return Forever
	}
	return time.Duration(d)
}

// fix notes when the bucket will be full.
func (l *limiters) fix(b *bucket, r Rate) {
	b.Full = b.fullAt(r)
	if b.at < 0 {
		heap.Push(&l.full, b) // it is new
		return
	}
	heap.Fix(&l.full, b.at)
}

// never is later than any time of use.
var never = time.Unix(1<<40, 0)

func (b *bucket) fullAt(r Rate) time.Time {
	at := b.As
	for _, o := range b.Lots { // what is in them comes again when they have ended
		at = o.End
	}
	out := 0
	for _, o := range b.Lots {
		out += o.Tokens
	}
	missing := float64(r.Burst) - b.Level
	if len(b.Lots) > 0 {
		missing -= r.PerSecond * at.Sub(b.As).Seconds()
		missing = max(missing, float64(out))
	}
	wait := r.time(max(0, missing))
	if wait >= Forever/2 {
		return never
	}
	return at.Add(wait)
}

// forgetFull drops up to so many buckets that are full again: a new one is the
// same.
func (l *limiters) forgetFull(now time.Time, most int) {
	for n := 0; n < most && len(l.full) > 0 && !l.full[0].Full.After(now); n++ {
		b := l.full[0]
		r := l.rates[b.Limiter]
		b.update(now, r)
		if len(b.Lots) > 0 || b.Level < float64(r.Burst) {
			b.Full = b.fullAt(r) // the numbers are others by now
			if !b.Full.After(now) {
				b.Full = now.Add(time.Millisecond)
			}
			heap.Fix(&l.full, 0)
			continue
		}
		heap.Pop(&l.full)
		delete(l.buckets, b.bucketName)
	}
}

func (b *bucket) due() time.Time { return b.Full }
func (b *bucket) place() *int    { return &b.at }

// written is limiters as JSON.
type writtenLimiters struct {
	Rates   map[string]Rate
	Buckets []*bucket
}

// MarshalJSON writes the rates and the buckets.
func (l *limiters) MarshalJSON() ([]byte, error) {
	return json.Marshal(writtenLimiters{l.rates, l.full})
}

// UnmarshalJSON reads them.
func (l *limiters) UnmarshalJSON(b []byte) error {
	var w writtenLimiters
	if err := json.Unmarshal(b, &w); err != nil {
		return err
	}
	l.init()
	if w.Rates != nil {
		l.rates = w.Rates
	}
	for name := range l.rates {
		l.names[name] = name
	}
	l.full = w.Buckets
	for i, b := range l.full {
		b.at = i
		b.Limiter = l.names[b.Limiter]
		l.buckets[b.bucketName] = b
	}
	heap.Init(&l.full)
	return nil
}
