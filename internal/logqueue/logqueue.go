// Package logqueue writes log records on a goroutine of its own, so that whoever
// logs never waits for the log.
//
// A log is a pipe to somebody else: a terminal that was stopped with Ctrl-S, a
// log driver that hangs, a handler of the application's that calls back into this
// package. A write there may take for ever, and what the cluster decides must not
// wait for it.
//
// A Queue is bounded. Records that come while it is full are dropped and counted,
// and the next record that is written is followed by one that tells the number.
// The goroutine exists only while there is something to write, so an idle cluster
// has none; while the log hangs there is one, for as long as that takes.
//
// There is one lock, on the queue. It is never held while a handler runs.
package logqueue

import (
	"context"
	"log/slog"
	"sync"
)

// limit is how many records wait at most. The loudest hour of a cluster, a crash
// loop of some hundred workers, is some ten records a second.
const limit = 1024

// Queue holds records for handlers that may be slow. The zero value is ready to
// use. Its methods may be called by any goroutine.
type Queue struct {
	mu      sync.Mutex
	entries []entry
	dropped int           // since the last one was told
	idle    chan struct{} // closed when all is written; nil while nothing is
}

// entry is a record and who writes it.
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

// write is the writing goroutine. A handler may end it with runtime.Goexit:
// another one goes on then.
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

// next takes the oldest record, and how many were dropped since the last one.
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

// write asks the handler first whether it wants the record: Enabled is the
// application's code as well, and may be as slow.
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
