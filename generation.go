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

// newest is the generation that new slots get: that of the reload under way,
// or of the last one.
func (m *master) newest() *generation {
	if m.reload != nil {
		return m.reload.gen
	}
	var newest *generation
	for _, s := range m.slots {
		if newest == nil || s.gen.n > newest.n {
			newest = s.gen
		}
	}
	return newest
}

// releaseGenerations closes the binaries that no slot needs any more.
func (m *master) releaseGeneration(gen *generation) {
	if gen == nil || m.reload != nil && m.reload.gen == gen ||
		slices.ContainsFunc(m.slots, func(s *slot) bool { return s.gen == gen }) {
		return
	}
	gen.bin.close()
}
