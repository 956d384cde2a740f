package clustertest

import (
	"fmt"
	"io"
	"strings"
	"sync"
	"testing"

	"github.com/go-cluster/cluster"
)

// LineWriter is a writer that cuts what is written into lines, and passes them on.
type LineWriter struct {
	Lines chan string
	mu    sync.Mutex
	half  string
}

// NewLineWriter returns a LineWriter without lines.
func NewLineWriter() *LineWriter { return &LineWriter{Lines: make(chan string, 10000)} }

func (l *LineWriter) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	lines := strings.Split(l.half+string(p), "\n")
	for _, line := range lines[:len(lines)-1] {
		l.Lines <- line
	}
	l.half = lines[len(lines)-1]
	return len(p), nil
}

// Both is an Options.Output that takes the standard output and error of all workers.
func (l *LineWriter) Both(*cluster.Process) (stdout, stderr io.Writer) { return l, l }

// Find waits for a line that has the prefix. The line may have come already.
func (r *Recorder) Find(t testing.TB, prefix string) string {
	t.Helper()
	for {
		for _, line := range r.All() {
			if strings.HasPrefix(line, prefix) {
				return line
			}
		}
		Await(t, r.Lines, "line "+prefix)
	}
}

// Count returns how many lines have the prefix.
func (r *Recorder) Count(prefix string) (n int) {
	for _, line := range r.All() {
		if strings.HasPrefix(line, prefix) {
			n++
		}
	}
	return n
}

// Recorder collects events as lines of text, in order.
type Recorder struct {
	mu    sync.Mutex
	kept  []string
	Lines chan string
}

// NewRecorder returns a Recorder without lines.
func NewRecorder() *Recorder { return &Recorder{Lines: make(chan string, 10000)} }

// Add notes a line.
func (r *Recorder) Add(format string, args ...any) {
	line := fmt.Sprintf(format, args...)
	r.mu.Lock()
	r.kept = append(r.kept, line)
	r.mu.Unlock()
	r.Lines <- line
}

// All returns the lines so far.
func (r *Recorder) All() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return append([]string(nil), r.kept...)
}

// Until waits for a line that has the prefix.
func (r *Recorder) Until(t testing.TB, prefix string) string {
	t.Helper()
	for {
		if line := Await(t, r.Lines, prefix); strings.HasPrefix(line, prefix) {
			return line
		}
	}
}
