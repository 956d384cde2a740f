package supervise

import (
	"errors"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/go-cluster/cluster/internal/errs"
)

// scenario is something that happens to a cluster, and takes its time.
type scenario struct {
	name string
	set  func(s *Settings) // what it needs

	// begin lets it begin in the slot, as far as it has one, and holds it there;
	// the func that it returns lets it end. Whatever else has happened meanwhile,
	// or has begun before, both must be possible.
	begin func(w *simulation, at int) (end func())

	// What it leaves if nothing else happens.
	target func(n int) int // the number of slots
	mode   slotMode        // of its slot
	reload string          // its Reload: "ok", or what the error tells; "" if it has none
	stops  bool            // the cluster ends
	breaks string          // how it may make the Reload of another fail

	unproven bool // needs a program whose workers were never ready
	run      bool // needs a Run
}

func noEnd() {}

// reloading begins a reload of what is deployed by then, and holds the first
// replacement where stage says.
func reloading(mark string, stage State) func(w *simulation, at int) func() {
	return func(w *simulation, _ int) func() {
		w.deploy(mark)
		before := w.replacement()
		w.callReload()
		_, next, old := w.began(before)
		if next == nil {
			return noEnd // it could not begin, or waits for its turn
		}
		release := w.hold(next, old)
		if stage >= Online {
			w.online(next)
			w.settle()
		}
		if stage >= Draining {
			w.will(old, ReasonReload)
			if w.listen {
				w.ready(next)
			}
			w.settle()
		}
		return release
	}
}

// recycling lets the slot's worker be due, and holds its replacement where stage
// says.
func recycling(due func(w *simulation, p *proc), stage State) func(w *simulation, at int) func() {
	return func(w *simulation, at int) func() {
		p := w.cur(at)
		if p == nil {
			return noEnd
		}
		before := w.replacement()
		due(w, p)
		r, next, old := w.began(before)
		if next == nil || r.Why != ReasonRecycle {
			return noEnd
		}
		release := w.hold(next, old)
		if stage >= Draining {
			w.will(old, ReasonRecycle)
			w.online(next)
			if w.listen {
				w.ready(next)
			}
			w.settle()
		}
		return release
	}
}

// restarting orders a restart of the slot, and holds its replacement where stage
// says.
func restarting(stage State) func(w *simulation, at int) func() {
	return func(w *simulation, at int) func() {
		before := w.replacement()
		w.restart(at)
		w.settle()
		r, next, old := w.began(before)
		if next == nil || r.Why != ReasonRestart {
			return noEnd
		}
		release := w.hold(next, old)
		if stage >= Draining && old != nil {
			w.will(old, ReasonRestart)
			w.online(next)
			if w.listen {
				w.ready(next)
			}
			w.settle()
		}
		return release
	}
}

// full is what a worker says that has accepted as many connections as it may.
func full(w *simulation, p *proc) {
	w.full(p)
	w.settle()
}

// large is a worker that has grown beyond its limit, which shows at its next
// heartbeat; it has shrunk when it is replaced.
func large(w *simulation, p *proc) {
	p.pulse = &Pulse{Memory: 2 << 30}
	w.after(5 * time.Second)
	w.after(5 * time.Second)
}

// aged waits until all workers are due at once.
func aged(w *simulation, _ *proc) { w.after(5 * time.Minute) }

// ordered tells the slot's worker to end, and holds it there.
func ordered(why Reason, order func(w *simulation, p *proc)) func(w *simulation, at int) func() {
	return func(w *simulation, at int) func() {
		p := w.cur(at)
		if p == nil {
			return noEnd
		}
		release := w.hold(p)
		w.will(p, why)
		order(w, p)
		w.settle()
		return release
	}
}

// ending lets the slot's worker exit, and holds the next one that is forked, if
// it is forked at once.
func ending(status int) func(w *simulation, at int) func() {
	return func(w *simulation, at int) func() {
		p := w.cur(at)
		if p == nil {
			return noEnd
		}
		if status == 0 && p.State() == Ready {
			w.will(p, ReasonDrain)
		}
		w.dies(p, status)
		return w.hold(w.cur(at))
	}
}

