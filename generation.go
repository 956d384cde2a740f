package cluster

import (
	"os"
	"slices"
)

// generation is what workers are forked from: a crash respawn must be the same
// version as what crashed, and a reload another. A slot keeps its generation
// until a reload succeeds in it.
type generation struct {
	n    int
	opts *Options
	bin  *binary
	env  []string // the master's environment at that time
}

// newGeneration takes the options in force and looks the program up: for a
// reload, at its path as it is now. Not for the mailbox: files may be slow.
func (m *master) newGeneration(reload bool) (*generation, error) {
	var opts *Options
	var err error
	m.call(func() { opts, err = m.current() })
	if err != nil {
		return nil, err
	}
	bin, err := openBinary(opts, reload)
	if err != nil {
		return nil, err
	}
	return &generation{opts: opts, bin: bin, env: os.Environ()}, nil
}

// enter gives gen its number: it will be used.
func (m *master) enter(gen *generation) {
	m.lastGen++
	gen.n = m.lastGen
}

// newest is the generation that new slots get: the last one of which a worker
// was up. That of a reload under way may never be; if it is, the reload comes to
// the new slots too. It is nil before the first AutoFork.
func (m *master) newest() *generation {
	newest := m.idle
	for _, s := range m.slots {
		if newest == nil || s.gen.n > newest.n {
			newest = s.gen
		}
	}
	return newest
}

// keeps reports whether AutoFork keeps workers, though it may be none by Scale.
func (m *master) keeps() bool { return len(m.slots) > 0 || m.idle != nil }

// releaseGeneration closes the binary of gen if no slot needs it any more.
func (m *master) releaseGeneration(gen *generation) {
	if gen == nil || m.idle == gen || m.reload != nil && m.reload.gen == gen ||
		slices.ContainsFunc(m.slots, func(s *slot) bool { return s.gen == gen }) {
		return
	}
	gen.bin.close()
}
