package supervise

import "slices"

// stop is a stop of the whole cluster.
type stop struct {
	Calls  []int
	Now    bool  // kill, do not drain
	Killed []int // workers that had to be killed
	Undead []int // pids of processes that SIGKILL did not end
}

func (w *Worker) killForStop() {
	w.setVoluntary(true)
	w.advance(Draining)
	w.Overdue = true
	w.killFor(ReasonStop)
}

// checkStopped ends the stop under way if no worker is left.
func (m *Machine) checkStopped() {
	s := m.st.Stop
	if s == nil || m.st.forking() > 0 || len(m.st.running()) > 0 {
		return
	}
	m.st.Stop = nil
	slices.Sort(s.Killed)
	m.host.Tell(Stopped{s.Calls, s.Killed, s.Undead})
}
