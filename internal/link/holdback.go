package link

import "time"

// holdBack decides how long a line waits for others to be written with. In a burst, lines
// come faster than it pays to make a system call for each. They are written when they make
// a batch or when their time is over. An urgent line is not held back, and neither are
// those before it. A holdBack belongs to its outbox, under the outbox's lock.
type holdBack struct {
	last   time.Duration // when the last line came or the last write ended; since epoch
	run    int           // lines in a row, each within burst of last
	urgent bool          // there is a line that must not wait
	timer  *time.Timer   // ends the wait
	armed  bool          // timer is running
}

const (
	// burst is within how long one line has to follow another to count as one of a
	// burst. No answer to the first can have come so soon.
	burst = 5 * time.Microsecond
	// burstRun is how many lines of a burst go out at once, before the next are
	// held back.
	burstRun = 8
	// wholeBatch is how many bytes are not held back any longer. The sender that adds
	// the last of them writes them.
	wholeBatch = 32 << 10
	// holdTime is how long a line is held back at most. The runtime's timers
	// make a millisecond of it where nothing else runs.
	holdTime = 200 * time.Microsecond
)

// epoch is what times are counted from: a difference of two costs half of
// time.Now.
var epoch = time.Now()

// came notes that a line came.
func (b *holdBack) came(urgent bool) {
	b.urgent = b.urgent || urgent
	if b.armed {
		return // lines are held back already; a look at the clock costs as much as the line
	}
	now := time.Since(epoch)
	if now-b.last < burst {
		b.run++
	} else {
		b.run = 0
	}
	b.last = now
}

// wrote notes that a write has ended.
func (b *holdBack) wrote() { b.last = time.Since(epoch) }

// holds reports whether so many bytes are to be held back.
func (b *holdBack) holds(bytes int) bool {
	return b.run >= burstRun && !b.urgent && bytes < wholeBatch
}

// arm has release called after holdTime.
func (b *holdBack) arm(release func()) {
	b.armed = true
	if b.timer == nil {
		b.timer = time.AfterFunc(holdTime, release)
	} else {
		b.timer.Reset(holdTime)
	}
}

// over notes that holdTime is over.
func (b *holdBack) over() { b.armed, b.run = false, 0 }

// stop ends the timer.
func (b *holdBack) stop() {
	if b.timer != nil {
		b.timer.Stop()
	}
}
