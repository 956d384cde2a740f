package link

import "time"

// holdBack decides how long a line waits for others to go with. Lines that come in
// a burst, faster than a system call for each is worth, are written when they make
// a batch or when their time is over. What somebody waits for is not held back, nor
// is what lies before it. It belongs to the outbox, under its lock.
type holdBack struct {
	last   time.Duration // when a line came, or a write ended, last; since epoch
	run    int           // lines in a row that came within burst of that
	urgent bool          // there is a line that must not wait
	timer  *time.Timer   // ends the wait
	armed  bool          // timer is running
}

const (
	// burst is how soon one line follows another in a loop that does little
	// else: sooner than any answer to the first can have come.
	burst = 5 * time.Microsecond
	// burstRun is how many lines in a row have to come so soon before the next are
	// held back. A few messages together go out at once.
	burstRun = 8
	// wholeBatch is how many bytes are written without any further wait, by who
	// adds the last of them.
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

// holds reports whether bytes are better written later.
func (b *holdBack) holds(bytes int) bool {
	return b.run >= burstRun && !b.urgent && bytes < wholeBatch
}

// arm sees to it that release is called when the time of what is held back is over.
func (b *holdBack) arm(release func()) {
	b.armed = true
	if b.timer == nil {
		b.timer = time.AfterFunc(holdTime, release)
	} else {
		b.timer.Reset(holdTime)
	}
}

// over notes that the time is over.
func (b *holdBack) over() { b.armed, b.run = false, 0 }

// stop ends the timer.
func (b *holdBack) stop() {
	if b.timer != nil {
		b.timer.Stop()
	}
}
