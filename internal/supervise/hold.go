package supervise

import "time"

// What another process needs that is to go on with the state.

// Handover is a Machine whose state another process is to go on with.
type Handover struct{ *Machine }

// Hold keeps the Machine from beginning a fork, until it is called with false. All else
// goes on: what happens is noted, and deadlines are kept.
func (m Handover) Hold(now time.Time, held bool) {
	m.now = now
	defer m.settle()
	m.held = held
}

// UnderWay names what has to end before another process can go on with the state, since
// somebody waits for its outcome or the host is in the middle of it. It is "" if there is
// nothing.
func (m Handover) UnderWay() string {
	st := &m.st
	switch {
	case st.Stop != nil || st.Ending:
		return "a stop"
	case m.Reloads():
		return "a reload"
	case len(st.Fills) > 0:
		return "a change of the number of workers"
	case len(st.Restarts) > 0 || st.Replacing != nil && st.Replacing.Call != 0:
		return "a restart"
	case len(st.Openings) > 0:
		return "the opening of a program"
	}
	for _, w := range st.Workers {
		if w.Forking {
			return "a fork"
		}
	}
	return ""
}

// Reloads reports whether a reload is under way, or is about to begin.
func (m Handover) Reloads() bool { return m.st.Reload != nil || len(m.st.ReloadAsked) > 0 }

// Stopping reports whether the supervision is being ended.
func (m Handover) Stopping() bool { return m.st.Stop != nil || m.st.Ending }

// Resettle gives all generations other settings, but for what their workers were started
// with.
func (m Handover) Resettle(s Settings) {
	for _, g := range m.st.Generations {
		was := g.Settings
		g.Settings = s
		g.Settings.Workers, g.Settings.ManualReady, g.Settings.ReadyAfter = was.Workers, was.ManualReady, was.ReadyAfter
	}
}

// Keeps reports whether AutoFork keeps workers, though it may be none, and how many.
func (m Handover) Keeps() (slots int, keeps bool) { return len(m.st.Slots), m.st.keeps() }

// Running returns what is known of each worker whose process exists.
func (m Handover) Running() (all []Worker) {
	for _, w := range m.st.running() {
		all = append(all, *w)
	}
	return all
}
