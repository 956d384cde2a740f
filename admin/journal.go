package admin

import (
	"context"
	"net"
	"sync"
	"time"

	"github.com/go-cluster/cluster"
	"github.com/go-cluster/cluster/internal/operator"
)

// Event is one thing that has happened in the cluster, as /events tells it. Members
// that do not concern it are left out.
type Event struct {
	N          int64     `json:"n"` // counts from 1; begins anew with a master, but for an upgraded one
	Time       time.Time `json:"time"`
	Event      string    `json:"event"` // fork, online, listening, ready, disconnect, death, error, reload, scale, upgrade
	Slot       *int      `json:"slot,omitempty"`
	ID         int       `json:"id,omitempty"`
	PID        int       `json:"pid,omitempty"`
	Generation int       `json:"generation,omitempty"`
	Address    string    `json:"address,omitempty"` // of listening
	Reason     string    `json:"reason,omitempty"`  // of death
	Result     string    `json:"result,omitempty"`  // of the end of a reload or upgrade: success or failure
	Text       string    `json:"text,omitempty"`    // the exit, the error, the number of workers, the program
}

// kept is how many events are kept for those who come later.
const kept = 200

// journal has the last events. Whoever follows it reads what it wants when it can, so
// that a slow one holds up nothing; it may miss what is older than what is kept.
type journal struct {
	mu          sync.Mutex
	list        []Event
	last        int64
	generations map[int]int   // of the workers that live
	more        chan struct{} // closed at the next event, or when a worker is gone
}

func newJournal() *journal {
	return &journal{generations: make(map[int]int), more: make(chan struct{})}
}

// add notes an event now.
func (j *journal) add(e Event) {
	e.Text, e.Address = plain(e.Text), plain(e.Address)
	j.mu.Lock()
	defer j.mu.Unlock()
	if e.ID != 0 && e.Generation == 0 {
		e.Generation = j.generations[e.ID]
	}
	j.last++
	e.N, e.Time = j.last, time.Now()
	if len(j.list) == kept {
		j.list = append(j.list[:0:0], j.list[1:]...)
	}
	j.list = append(j.list, e)
	close(j.more)
	j.more = make(chan struct{})
}

// after returns the events that are kept after number n, and what is closed when
// there are more. A number that was never given means from the start.
func (j *journal) after(n int64) (list []Event, more <-chan struct{}) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if n < 0 || n > j.last {
		n = 0
	}
	for i := range j.list {
		if j.list[i].N > n {
			return append(list, j.list[i:]...), j.more
		}
	}
	return nil, j.more
}

// end is the number of the last event.
func (j *journal) end() int64 {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.last
}

// follow registers for all events.
func (j *journal) follow(core operator.Core) (stop func()) {
	of := func(what string) func(w *cluster.Process) {
		return func(w *cluster.Process) { j.add(about(w, what)) }
	}
	stops := []func(){
		cluster.OnFork(func(w *cluster.Process) {
			j.born(w.ID())
			j.add(about(w, "fork"))
		}),
		cluster.OnOnline(of("online")),
		cluster.OnListening(func(w *cluster.Process, a net.Addr) {
			e := about(w, "listening")
			e.Address = a.Network() + " " + a.String()
			j.add(e)
		}),
		cluster.OnReady(of("ready")),
		cluster.OnDisconnect(of("disconnect")),
		cluster.OnDeath(func(w *cluster.Process, x cluster.Exit) {
			e := about(w, "death")
			e.Reason, e.Text = string(x.Reason), x.String()
			j.add(e)
			j.died(w.ID())
		}),
		core.OnTrouble(func(worker int, err error) {
			e := Event{Event: "error", ID: worker, Text: err.Error()}
			if w := process(worker); w != nil {
				e = about(w, "error")
				e.Text = err.Error()
			}
			j.add(e)
		}),
		core.OnReloading(func() { j.add(Event{Event: "reload"}) }),
		cluster.OnReload(func(r cluster.ReloadResult) {
			e := Event{Event: "reload", Result: "success", Generation: r.Generation}
			if r.Err != nil {
				e.Result, e.Text = "failure", r.Err.Error()
			}
			j.add(e)
		}),
		core.OnScale(func(n int) { j.add(Event{Event: "scale", Text: number(n)}) }),
		cluster.OnAdopt(func(w *cluster.Process) { j.born(w.ID()) }),
		cluster.OnUpgraded(func(err error) {
			e := Event{Event: "upgrade", Result: "success", Text: program()}
			if err != nil {
				e.Result, e.Text = "failure", err.Error()
			}
			j.add(e)
		}),
	}
	return func() {
		for _, stop := range stops {
			stop()
		}
	}
}

func about(w *cluster.Process, what string) Event {
	e := Event{Event: what, ID: w.ID(), PID: w.PID()}
	if slot := w.Slot(); slot >= 0 {
		e.Slot = &slot
	}
	return e
}

// born looks up the worker's generation, which no callback tells.
func (j *journal) born(id int) {
	for _, w := range cluster.Stats().Workers {
		if w.ID == id {
			j.mu.Lock()
			j.generations[id] = w.Generation
			j.mu.Unlock()
		}
	}
}

func (j *journal) died(id int) {
	j.mu.Lock()
	defer j.mu.Unlock()
	delete(j.generations, id)
	close(j.more)
	j.more = make(chan struct{})
}

// settleTime bounds the wait for callbacks of the program that do not return.
const settleTime = time.Second

// settle waits until the death of every worker is told. At the end of Run all of them are
// gone, but the callbacks may still be on their way.
func (j *journal) settle(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, settleTime)
	defer cancel()
	for {
		j.mu.Lock()
		left, more := len(j.generations), j.more
		j.mu.Unlock()
		if left == 0 {
			return
		}
		select {
		case <-more:
		case <-ctx.Done():
			return
		}
	}
}