// scaled changes the number of slots, and holds what that begins.
func scaled(to func(w *simulation)) func(w *simulation, at int) func() {
	return func(w *simulation, _ int) func() {
		before := len(w.forked())
		slots := w.m.slots()
		to(w)
		w.settle()
		held := w.forked()[before:]
		for id := range slots {
			if s := w.m.st.slot(id); s != nil && s.Mode == slotRemoved && s.Current != 0 {
				held = append(held, w.proc(s.Current))
			}
		}
		return w.hold(held...)
	}
}

// slots are the numbers of those that there are.
func (m *Machine) slots() map[int]bool {
	ids := make(map[int]bool)
	for _, s := range m.st.Slots {
		ids[s.ID] = true
	}
	return ids
}

func scale(change func(n int) int) func(w *simulation) {
	return func(w *simulation) {
		if err := w.scale(change(len(w.m.st.Slots))); w.m.st.closed() != nil {
			require.ErrorIs(w.t, err, errs.Closed)
		}
	}
}

func plus(d int) func(n int) int { return func(n int) int { return max(0, n+d) } }

// stopping ends the cluster and holds what drains.
func stopping(stop func(w *simulation)) func(w *simulation, at int) func() {
	return func(w *simulation, _ int) func() {
		for _, p := range w.list() {
			w.will(p, ReasonStop)
		}
		stop(w)
		w.settle()
		return w.hold(w.list()...)
	}
}

// bootLoop lets the slot's workers die before they are ready, once less than is
// borne, and once more at its end.
func bootLoop(w *simulation, at int) func() {
	for range maxBootFailures - 1 {
		w.dies(w.cur(at), 1)
		w.after(time.Second)
	}
	p := w.cur(at)
	release := w.hold(p)
	return func() {
		release()
		w.dies(p, 1)
	}
}

// quickRespawns are so quick that no worker was online for long meanwhile.
func quickRespawns(s *Settings) {
	s.Backoff = Backoff{Min: time.Second, Max: time.Second, Reset: 100 * time.Hour, Jitter: -1}
}

