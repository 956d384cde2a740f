package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"sync"
	"time"

	"github.com/go-cluster/cluster"
	"golang.org/x/term"
)

// maxPerSecond bounds, in bytes, what one stream of a worker may write in a second. What is
// more is cut, counted, and told.
const maxPerSecond = 8 << 20

// output is where the workers' lines go.
type output struct {
	name     string
	json     bool
	colour   bool
	out, err *sink
	log      *sink // both, with --log; else nil
}

// newOutput opens where the flags say.
func (f *runFlags) newOutput() (*output, error) {
	o := &output{name: f.name, json: f.json}
	if f.log != "" {
		o.log = &sink{path: f.log}
		o.out, o.err = o.log, o.log
		return o, o.log.open()
	}
	o.out, o.err = &sink{file: os.Stdout}, &sink{file: os.Stderr}
	o.colour = !f.json && os.Getenv("NO_COLOR") == "" && term.IsTerminal(int(os.Stdout.Fd())) && term.IsTerminal(int(os.Stderr.Fd()))
	return o, nil
}

func (o *output) close() {
	if o.log != nil {
		o.log.close()
	}
}

// reopen opens the log's file anew: it has been moved.
func (o *output) reopen() error {
	if o.log == nil {
		return nil
	}
	return o.log.open()
}

// writers are those of a worker, for cluster.Options.
func (o *output) writers(w *cluster.Process) (stdout, stderr io.Writer) {
	name := strconv.Itoa(w.Slot())
	return o.stream(name, w.ID(), "stdout", o.out), o.stream(name, w.ID(), "stderr", o.err)
}

// own is the master's own, as one stream of it.
func (o *output) own(stream string) io.Writer {
	to := o.out
	if stream == "stderr" {
		to = o.err
	}
	return o.stream("", 0, stream, to)
}

func (o *output) stream(worker string, id int, stream string, to *sink) *lines {
	l := &lines{o: o, worker: worker, id: id, stream: stream, to: to, prefix: o.name}
	if worker != "" {
		l.prefix += "." + worker
	}
	if l.prefix += " | "; o.colour {
		// One of six colours for each slot; the master has none.
		if slot, err := strconv.Atoi(worker); err == nil && slot >= 0 {
			l.prefix = fmt.Sprintf("\x1b[%dm%s\x1b[0m", 31+slot%6, l.prefix)
		}
	}
	return l
}

// lines is one stream of a worker. Each Write is of whole lines.
type lines struct {
	o          *output
	worker     string
	id         int
	stream     string
	to         *sink
	prefix     string
	mu         sync.Mutex // of the budget; the master's own have several writers
	second     int64      // Unix time of the budget
	used, lost int
}

func (l *lines) Write(b []byte) (int, error) {
	n, now := len(b), time.Now()
	var all bytes.Buffer
	for len(b) > 0 {
		line, rest, _ := bytes.Cut(b, []byte("\n"))
		b = rest
		if lost := l.spend(len(line)+1, now); lost > 0 {
			all.Write(l.format([]byte(strconv.Itoa(lost)+" lines cut: more than "+size(maxPerSecond)+" in a second"), now))
		} else if lost < 0 {
			continue
		}
		all.Write(l.format(line, now))
	}
	if all.Len() > 0 {
		l.to.write(all.Bytes())
	}
	return n, nil // whatever becomes of it, the worker goes on
}

// spend takes n bytes off the budget. It returns -1 if there is too little left, and how
// many lines were lost in an earlier second when it is filled again.
func (l *lines) spend(n int, now time.Time) (lost int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if s := now.Unix(); s != l.second {
		lost, l.lost, l.used, l.second = l.lost, 0, 0, s
	}
	if l.used += n; l.used > maxPerSecond {
		l.lost += lost + 1
		return -1
	}
	return lost
}

// record is a line as JSON, if it is not JSON itself.
type record struct {
	Time   time.Time `json:"time"`
	Worker string    `json:"worker"` // its slot; "" for the master
	ID     int       `json:"id,omitempty"`
	Stream string    `json:"stream"`
	Text   string    `json:"text"`
}

// format is a line as it is written.
func (l *lines) format(line []byte, now time.Time) []byte {
	line = bytes.TrimSuffix(line, []byte("\r"))
	if !l.o.json {
		return []byte(l.prefix + plainLine(string(line)) + "\n")
	}
	var b []byte
	if object := l.object(line, now); object != nil {
		b = object
	} else {
		b, _ = json.Marshal(record{now, l.worker, l.id, l.stream, string(line)})
	}
	return []byte(plainLine(string(b)) + "\n")
}

// object is a line that is a JSON object with the members that it lacks, nil if it is
// something else. The line's own members stay as they are.
func (l *lines) object(line []byte, now time.Time) []byte {
	line = bytes.TrimSpace(line)
	var has map[string]json.RawMessage
	if len(line) == 0 || line[0] != '{' || json.Unmarshal(line, &has) != nil {
		return nil
	}
	add := []byte{'{'}
	for _, m := range []struct {
		name  string
		value any
	}{{"time", now}, {"worker", l.worker}} {
		if _, ok := has[m.name]; !ok {
			v, _ := json.Marshal(m.value)
			add = append(append(strconv.AppendQuote(add, m.name), ':'), append(v, ',')...)
		}
	}
	if len(has) == 0 && len(add) > 1 {
		add = add[:len(add)-1]
	}
	return append(add, line[1:]...)
}

// sink is a file that lines go to.
type sink struct {
	path string // of the log; "" for what is open anyway
	mu   sync.Mutex
	file *os.File
	bad  bool // the last write failed
}

// open opens the log, and then closes what was open before.
func (s *sink) open() error {
	f, err := os.OpenFile(s.path, os.O_WRONLY|os.O_APPEND|os.O_CREATE, 0o640)
	if err != nil {
		return err
	}
	s.mu.Lock()
	old := s.file
	s.file, s.bad = f, false
	s.mu.Unlock()
	if old != nil {
		old.Close()
	}
	return nil
}

func (s *sink) close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.file != nil {
		s.file.Close()
		s.file = nil
	}
}

var errClosed = errors.New("closed")

// write writes lines. Of failures in a row the first is told.
func (s *sink) write(b []byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	err := errClosed
	if s.file != nil {
		_, err = s.file.Write(b)
	}
	if err != nil && !s.bad && s.path != "" && err != errClosed {
		fmt.Fprintf(os.Stderr, "cluster: %s\n", plain(err.Error()))
	}
	s.bad = err != nil
}
