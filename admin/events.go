package admin

import (
	"encoding/json"
	"net/http"
	"strconv"
	"strings"
	"time"
)

const ndjson = "application/x-ndjson"

// keepAlive is how often somebody who follows hears something, so that both sides
// notice when the other one is gone.
const keepAlive = 15 * time.Second

func number(n int) string { return strconv.Itoa(n) }

// events tells what has happened, and goes on telling: as server-sent events, or as
// JSON lines if those are asked for. It begins after Last-Event-ID, or ?after=: a
// browser that comes back has both, the address that it came to first. With ?follow=0
// it ends with what has happened so far.
func (s *service) events(w http.ResponseWriter, r *http.Request) {
	from := r.Header.Get("Last-Event-ID")
	if from == "" {
		from = r.URL.Query().Get("after")
	}
	n, err := strconv.ParseInt(from, 10, 64)
	if err != nil && from != "" {
		n = -1 // never given
	}
	out := newEventWriter(w, lines(r))
	last := r.URL.Query().Get("follow") == "0"
	for {
		list, more := s.journal.after(n)
		for _, e := range list {
			out.write(e, e.N)
			n = e.N
		}
		if out.flush() != nil || last {
			return
		}
		select {
		case <-more:
		case <-time.After(keepAlive):
			out.nothing()
		case <-s.closing:
			last = true // what has just happened is told
		case <-r.Context().Done():
			return
		}
	}
}

// lines reports whether JSON lines are asked for.
func lines(r *http.Request) bool { return strings.Contains(r.Header.Get("Accept"), ndjson) }

// eventWriter writes JSON values as they come.
type eventWriter struct {
	w     http.ResponseWriter
	lines bool
	err   error
}

func newEventWriter(w http.ResponseWriter, lines bool) *eventWriter {
	typ := "text/event-stream"
	if lines {
		typ = ndjson
	}
	w.Header().Set("Content-Type", typ)
	w.Header().Set("Cache-Control", "no-store")
	return &eventWriter{w: w, lines: lines}
}

// write writes v, with its number unless that is 0. JSON has no newline in it, so a
// text of a worker's cannot end an event.
func (o *eventWriter) write(v any, n int64) {
	b, err := json.Marshal(v)
	if err != nil || o.err != nil {
		return
	}
	if !o.lines {
		b = append([]byte("data: "), b...)
		if n != 0 {
			b = append([]byte("id: "+strconv.FormatInt(n, 10)+"\n"), b...)
		}
		b = append(b, '\n')
	}
	_, o.err = o.w.Write(append(b, '\n'))
}

// nothing is written where nothing happens.
func (o *eventWriter) nothing() {
	text := ":\n\n"
	if o.lines {
		text = "\n"
	}
	_, o.err = o.w.Write([]byte(text))
}

func (o *eventWriter) flush() error {
	if o.err == nil {
		o.err = http.NewResponseController(o.w).Flush()
	}
	return o.err
}
