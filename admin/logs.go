package admin

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"
	"unicode/utf8"

	"github.com/go-cluster/cluster"
)

const (
	// defaultLog is how many lines are kept.
	defaultLog = 1000
	// longestLine is where a line is cut, in bytes.
	longestLine = 8 << 10
	lineCut     = " [cut: a line of more than 8 KiB]"
)

// LogLine is one line of what a worker has written, as /logs tells it.
type LogLine struct {
	N      int64     `json:"n"`      // counts from 1; begins anew with a master, but for an upgraded one
	Time   time.Time `json:"time"`   // when it reached the master
	Worker string    `json:"worker"` // the slot, or "id" and the id of a plain Fork
	ID     int       `json:"id"`
	Stream string    `json:"stream"` // "stdout" or "stderr"
	Text   string    `json:"text"`   // without the newline
}

// logBook keeps the last lines of all workers. Who follows reads what it wants when it
// can; it misses what is gone by then. The workers' output is copied by the goroutines
// that call add, so that takes the lock for no longer than an append.
type logBook struct {
	mu     sync.Mutex
	ring   []LogLine // grows up to its bound
	max    int
	before int64         // lines that were never in the ring
	last   int64         // number of the last line, from 1
	more   chan struct{} // closed at the next line; nil while nobody waits
}

func newLogBook(max int) *logBook { return &logBook{max: max} }

// add keeps the lines of a worker.
func (b *logBook) add(worker, slot int, stream string, text []byte) {
	name := "id" + strconv.Itoa(worker)
	if slot >= 0 {
		name = strconv.Itoa(slot)
	}
	now := time.Now()
	b.mu.Lock()
	defer b.mu.Unlock()
	for len(text) > 0 {
		line, rest, _ := bytes.Cut(text, []byte("\n"))
		text = rest
		l := LogLine{b.last + 1, now, name, worker, stream, cutLine(line)}
		if len(b.ring) < b.max {
			b.ring = append(b.ring, l)
		} else {
			b.ring[b.place(b.last)] = l
		}
		b.last++
	}
	if b.more != nil {
		close(b.more)
		b.more = nil
	}
}

// cutLine is a line as it is kept.
func cutLine(line []byte) string {
	line = bytes.TrimSuffix(line, []byte("\r"))
	if len(line) <= longestLine {
		return string(line)
	}
	end := longestLine
	for end > longestLine-utf8.UTFMax && !utf8.RuneStart(line[end]) {
		end--
	}
	return string(line[:end]) + lineCut
}

// place is where the ring has the line after number n.
func (b *logBook) place(n int64) int64 { return (n - b.before) % int64(b.max) }

// after returns the lines that are kept after number n, the number of the last one,
// and what is closed when there are more. A number that was never given means from the start.
func (b *logBook) after(n int64) (list []LogLine, last int64, more <-chan struct{}) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if n > b.last {
		n = 0
	}
	n = max(n, b.last-int64(len(b.ring)))
	for ; n < b.last; n++ {
		list = append(list, b.ring[b.place(n)])
	}
	if b.more == nil {
		b.more = make(chan struct{})
	}
	return list, b.last, b.more
}

// logQuery is which lines are asked for.
type logQuery struct {
	worker string // "": all
	after  int64  // only lines after that number
	since  time.Time
	tail   int // -1: all
	follow bool
}

func newLogQuery(r *http.Request) (q logQuery, err error) {
	v := r.URL.Query()
	q = logQuery{worker: v.Get("worker"), tail: -1}
	if s := v.Get("since"); s != "" {
		if d, bad := time.ParseDuration(s); bad == nil {
			q.since = time.Now().Add(-d)
		} else if q.since, bad = time.Parse(time.RFC3339, s); bad != nil {
			return q, badRequest{fmt.Errorf("since=%q: a time as %q or a duration as \"10m\" is needed", s, time.RFC3339)}
		}
	}
	if s := v.Get("after"); s != "" {
		if q.after, err = strconv.ParseInt(s, 10, 64); err != nil {
			return q, badRequest{fmt.Errorf("after=%q: the number of a line is needed", s)}
		}
	}
	if s := v.Get("tail"); s != "" {
		if q.tail, err = strconv.Atoi(s); err != nil || q.tail < 0 {
			return q, badRequest{fmt.Errorf("tail=%q: a number of lines is needed", s)}
		}
	}
	if s := v.Get("follow"); s != "" {
		if q.follow, err = strconv.ParseBool(s); err != nil {
			return q, badRequest{fmt.Errorf("follow=%q: 1 or 0 is needed", s)}
		}
	}
	return q, nil
}

// of are the lines that are asked for; a new slice.
func (q logQuery) of(list []LogLine) (own []LogLine) {
	for _, l := range list {
		if (q.worker == "" || q.worker == l.Worker || q.worker == "id"+strconv.Itoa(l.ID)) && !l.Time.Before(q.since) {
			own = append(own, l)
		}
	}
	return own
}

// logs tells what workers have written, and goes on telling with ?follow=1: as text
// that may reach a terminal, or as JSON lines if those are asked for.
func (s *service) logs(w http.ResponseWriter, r *http.Request) {
	q, err := newLogQuery(r)
	if err == nil && s.book == nil {
		err = fmt.Errorf("Options.Log is -1: no lines are kept: %w", cluster.ErrNotSupported)
	}
	if err != nil {
		fail(w, err)
		return
	}
	all, n, more := s.book.after(q.after)
	list := q.of(all)
	if _, err := find(q.worker); q.worker != "" && len(list) == 0 && errors.Is(err, errNoWorker) {
		fail(w, err)
		return
	}
	if q.tail >= 0 && len(list) > q.tail {
		list = list[len(list)-q.tail:]
	}
	typ, write := "text/plain; charset=utf-8", textLine
	if lines(r) {
		typ, write = ndjson, jsonLine
	}
	w.Header().Set("Content-Type", typ)
	w.Header().Set("Cache-Control", "no-store")
	for {
		for _, l := range list {
			if _, err := w.Write(write(l)); err != nil {
				return
			}
		}
		if !q.follow || http.NewResponseController(w).Flush() != nil {
			return
		}
		select {
		case <-more:
		case <-s.closing:
			q.follow = false // what has just come is told
		case <-r.Context().Done():
			return
		}
		all, n, more = s.book.after(n)
		list = q.of(all)
	}
}

// textLine is a line as it may reach a terminal.
func textLine(l LogLine) []byte {
	return fmt.Appendf(nil, "%s %s %s | %s\n", l.Time.Format("2006-01-02T15:04:05.000Z07:00"), l.Worker, l.Stream, plainText(l.Text))
}

// plainText is plain, but for tabs.
func plainText(s string) string {
	parts := strings.Split(s, "\t")
	for i := range parts {
		parts[i] = plain(parts[i])
	}
	return strings.Join(parts, "\t")
}

// jsonLine is a line as JSON, which keeps all that is UTF-8. Package json escapes C0;
// C1, which some terminals obey as well, is escaped here.
func jsonLine(l LogLine) []byte {
	b, _ := json.Marshal(l)
	if bytes.ContainsAny(b, c1) {
		var safe []byte
		for _, r := range string(b) {
			if r >= 0x7f && r < 0xa0 {
				safe = fmt.Appendf(safe, `\u%04x`, r)
			} else {
				safe = utf8.AppendRune(safe, r)
			}
		}
		b = safe
	}
	return append(b, '\n')
}

// c1 are DEL and the control characters above it.
var c1 = func() string {
	var all []rune
	for r := rune(0x7f); r < 0xa0; r++ {
		all = append(all, r)
	}
	return string(all)
}()
