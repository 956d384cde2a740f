// Package logqueue writes log records on a goroutine of its own, so that whoever
// logs never waits for the log.
//
// A log goes to somebody else: a terminal that was stopped with Ctrl-S, a log driver
// that hangs, a handler of the application that calls back into this package. A write
// there may take for ever, and the decisions of the cluster must not wait for it.
//
// A Queue is bounded. Records that come while it is full are dropped and counted, and
// the next record that is written is followed by one that tells the number. The
// goroutine exists only while there is something to write, so an idle cluster has none.
// A log that hangs keeps one.
//
// There is one lock, on the queue. It is never held while a handler runs.
package logqueue

import (
	"context"
	"log/slog"
	"sync"
)

// limit bounds how many records wait. The loudest that a cluster gets, a crash loop of
// some hundred workers, is some ten records a second.
const limit = 1024

// Queue holds records for handlers that may be slow. The zero value is ready to
// use. Its methods may be called by any goroutine.
type Queue struct {
	mu      sync.Mutex
	entries []entry
	dropped int           // records, since the last record that told the number
	idle    chan struct{} // closed when all is written; nil if nothing waits
}

// entry is a record and the handler that writes it.
type entry struct {
	handler slog.Handler
	record  slog.Record
}

// Logger returns a logger that hands its records to l by way of the queue.
func (q *Queue) Logger(l *slog.Logger) *slog.Logger { return slog.New(handler{q, l.Handler()}) }

// Flush waits until all that was logged so far has been written, or until done
// is closed.
func (q *Queue) Flush(done <-chan struct{}) {
	q.mu.Lock()
	idle := q.idle
	q.mu.Unlock()
	if idle == nil {
		return
	}
	select {
	case <-idle:
	case <-done:
	}
}

func (q *Queue) add(e entry) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if len(q.entries) >= limit {
		q.dropped++
		return
	}
	q.entries = append(q.entries, e)
	if q.idle == nil {
		q.idle = make(chan struct{})
		go q.write()
	}
}

// write is the writing goroutine. A handler may end it with runtime.Goexit; then another
// goroutine goes on.
func (q *Queue) write() {
	ended := false
	defer func() {
		if !ended {
			go q.write()
		}
	}()
	for {
		e, dropped, ok := q.next()
		if !ok {
			ended = true
			return
		}
		e.write()
		if dropped > 0 {
			r := slog.NewRecord(e.record.Time, slog.LevelWarn, "cluster: the log was too slow, and records were dropped", 0)
			r.Add("dropped", dropped)
			entry{e.handler, r}.write()
		}
	}
}

// next takes the oldest record, and the number of those dropped since the call before.
func (q *Queue) next() (e entry, dropped int, ok bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if len(q.entries) == 0 {
		close(q.idle)
		q.idle, q.entries = nil, nil
		return e, 0, false
	}
	e, q.entries = q.entries[0], q.entries[1:]
	dropped, q.dropped = q.dropped, 0
	return e, dropped, true
}

// write asks the handler here whether it wants the record, and not where the record is
// made: Enabled is code of the application as well, and may be as slow.
func (e entry) write() {
	ctx := context.Background()
	if e.handler.Enabled(ctx, e.record.Level) {
		e.handler.Handle(ctx, e.record)
	}
}

// handler puts records into a queue.
type handler struct {
	queue *Queue
	to    slog.Handler
}

func (h handler) Enabled(context.Context, slog.Level) bool { return true }

func (h handler) Handle(_ context.Context, r slog.Record) error {
	h.queue.add(entry{h.to, r.Clone()})
	return nil
}

func (h handler) WithAttrs(attrs []slog.Attr) slog.Handler {
	return handler{h.queue, h.to.WithAttrs(attrs)}
}

func (h handler) WithGroup(name string) slog.Handler { return handler{h.queue, h.to.WithGroup(name)} }
