package fleet

import (
	"context"
	"fmt"
	"regexp"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// denials are subjects that the server has refused, and calls that wait for an answer
// to one. The server says so later than the call, and by the subject only.
type denials struct {
	count   atomic.Int32 // of denied, so that who publishes need not lock
	mu      sync.Mutex
	denied  map[string]denial
	waiting map[*waiter]struct{}
}

type denial struct {
	err error
	at  time.Time
}

// waiter is a call that is told when its subject is refused.
type waiter struct {
	subject string
	cancel  context.CancelCauseFunc
}

// storeSubjects stands for all that belong to JetStream.
const storeSubjects = "$"

const (
	maxDenials = 1024
	// denialTime is how long a refusal is believed: permissions change.
	denialTime = 5 * time.Second
)

var violation = regexp.MustCompile(`(?i)violation for publish to "([^"]+)"`)

// add notes what the server says, and ends calls that wait for it.
func (d *denials) add(err error) {
	match := violation.FindStringSubmatch(err.Error())
	if match == nil {
		return
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.denied == nil || len(d.denied) >= maxDenials {
		d.denied = make(map[string]denial)
	}
	d.denied[match[1]] = denial{err, time.Now()}
	d.count.Store(int32(len(d.denied)))
	for w := range d.waiting {
		if w.subject == match[1] || w.subject == storeSubjects && strings.HasPrefix(match[1], "$") {
			w.cancel(err)
		}
	}
}

// of is the refusal of that subject, if it is a recent one.
func (d *denials) of(subject string) error {
	if d.count.Load() == 0 {
		return nil
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	n, ok := d.denied[subject]
	if ok && time.Since(n.at) > denialTime {
		delete(d.denied, subject)
		d.count.Store(int32(len(d.denied)))
		return nil
	}
	return n.err
}

// forget forgets all refusals: another connection may have other rights.
func (d *denials) forget() {
	d.mu.Lock()
	defer d.mu.Unlock()
	clear(d.denied)
	d.count.Store(0)
}

// wait is ctx until the subject is refused, or the connection ends.
func (d *denials) wait(ctx context.Context, subject string) (context.Context, func()) {
	ctx, cancel := context.WithCancelCause(ctx)
	w := &waiter{subject, cancel}
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.waiting == nil {
		d.waiting = make(map[*waiter]struct{})
	}
	d.waiting[w] = struct{}{}
	return ctx, func() {
		d.mu.Lock()
		delete(d.waiting, w)
		d.mu.Unlock()
		cancel(nil)
	}
}

// endAll ends the calls that wait.
func (d *denials) endAll(err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for w := range d.waiting {
		w.cancel(err)
	}
}

// cause is why a call that waited has failed: err, unless its ctx knows better.
func cause(ctx context.Context, err error) error {
	if why := context.Cause(ctx); why != nil && why != ctx.Err() {
		return fmt.Errorf("%w", why)
	}
	return err
}
