package share

import (
	"sync/atomic"
	"time"
)

// scarcity reports that no descriptor is free. Every connection would report it anew, so that
// is done at most once a minute.
type scarcity struct {
	told atomic.Pointer[time.Time]
}

const scarcityPause = time.Minute

// tell calls fn, which may be nil, unless it was called less than a minute ago.
func (s *scarcity) tell(fn func(error), err error) {
	now := time.Now()
	last := s.told.Load()
	if last != nil && now.Sub(*last) < scarcityPause || !s.told.CompareAndSwap(last, &now) || fn == nil {
		return
	}
	fn(err)
}
