package admin

import (
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/stretchr/testify/require"
)

// TestHosts: an address is asked by names only that no stranger can make lead here.
func TestHosts(t *testing.T) {
	g := newGuard(Options{Hosts: []string{"Admin.Example.com"}})
	for host, want := range map[string]bool{
		"127.0.0.1": true, "127.0.0.1:80": true, "[::1]:80": true, "[::1]": true, "::1": true, "localhost:80": true, "web-1": true, "web-1:80": true,
		"admin.example.com": true, "ADMIN.example.com.:8": true,
		"evil.example": false, "evil.example:80": false, "127.0.0.1.evil.example": false, "": false, ":80": false, "localhost.evil.example": false,
	} {
		require.Equal(t, want, g.hostAllowed(host), host)
	}
}

// TestHandler: mounted in another server it asks as Address does; before Start it has
// nothing to say.
func TestHandler(t *testing.T) {
	ask := func(r *http.Request) int {
		w := httptest.NewRecorder()
		Handler().ServeHTTP(w, r)
		return w.Code
	}
	require.Equal(t, http.StatusServiceUnavailable, ask(httptest.NewRequest("GET", "http://localhost/stats", nil)))
	stop, err := Start(Options{Socket: "-", Token: "secret"})
	require.NoError(t, err)
	defer stop()
	require.Equal(t, http.StatusOK, ask(httptest.NewRequest("GET", "http://localhost/stats", nil)))
	require.Equal(t, http.StatusMisdirectedRequest, ask(httptest.NewRequest("GET", "http://evil.example/stats", nil)))
	r := httptest.NewRequest("POST", "http://localhost/reload", nil)
	r.Header.Set("X-Cluster", "1")
	require.Equal(t, http.StatusUnauthorized, ask(r))
	r.Header.Set("Authorization", "Bearer secret")
	require.Equal(t, http.StatusConflict, ask(r), "there are no workers")
	r.Header.Set("Origin", "null")
	require.Equal(t, http.StatusForbidden, ask(r))
	r.Header.Set("Origin", "http://localhost")
	require.Equal(t, http.StatusConflict, ask(r))

	for given, want := range map[string]bool{
		"bearer secret": true, "BEARER secret": true, "Basic eDpzZWNyZXQ=": true, // x:secret
		"": false, "Bearer": false, "Bearer ": false, "Bearer secre": false, "Bearer  secret": false, "secret": false, "Basic secret": false, "Token secret": false,
	} {
		r.Header.Set("Authorization", given)
		require.Equal(t, want, newGuard(Options{Token: "secret"}).trusted(r), given)
	}

	// Without a token nobody is trusted, whatever he gives.
	g := newGuard(Options{})
	r = httptest.NewRequest("POST", "http://localhost/reload", nil)
	require.False(t, g.trusted(r))
	r.SetBasicAuth("", "")
	require.False(t, g.trusted(r))
}

// TestJournal: the last events are kept, and whoever comes back gets what he missed,
// or all of it if the number is none of ours.
func TestJournal(t *testing.T) {
	j := newJournal()
	_, more := j.after(0)
	j.add(Event{Event: "scale", Text: "a\x1b[2J\u009b\nb"})
	<-more
	list, _ := j.after(0)
	require.Equal(t, `a\x1b[2J\u009b\nb`, list[0].Text)
	for range kept + 10 {
		j.add(Event{Event: "scale"})
	}
	list, _ = j.after(0)
	require.Len(t, list, kept)
	require.EqualValues(t, kept+11, list[kept-1].N)
	list, _ = j.after(kept + 9)
	require.Len(t, list, 2)
	list, more = j.after(kept + 11)
	require.Empty(t, list)
	select {
	case <-more:
		t.Fatal("nothing is new")
	default:
	}
	for _, odd := range []int64{-1, kept + 12, 1 << 60} {
		list, _ = j.after(odd)
		require.Len(t, list, kept)
	}
}