// scenarios are all that can happen. That the master's own time stands still is
// one of them.
var scenarios = []scenario{
	{name: "reload, the first starts", begin: reloading("", Starting), reload: "ok"},
	{name: "reload, the first is online", begin: reloading("", Online), reload: "ok"},
	{name: "reload, the first old one drains", begin: reloading("", Draining), reload: "ok"},
	{name: "reload of what dies", begin: reloading("exit", Starting), reload: "ended before it was up: exit status 1"},
	{name: "reload of what is late", begin: reloading("late", Starting), reload: "StartTimeout"},
	{name: "reload of what says no", begin: reloading("out", Starting), reload: "exit status 78"},
	{name: "reload of what cannot be forked", begin: reloading("fork", Starting), reload: "no more processes"},

	{name: "crash", begin: ending(1)},
	{name: "crash by a signal", begin: ending(-1)},
	{name: "exit with 0", begin: ending(0)},
	{name: "ExitNoRestart", begin: ending(ExitNoRestart), mode: slotResigned},
	{name: "crash loop, backing off", begin: func(w *simulation, at int) func() {
		for range 2 {
			w.dies(w.cur(at), 1)
			if p := w.cur(at); p != nil && !w.held[p] {
				w.step(p)
				w.step(p)
			}
		}
		return noEnd
	}},
	{name: "start that hangs", breaks: "StartTimeout", begin: func(w *simulation, at int) func() {
		w.dies(w.cur(at), 1)
		p := w.cur(at)
		release := w.hold(p)
		return func() {
			if p != nil && p.State() == Starting {
				w.will(p, ReasonCrash)
				w.after(10 * time.Minute)
			}
			release()
		}
	}},
	{name: "crash while nothing can be forked", breaks: "out of memory", begin: func(w *simulation, at int) func() {
		broken := errors.New("out of memory")
		w.broken = broken
		w.dies(w.cur(at), 1)
		w.after(time.Second)
		return func() { w.broken = nil }
	}},
	{name: "boot loop", unproven: true, begin: bootLoop, set: quickRespawns},
	{name: "boot loop under Run", unproven: true, run: true, begin: bootLoop, set: quickRespawns},

	{name: "SIGTERM to a worker", begin: ordered(ReasonDrain, func(w *simulation, p *proc) { w.happened(p, DrainsByItself) })},
	{name: "Kill", mode: slotStopped, begin: ordered(ReasonKill, func(w *simulation, p *proc) { require.NoError(w.t, w.kill(p)) })},
	{name: "Disconnect of a worker", mode: slotStopped, begin: ordered(ReasonDrain, func(w *simulation, p *proc) {
		w.drain(p)
	})},
	{name: "crash of the newest worker", breaks: "ended before it was up: exit status 1", begin: func(w *simulation, _ int) func() {
		p := w.newest()
		return func() { w.dies(p, 1) }
	}},
	{name: "Kill of the newest worker", breaks: "ended before it was up: " + killedText, mode: slotStopped, begin: func(w *simulation, _ int) func() {
		p := w.newest()
		if p == nil {
			return noEnd
		}
		release := w.hold(p)
		w.will(p, ReasonKill)
		require.NoError(w.t, w.kill(p))
		w.settle()
		return release
	}},
	{name: "stall", begin: ordered(ReasonStall, func(w *simulation, p *proc) {
		p.silent = true
		for range 4 {
			w.after(5 * time.Second)
		}
		delete(w.expect, p)
		if r := p.worker(); r.Watch.Stalled {
			w.expect[p] = r.Reason
		}
	})},
	{name: "check that fails", begin: ordered("", func(w *simulation, p *proc) {
		delete(w.expect, p)
		p.pulse = &Pulse{Error: "no database"}
		w.after(5 * time.Second)
	})},
	{name: "pause of the master", begin: func(w *simulation, _ int) func() {
		w.now = w.now.Add(40 * time.Second)
		w.after(time.Second)
		return noEnd
	}},

	{name: "recycling, the new one starts", begin: recycling(full, Starting)},
	{name: "recycling, the old one drains", begin: recycling(full, Draining)},
	{name: "recycling that fails", begin: func(w *simulation, at int) func() {
		release := recycling(full, Starting)(w, at)
		if r := w.replacement(); r.Next != 0 && r.Why == ReasonRecycle && r.Old == 0 {
			w.doomed[w.proc(r.Next)] = true
		}
		return release
	}},
	{name: "recycling by memory", begin: recycling(large, Starting), set: func(o *Settings) { o.Recycle.Memory = 1 << 30 }},
	{name: "recycling by age", begin: recycling(aged, Starting), set: func(o *Settings) { o.Recycle.Age = 5 * time.Minute }},

	{name: "restart, the new one starts", begin: restarting(Starting)},
	{name: "restart, the old one drains", begin: restarting(Draining)},
	{name: "Vacate", mode: slotStopped, begin: ordered(ReasonDrain, func(w *simulation, p *proc) { w.vacate(p.place) })},
	{name: "Respawn", begin: ordered(ReasonKill, func(w *simulation, p *proc) { w.respawn(p.place) })},

	{name: "scale up", begin: scaled(scale(plus(2))), target: plus(2)},
	{name: "scale down", begin: scaled(scale(plus(-1))), target: plus(-1)},
	{name: "scale to nothing", begin: scaled(scale(plus(-100))), target: plus(-100)},
	{name: "TTIN", begin: scaled(func(w *simulation) { w.scaleBy(1) }), target: plus(1)},
	{name: "TTOU", begin: scaled(func(w *simulation) { w.scaleBy(-1) }), target: func(n int) int { return max(min(n, 1), n-1) }},
	{name: "AutoFork again", begin: func(w *simulation, _ int) func() {
		if err := w.autoFork(); w.m.st.closed() != nil {
			require.ErrorIs(w.t, err, errs.Closed)
		} else {
			require.NoError(w.t, err)
		}
		w.settle()
		return noEnd
	}},
	{name: "plain Fork that crashes", begin: func(w *simulation, _ int) func() {
		p, err := w.forkOne()
		w.settle()
		if err != nil {
			return noEnd
		}
		release := w.hold(p)
		return func() {
			release()
			w.dies(p, 1)
		}
	}},

	{name: "Disconnect of all", stops: true, begin: stopping(func(w *simulation) { w.disconnect() })},
	{name: "Disconnect that hastens", stops: true, begin: stopping(func(w *simulation) {
		c := w.disconnect()
		w.after(time.Second)
		w.in(func(m *Machine) { m.StopNow(w.now, c.id) })
		w.after(time.Second)
	})},
	{name: "end of Run", stops: true, run: true, begin: stopping(func(w *simulation) { w.run.stop() })},
}
