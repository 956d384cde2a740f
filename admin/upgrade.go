package admin

import (
	"context"
	"maps"
	"net/http"
	"os"
	"runtime/debug"
	"slices"
	"sync"
	"time"

	"github.com/go-cluster/cluster"
)

// How an upgrade is ordered, and what goes over to the program that comes: the events
// and their numbers, by which whoever gave the order finds the outcome. Nobody is left
// in the old program who could answer.

// stateName is what the state goes over by.
const stateName = "github.com/go-cluster/cluster/admin"

// journalState is a journal for the program that comes.
type journalState struct {
	Last        int64
	List        []Event
	Generations map[int]int
}

// succeed goes on with what the program before has handed over, if there is one, and hands it
// to the program that comes: see handover.go for all but the events.
func (s *service) succeed() (stop func()) {
	var before journalState
	if came, err := cluster.Upgraded(stateName, &before); err != nil {
		logger().Warn("admin: the events of the program before are lost", "err", err)
	} else if came {
		s.journal.restore(before)
	}
	if err := restoreKept(s); err != nil {
		logger().Warn("admin: what the program before has kept is lost", "err", err)
	}
	stopEvents := cluster.OnUpgrade(stateName, func() (any, error) {
		s.orders.handOver()
		s.journal.add(Event{Event: "upgrade"})
		return s.journal.state(), nil
	})
	stopKept := s.core.OnLeaving(keptName, func() (*os.File, error) { return leaveKept(s) })
	return func() {
		stopEvents()
		stopKept()
	}
}

func (j *journal) state() journalState {
	j.mu.Lock()
	defer j.mu.Unlock()
	return journalState{j.last, slices.Clone(j.list), maps.Clone(j.generations)}
}

func (j *journal) restore(s journalState) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.last, j.list = s.Last, s.List
	for id, generation := range s.Generations {
		j.generations[id] = generation
	}
}

// program is the one that runs, with its version where that is known.
func program() string {
	path, err := os.Executable()
	if err != nil {
		path = os.Args[0]
	}
	if info, ok := debug.ReadBuildInfo(); ok && info.Main.Version != "" {
		path += " " + info.Main.Version
	}
	return path
}

// upgrade replaces the master's program. With JSON lines the answer ends in the middle
// when that is done; else it is 202 once the new program has passed its check. Both find
// the outcome among the events. Who hangs up before calls it off.
func (s *service) upgrade(w http.ResponseWriter, r *http.Request) {
	others := s.orders.all()
	ctx, cancel := context.WithCancel(context.WithoutCancel(r.Context()))
	defer cancel()
	kept := context.AfterFunc(r.Context(), cancel)
	run := func(*http.Request) error {
		// Their answers would be lost.
		for _, o := range others {
			select {
			case <-o:
			case <-ctx.Done():
				return ctx.Err()
			}
		}
		return cluster.Upgrade(ctx)
	}
	if lines(r) {
		s.ordered(run)(w, r)
		return
	}
	var once sync.Once
	stop := s.orders.onHandOver(func() {
		once.Do(func() {
			kept() // who has the answer may hang up
			w.Header().Set("Connection", "close")
			http.NewResponseController(w).SetWriteDeadline(time.Now().Add(writeTime))
			writeJSON(w, http.StatusAccepted, done{OK: true, Status: http.StatusAccepted})
			http.NewResponseController(w).Flush()
		})
	})
	err := run(r)
	stop()
	once.Do(func() { fail(w, err) })
}

// writeTime bounds the writing of an answer that the upgrade waits for.
const writeTime = time.Second

// underWay are the orders that are being carried out.
type underWay struct {
	mu    sync.Mutex
	list  map[chan struct{}]bool // each is closed when the order is answered
	hooks map[*func()]bool       // of upgrades: called when the new program has passed its check
}

// begin notes an order. end sends what is left of its answer.
func (u *underWay) begin(w http.ResponseWriter) (end func()) {
	done := make(chan struct{})
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.list == nil {
		u.list = make(map[chan struct{}]bool)
	}
	u.list[done] = true
	return func() {
		http.NewResponseController(w).Flush()
		u.mu.Lock()
		delete(u.list, done)
		u.mu.Unlock()
		close(done)
	}
}

// all are those that are under way now.
func (u *underWay) all() (list []<-chan struct{}) {
	u.mu.Lock()
	defer u.mu.Unlock()
	for done := range u.list {
		list = append(list, done)
	}
	return list
}

// onHandOver has fn called when the new program has passed its check, until stop, which
// waits for it.
func (u *underWay) onHandOver(fn func()) (stop func()) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.hooks == nil {
		u.hooks = make(map[*func()]bool)
	}
	u.hooks[&fn] = true
	return func() {
		u.mu.Lock()
		defer u.mu.Unlock()
		delete(u.hooks, &fn)
	}
}

// handOver calls those functions.
func (u *underWay) handOver() {
	u.mu.Lock()
	defer u.mu.Unlock()
	for fn := range u.hooks {
		(*fn)()
	}
}
