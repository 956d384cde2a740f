package logqueue

import (
	"bytes"
	"context"
	"io"
	"log/slog"
	"runtime"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// never is closed by nobody: Flush waits for as long as the test does.
var never <-chan struct{}

func TestRecordsAreWrittenInOrder(t *testing.T) {
	var q Queue
	var out bytes.Buffer
	l := q.Logger(slog.New(slog.NewTextHandler(&out, nil))).With("a", 1).WithGroup("g")
	l.Info("one", "b", 2)
	l.Debug("not wanted")
	l.Warn("two")
	q.Flush(never)
	lines := strings.Split(strings.TrimSpace(out.String()), "\n")
	require.Len(t, lines, 2)
	require.Contains(t, lines[0], "msg=one a=1 g.b=2")
	require.Contains(t, lines[1], "msg=two")
}

// A log that nobody reads keeps nobody waiting; what is too much is dropped, and
// told when the log goes on.
func TestStalledLog(t *testing.T) {
	var q Queue
	r, w := io.Pipe()
	l := q.Logger(slog.New(slog.NewTextHandler(w, nil)))
	const more = 7
	l.Info("held")
	// The first is with the writer, which a second one tells: then the count is exact.
	first := make([]byte, 1)
	_, err := r.Read(first)
	require.NoError(t, err)
	for range limit + more {
		l.Info("line")
	}
	ended := make(chan struct{})
	close(ended)
	q.Flush(ended) // returns: done is closed
	var out bytes.Buffer
	go func() {
		q.Flush(never)
		w.Close()
	}()
	_, err = io.Copy(&out, r)
	require.NoError(t, err)
	require.Equal(t, limit, strings.Count(out.String(), "msg=line"))
	require.Contains(t, out.String(), "dropped=7")
}

// goexit is a handler that ends its goroutine, as t.FailNow does.
type goexit struct {
	slog.Handler
	ran chan struct{}
}

func (h goexit) Handle(context.Context, slog.Record) error {
	h.ran <- struct{}{}
	runtime.Goexit()
	return nil
}

func TestHandlerThatEndsItsGoroutine(t *testing.T) {
	var q Queue
	ran := make(chan struct{}, 2)
	l := q.Logger(slog.New(goexit{slog.NewTextHandler(io.Discard, nil), ran}))
	l.Info("one")
	l.Info("two")
	<-ran
	<-ran
	q.Flush(never)
}
