package share

import (
	"sync/atomic"
	"time"
)

// scarcity is the want of descriptors. Each connection would tell of it anew, so that
// it is told once a minute.
type scarcity struct {
	told atomic.Pointer[time.Time]
}

const scarcityPause = time.Minute

// tell calls fn, which may be nil, if it is time.
func (s *scarcity) tell(fn func(error), err error) {
	now := time.Now()
	last := s.told.Load()
	if last != nil && now.Sub(*last) < scarcityPause || !s.told.CompareAndSwap(last, &now) || fn == nil {
		return
	}
	fn(err)
}
