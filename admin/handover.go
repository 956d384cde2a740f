package admin

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"os"

	"github.com/go-cluster/cluster"
)

// What goes over to the program that comes with an upgrade beside the events: the lines and
// the stalls that are kept, the counts, and the sockets, at which nobody is refused meanwhile. All
// of that is left when nothing is copied or reported any more, so that nothing is missing.
// The master is away meanwhile: the lines and stacks are not encoded, only written.

const (
	// keptName, socketName and addressName are what the files are left under.
	keptName    = stateName + "/kept"
	socketName  = stateName + "/socket"
	addressName = stateName + "/address"
	// leftLines bounds, in bytes, the lines that go over, of which each counts lineCost beside
	// its text. The default number of lines goes over whole.
	leftLines = 16 << 20
	lineCost  = 128
)

// leftState is the first line of the file that is left. What has a length follows it: the
// texts of the lines, then stacks and trace of each stall. Members that this program does not
// know are ignored.
type leftState struct {
	LastLine  int64
	Lines     []leftLine
	LastStall int64
	Stalls    []Stall
	Restarts  []leftRestart
	Reloads   map[string]int64
	Dropped   map[string]int64
}

// leftLine is a line whose text follows.
type leftLine struct {
	LogLine
	Len int
}

type leftRestart struct {
	Slot   int
	Reason string
	N      int64
}

// leaveKept writes what is kept into a file.
func leaveKept(s *service) (f *os.File, err error) {
	var state leftState
	texts := s.book.leave(&state)
	bodies := s.stalls.leave(&state)
	s.tally.leave(&state)
	head, err := json.Marshal(state)
	if err != nil {
		return nil, err
	}
	if f, err = s.core.NewFile(); err != nil {
		return nil, err
	}
	w := bufio.NewWriterSize(f, 256<<10)
	w.Write(append(head, '\n'))
	for _, text := range texts {
		w.WriteString(text)
	}
	for _, body := range bodies {
		w.Write(body)
	}
	if err := w.Flush(); err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

// restoreKept goes on with what the program before has left.
func restoreKept(s *service) error {
	f := s.core.Left(keptName)
	if f == nil {
		return nil
	}
	st, err := f.Stat()
	if err != nil {
		return err
	}
	// A rollback reads it once more, from its beginning.
	r := bufio.NewReaderSize(io.NewSectionReader(f, 0, st.Size()), 256<<10)
	head, err := r.ReadBytes('\n')
	if err != nil {
		return err
	}
	var state leftState
	if err := json.Unmarshal(head, &state); err != nil {
		return err
	}
	body := func(n int) ([]byte, error) {
		if n < 0 || int64(n) > st.Size() {
			return nil, fmt.Errorf("a length of %d bytes in a file of %d", n, st.Size())
		}
		b := make([]byte, n)
		_, err := io.ReadFull(r, b)
		return b, err
	}
	lines := make([]LogLine, 0, len(state.Lines))
	for _, l := range state.Lines {
		text, err := body(l.Len)
		if err != nil {
			return err
		}
		l.Text = string(text)
		lines = append(lines, l.LogLine)
	}
	var stalls []*keptStall
	for _, one := range state.Stalls {
		k := &keptStall{Stall: one}
		if k.stacks, err = body(one.Stacks); err != nil {
			return err
		}
		if k.trace, err = body(one.Trace); err != nil {
			return err
		}
		stalls = append(stalls, k)
	}
	s.book.restore(lines, state.LastLine)
	s.stalls.restore(stalls, state.LastStall)
	s.tally.restore(&state)
	return nil
}

// leave puts the youngest lines into the state, and returns their texts. The book is nil if
// none are kept.
func (b *logBook) leave(s *leftState) (texts []string) {
	if b == nil {
		return nil
	}
	all, last, _ := b.after(0)
	s.LastLine = last
	first, sum := len(all), 0
	for first > 0 && sum+lineCost+len(all[first-1].Text) <= leftLines {
		first--
		sum += lineCost + len(all[first].Text)
	}
	for _, l := range all[first:] {
		texts = append(texts, l.Text)
		n := len(l.Text)
		l.Text = ""
		s.Lines = append(s.Lines, leftLine{l, n})
	}
	return texts
}

// restore goes on with the lines, of which the youngest has the number last.
func (b *logBook) restore(lines []LogLine, last int64) {
	if b == nil {
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.ring = append(b.ring[:0], lines[max(0, len(lines)-b.max):]...)
	b.last = last
	b.before = last - int64(len(b.ring))
}

// leave puts the stalls into the state, and returns what follows.
func (b *stallBook) leave(s *leftState) (bodies [][]byte) {
	b.mu.Lock()
	defer b.mu.Unlock()
	s.LastStall = b.last
	for _, k := range b.list {
		one := k.Stall
		one.Stacks, one.Trace = len(k.stacks), len(k.trace)
		s.Stalls = append(s.Stalls, one)
		bodies = append(bodies, k.stacks, k.trace)
	}
	return bodies
}

func (b *stallBook) restore(list []*keptStall, last int64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.list, b.last = list, last
	b.bound()
}

func (t *tally) leave(s *leftState) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for of, n := range t.restarts {
		s.Restarts = append(s.Restarts, leftRestart{of.slot, string(of.reason), n})
	}
	s.Reloads, s.Dropped = maps.Clone(t.reloads), maps.Clone(t.dropped)
}

func (t *tally) restore(s *leftState) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, of := range s.Restarts {
		t.restarts[restart{of.Slot, cluster.Reason(of.Reason)}] = of.N
	}
	maps.Copy(t.reloads, s.Reloads)
	maps.Copy(t.dropped, s.Dropped)
}
