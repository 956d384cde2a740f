package admin

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"runtime/trace"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/go-cluster/cluster"
)

// What a worker did that the watchdog ends. A worker of which only a check hangs tells its
// stacks, and what its flight recorder has. One that runs nothing any more prints its
// stacks when SIGQUIT ends it, to its standard error, and that passes through the master.

const (
	// maxStalls is how many stalls are kept, stallBytes of how many bytes in all.
	maxStalls  = 8
	stallBytes = 16 << 20
	// stallStacks and stallTrace bound, in bytes, what is kept of one.
	stallStacks = 1 << 20
	stallTrace  = 4 << 20
	// stallTime is how long a worker may take to tell: the core waits for 3 s.
	stallTime = 2500 * time.Millisecond
	// stallLooks is how many are looked at at once: the others are ended unseen. A
	// database that hangs stalls all at once.
	stallLooks = 4

	// A flight recorder keeps flightAge at least, and flightBytes at most.
	flightAge   = 5 * time.Second
	flightBytes = 2 << 20
	// maxFlight is how long a recorder runs that nobody asks, at most.
	maxFlight = time.Hour
)

// Stall is a worker that the watchdog has ended, as /stalls tells it.
type Stall struct {
	N          int64     `json:"n"` // counts from 1; begins anew with a master, but for an upgraded one
	Time       time.Time `json:"time"`
	Worker     string    `json:"worker"` // as in Event and LogLine
	Slot       *int      `json:"slot,omitempty"`
	ID         int       `json:"id"`
	PID        int       `json:"pid"`
	Generation int       `json:"generation"`
	Stacks     int       `json:"stacks"`          // bytes of /stalls/{n}
	From       string    `json:"from"`            // of whom the stacks are: "worker"; "output", what it wrote at its end; "" if there are none
	Trace      int       `json:"trace"`           // bytes of /stalls/{n}/trace
	Error      string    `json:"error,omitempty"` // why something is missing
	Exit       string    `json:"exit,omitempty"`  // once it has ended
}

// keptStall is one with what was found.
type keptStall struct {
	Stall
	stacks, trace []byte
}

func (k *keptStall) size() int { return len(k.stacks) + len(k.trace) }

// stallBook has the last stalls.
type stallBook struct {
	places chan struct{} // of those who look

	mu   sync.Mutex
	list []*keptStall // by number
	last int64
}

func newStallBook() *stallBook {
	return &stallBook{places: make(chan struct{}, stallLooks)}
}

// followStalls looks at every worker that stalls.
func (s *service) followStalls() (stop func()) {
	stops := []func(){
		s.core.OnSilent(s.silent),
		s.core.OnStall(s.stalled),
		cluster.OnDeath(func(w *cluster.Process, x cluster.Exit) { s.stalls.died(w.ID(), x) }),
	}
	if s.book != nil { // what workers write passes through here
		stops = append(stops, s.core.OnOutput(s.stalls.output))
	}
	return func() {
		for _, stop := range stops {
			stop()
		}
	}
}

// silent has a worker begin to record what it does: it has not answered for half of its
// time. To record always would cost a busy server a quarter more CPU time.
func (s *service) silent(id int, left time.Duration) {
	ctx, cancel := context.WithTimeout(context.Background(), left)
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, "POST", "http://"+hostOf(id)+"/flight?for="+(left+time.Minute).String(), nil)
	if err != nil {
		return
	}
	if a, err := s.workers.transport.RoundTrip(r); err == nil {
		a.Body.Close()
	} // one that does not answer has no trace: stalled says so
}

// stalled asks a worker what it does, before it is ended.
func (s *service) stalled(id int) {
	select {
	case s.stalls.places <- struct{}{}:
		defer func() { <-s.stalls.places }()
	default:
		return
	}
	k := &keptStall{Stall: Stall{Time: time.Now(), ID: id, Worker: "id" + strconv.Itoa(id)}}
	for _, w := range cluster.Stats().Workers {
		if w.ID == id {
			k.Worker, k.PID, k.Generation = w.Name, w.PID, w.Generation
			if w.Slot >= 0 {
				k.Slot = &w.Slot
			}
		}
	}
	ctx, cancel := context.WithTimeout(context.Background(), stallTime)
	defer cancel()
	var both sync.WaitGroup
	var noStacks, noTrace error
	both.Go(func() { k.stacks, noStacks = s.workers.fetch(ctx, id, "/stacks", stallStacks) })
	both.Go(func() { k.trace, noTrace = s.workers.fetch(ctx, id, "/flight", stallTrace) })
	both.Wait()
	if noStacks == nil {
		k.From = "worker"
	}
	for _, why := range []error{noStacks, noTrace} {
		if why != nil && k.Error == "" {
			k.Error = plain(why.Error())
		}
	}
	s.stalls.add(k)
}

// fetch asks a worker, and cuts a text that is too long. A trace that is cut is of no use.
func (w *workers) fetch(ctx context.Context, id int, path string, bound int64) ([]byte, error) {
	r, err := http.NewRequestWithContext(ctx, "GET", "http://"+hostOf(id)+path, nil)
	if err != nil {
		return nil, err
	}
	a, err := w.transport.RoundTrip(r)
	if err != nil {
		return nil, err
	}
	defer a.Body.Close()
	b, err := io.ReadAll(io.LimitReader(a.Body, bound+1))
	switch {
	case err != nil:
		return nil, err
	case a.StatusCode != http.StatusOK:
		return nil, fmt.Errorf("%s: %s", path, bytes.TrimSpace(b[:min(len(b), 1<<10)]))
	case int64(len(b)) > bound && path == "/flight":
		return nil, fmt.Errorf("the trace has more than %d bytes", bound)
	}
	return b[:min(int64(len(b)), bound)], nil
}

