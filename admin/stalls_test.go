package admin

import (
	"bytes"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/go-cluster/cluster"
	"github.com/stretchr/testify/require"
)

// TestStallBook: what is kept is bounded, in number and in bytes, and a terminal is safe
// from what a worker wrote.
func TestStallBook(t *testing.T) {
	b := newStallBook()
	b.output(1, 0, "stderr", []byte("of nobody"))
	for i := range 20 {
		b.add(&keptStall{Stall: Stall{ID: i + 1}})
	}
	all := b.all()
	require.Len(t, all, maxStalls)
	require.EqualValues(t, 20, all[maxStalls-1].N)
	for range 40 {
		b.output(20, 0, "stderr", bytes.Repeat([]byte("\x1b[2J\n"), 10<<10))
	}
	b.output(20, 0, "stdout", []byte("no"))
	b.output(1, 0, "stderr", []byte("dropped"))
	k, ok := b.find("20")
	require.True(t, ok)
	require.Equal(t, "output", k.From)
	require.Len(t, k.stacks, stallStacks)
	b.died(20, cluster.Exit{Code: 2})
	_, ok = b.find("1")
	require.False(t, ok)
	s := &service{stalls: b}
	r := httptest.NewRequest("GET", "/stalls/20", nil)
	r.SetPathValue("n", "20")
	w := httptest.NewRecorder()
	s.stallOf(w, r)
	require.NotContains(t, w.Body.String(), "\x1b")
	require.Contains(t, w.Body.String(), "=== ended: exit status 2 after ")
	for i := range 6 {
		b.add(&keptStall{Stall: Stall{ID: 30 + i}, trace: make([]byte, stallTrace)})
	}
	require.LessOrEqual(t, len(b.all()), stallBytes/stallTrace)
	require.EqualValues(t, 26, b.all()[len(b.all())-1].N)
}

// TestFlight: a worker records while it is asked to, and says why where it cannot.
func TestFlight(t *testing.T) {
	var f flight
	defer f.stop()
	ask := func(serve http.HandlerFunc, method, path string) *httptest.ResponseRecorder {
		w := httptest.NewRecorder()
		serve(w, httptest.NewRequest(method, path, nil))
		return w
	}
	require.Equal(t, http.StatusNotFound, ask(f.tell, "GET", "/flight").Code)
	require.Equal(t, http.StatusBadRequest, ask(f.begin, "POST", "/flight?for=x").Code)
	for range 2 {
		require.Equal(t, http.StatusOK, ask(f.begin, "POST", "/flight?for=1h").Code)
	}
	require.True(t, strings.HasPrefix(ask(f.tell, "GET", "/flight").Body.String(), "go 1."))
	var another flight // as the program's own
	require.Equal(t, http.StatusConflict, ask(another.begin, "POST", "/flight?for=1m").Code)
	f.stop()
	require.Equal(t, http.StatusNotFound, ask(f.tell, "GET", "/flight").Code)
	require.Equal(t, http.StatusOK, ask(f.begin, "POST", "/flight?for=1ns").Code)
	require.Eventually(t, func() bool { return ask(f.tell, "GET", "/flight").Code == http.StatusNotFound }, time.Minute, time.Millisecond)
}
