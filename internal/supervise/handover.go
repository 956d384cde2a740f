package supervise

import "time"

// What an upgrade needs: another program goes on with the state.

// Handover has the methods of a Machine that an upgrade calls, before and after another
// program goes on with the state.
type Handover struct{ *Machine }

// Hold with true keeps the Machine from beginning a fork, until Hold with false. All else
// goes on: events are noted, and deadlines are kept.
func (m Handover) Hold(now time.Time, held bool) {
	m.now = now
	defer m.settle()
	m.held = held
}

// UnderWay names something that must end before another program can go on with the state:
// somebody waits for its outcome, or the host is in the middle of it. It is "" if there is
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

// Resettle gives all generations the settings s. Those that the workers were started with
// stay: Workers, ManualReady and ReadyAfter.
func (m Handover) Resettle(s Settings) {
	for _, g := range m.st.Generations {
		was := g.Settings
		g.Settings = s
		g.Settings.Workers, g.Settings.ManualReady, g.Settings.ReadyAfter = was.Workers, was.ManualReady, was.ReadyAfter
	}
}

// Keeps returns the number of slots, and whether AutoFork keeps workers in them. Scale may
// have made the number 0.
func (m Handover) Keeps() (slots int, keeps bool) { return len(m.st.Slots), m.st.keeps() }

// Running returns the workers whose processes exist.
func (m Handover) Running() (all []Worker) {
	for _, w := range m.st.running() {
		all = append(all, *w)
	}
	return all
}