// add keeps a stall, and drops the oldest if there are too many.
func (b *stallBook) add(k *keptStall) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.last++
	k.N = b.last
	b.list = append(b.list, k)
	b.bound()
}

// bound drops the oldest. b.mu is held.
func (b *stallBook) bound() {
	sum := 0
	for _, k := range b.list {
		sum += k.size()
	}
	for len(b.list) > maxStalls || sum > stallBytes && len(b.list) > 1 {
		sum -= b.list[0].size()
		b.list = slices.Delete(b.list, 0, 1)
	}
}

// output keeps what a worker writes to its standard error that has not told its stacks.
func (b *stallBook) output(worker, _ int, stream string, lines []byte) {
	if stream != "stderr" {
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	k := b.of(worker)
	if k == nil || k.From == "worker" {
		return
	}
	k.From = "output"
	k.stacks = append(k.stacks, lines[:min(len(lines), stallStacks-len(k.stacks))]...)
	b.bound()
}

// died notes how it ended.
func (b *stallBook) died(id int, x cluster.Exit) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if k := b.of(id); k != nil {
		k.Exit = plain(x.String())
	}
}

// of is the worker's stall, or nil. b.mu is held.
func (b *stallBook) of(id int) *keptStall {
	for _, k := range b.list {
		if k.ID == id {
			return k
		}
	}
	return nil
}

// all are those that are kept, the oldest first.
func (b *stallBook) all() []Stall {
	b.mu.Lock()
	defer b.mu.Unlock()
	list := make([]Stall, 0, len(b.list))
	for _, k := range b.list {
		s := k.Stall
		s.Stacks, s.Trace = len(k.stacks), len(k.trace)
		list = append(list, s)
	}
	return list
}

// find returns the stall with the number.
func (b *stallBook) find(number string) (k keptStall, ok bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, k := range b.list {
		if strconv.FormatInt(k.N, 10) == number {
			return *k, true
		}
	}
	return k, false
}

// ---- answers

// stallList answers with the stalls that are kept.
func (s *service) stallList(w http.ResponseWriter, _ *http.Request) {
	writeJSON(w, http.StatusOK, s.stalls.all())
}

// stallOf answers with the stacks of one, as text that may reach a terminal.
func (s *service) stallOf(w http.ResponseWriter, r *http.Request) {
	k, ok := s.stalls.find(r.PathValue("n"))
	if !ok {
		writeJSON(w, http.StatusNotFound, failure{"no stall has that number, or it is not kept any more"})
		return
	}
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.Header().Set("Cache-Control", "no-store")
	fmt.Fprintf(w, "=== worker %s, id %d, pid %d, did not answer at %s\n", k.Worker, k.ID, k.PID, k.Time.Format(time.RFC3339))
	if k.Exit != "" {
		fmt.Fprintf(w, "=== ended: %s\n", k.Exit)
	}
	if k.Error != "" {
		fmt.Fprintf(w, "=== missing: %s\n", k.Error)
	}
	fmt.Fprintln(w)
	writePlain(w, bytes.NewReader(k.stacks))
}

// stallTraceOf answers with the trace of one, for go tool trace.
func (s *service) stallTraceOf(w http.ResponseWriter, r *http.Request) {
	k, ok := s.stalls.find(r.PathValue("n"))
	if !ok || len(k.trace) == 0 {
		writeJSON(w, http.StatusNotFound, failure{"no stall has that number, or there is no trace of it"})
		return
	}
	binary(w, "trace")
	w.Write(k.trace)
}

// ---- in a worker

// flight is the recorder of a worker that does not answer its master.
type flight struct {
	mu  sync.Mutex
	run *trace.FlightRecorder // nil: none runs
	end *time.Timer
}

// begin has one run for ?for=. That the program has one of its own, of which there can be
// only one, is an error.
func (f *flight) begin(w http.ResponseWriter, r *http.Request) {
	d, err := time.ParseDuration(r.FormValue("for"))
	if err != nil || d <= 0 {
		fail(w, badRequest{fmt.Errorf("for=%q: a duration is needed", r.FormValue("for"))})
		return
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.run == nil {
		run := trace.NewFlightRecorder(trace.FlightRecorderConfig{MinAge: flightAge, MaxBytes: flightBytes})
		if err := run.Start(); err != nil {
			fail(w, err)
			return
		}
		f.run, f.end = run, time.AfterFunc(maxFlight, f.stop)
	}
	f.end.Reset(min(d, maxFlight))
}

// stop ends it.
func (f *flight) stop() {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.run != nil {
		f.end.Stop()
		f.run.Stop()
		f.run = nil
	}
}

// tell writes what it has.
func (f *flight) tell(w http.ResponseWriter, _ *http.Request) {
	recorded, runs := f.recorded()
	if !runs {
		http.Error(w, "no flight recorder of package admin runs in the worker", http.StatusNotFound)
		return
	}
	w.Header().Set("Content-Type", "application/octet-stream")
	w.Write(recorded)
}

// recorded copies what the recorder has, at most flightBytes or so. The lock keeps stop
// away: the WriteTo of a recorder races with its Stop. A slow reader of the answer does
// not hold the lock.
func (f *flight) recorded() (recorded []byte, runs bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.run == nil {
		return nil, false
	}
	var b bytes.Buffer
	f.run.WriteTo(&b) // an error of its own, as of a trace that just began: what there is will do
	return b.Bytes(), true
}
