package coordinate

import (
	"container/heap"
	"encoding/json"
	"fmt"
	"math"
	"time"
)

// A limiter has a token bucket for each key, which fills at a rate, up to a burst. A member
// may take tokens ahead, as a lot, and uses them by itself until the lot expires.
//
// In any interval of length t no more than burst + rate·t tokens may pass. So a lot counts
// against the burst until it has expired, or until its member says that it uses the lot no
// more: the tokens in the bucket and in lots together are never more than the burst.

const (
	// LotTime is how long a lot may be used. The member counts from the moment when it
	// asked, the state from the moment when it gave: so the member ends first.
	LotTime = 5 * time.Millisecond
	// MaxKeys is the Settings.MaxKeys of a cluster.
	MaxKeys = 1 << 20
	// Unlimited is a rate that lets everything pass.
	Unlimited = math.MaxFloat64
	// Forever is the Retry of tokens that never come.
	Forever = time.Duration(math.MaxInt64)
)

// Rate is what a limiter lets pass.
type Rate struct {
	PerSecond float64
	Burst     int
}

type limiters struct {
	rates   map[string]Rate
	names   map[string]string // for each limiter the string that its buckets share
	buckets map[bucketName]*bucket
	full    byTime[*bucket] // the bucket that is full next comes first
}

type bucketName struct{ Limiter, Key string }

// bucket is a bucket that is not full. A full one is not kept.
type bucket struct {
	bucketName
	Level float64
	As    time.Time // when Level was so
	Lots  []lot     // lots that have not expired
	Full  time.Time // when the bucket is full again, about
	at    int       // its place in limiters.full; -1 before it is there
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

// Take is a question for tokens of a limiter.
type Take struct {
	Name, Key string
	Tokens    int // tokens that are to pass now
	Ahead     int // tokens to take ahead, if there are enough
	Unused    int // tokens that are left of the last lot for this key, which is used no more
}

// Taken is the answer to a Take.
type Taken struct {
	OK    bool
	Lot   int           // tokens that it may use for LotTime
	Retry time.Duration // if not OK: the time until there may be enough tokens
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
	// A lot has no more tokens than come in half of its time, and at most half of those
	// that are there.
	got.Lot = max(0, int(min(float64(t.Ahead), r.PerSecond*LotTime.Seconds()/2, b.Level/2)))
	if got.Lot > 0 {
		b.Level -= float64(got.Lot)
		b.Lots = append(b.Lots, lot{member, got.Lot, now.Add(LotTime)})
	}
	l.fix(b, r)
	return got, nil
}

// bucket returns the bucket of the key, or a full one if there is none. If there are most
// buckets already, it returns an error.
func (l *limiters) bucket(now time.Time, t Take, r Rate, most int) (*bucket, error) {
	name := bucketName{t.Name, t.Key}
	if b := l.buckets[name]; b != nil {
		return b, nil
	}
	// A few at a time, since other questions wait meanwhile.
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

// update fills the bucket up to now. A lot may have ended in between: from then on its part
// of the bucket fills too.
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

// fill adds the tokens that have come until at. out is how many tokens are in lots.
func (b *bucket) fill(at time.Time, r Rate, out int) {
	if d := at.Sub(b.As); d > 0 {
		b.Level += r.PerSecond * d.Seconds()
		b.As = at
	}
	b.Level = min(b.Level, float64(r.Burst-out))
}

// giveBack ends the member's lot, of which unused tokens were not used.
func (b *bucket) giveBack(now time.Time, member, unused int, r Rate) {
	for i, o := range b.Lots {
		if o.Member == member {
			b.Lots = append(b.Lots[:i:i], b.Lots[i+1:]...)
			b.Level += float64(max(0, min(unused, o.Tokens)))
			return
		}
	}
}

// time returns how long it takes until that many tokens come.
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
		heap.Push(&l.full, b) // the bucket is new
		return
	}
	heap.Fix(&l.full, b.at)
}

// never is later than any time of use.
var never = time.Unix(1<<40, 0)

func (b *bucket) fullAt(r Rate) time.Time {
	at := b.As
	for _, o := range b.Lots { // the tokens in a lot come again when it has ended
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

// forgetFull drops at most that many buckets that are full again, since a new bucket is the
// same.
func (l *limiters) forgetFull(now time.Time, most int) {
	for n := 0; n < most && len(l.full) > 0 && !l.full[0].Full.After(now); n++ {
		b := l.full[0]
		r := l.rates[b.Limiter]
		b.update(now, r)
		if len(b.Lots) > 0 || b.Level < float64(r.Burst) {
			b.Full = b.fullAt(r) // the rate has changed since
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

// MarshalJSON encodes the rates and the buckets.
func (l *limiters) MarshalJSON() ([]byte, error) {
	return json.Marshal(writtenLimiters{l.rates, l.full})
}

// UnmarshalJSON decodes the rates and the buckets.
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
