package drain

import (
	"bufio"
	"context"
	"io"
	"net"
	"net/http"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

// httpClient sends requests on one connection.
type httpClient struct {
	t    *testing.T
	conn net.Conn
	r    *bufio.Reader
}

func newHTTPClient(t *testing.T, c net.Conn) *httpClient {
	return &httpClient{t, c, bufio.NewReader(c)}
}

// get returns the answer's body, and whether it says Connection: close.
func (c *httpClient) get(path string) (body string, close bool) {
	c.t.Helper()
	_, err := c.conn.Write([]byte("GET " + path + " HTTP/1.1\r\nHost: x\r\n\r\n"))
	require.NoError(c.t, err)
	resp, err := http.ReadResponse(c.r, nil)
	require.NoError(c.t, err)
	b, err := io.ReadAll(resp.Body)
	require.NoError(c.t, err)
	return string(b), resp.Close
}

// serveHTTP serves src: a request for /slow takes ten seconds.
func serveHTTP(w *worker, src *source) (served <-chan error, ln *Listener) {
	ln = w.Listener(src, src.Addr(), net.KeepAliveConfig{Enable: true}, func() {})
	srv := &http.Server{Handler: http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		rw.(http.Flusher).Flush()
		if r.URL.Path == "/slow" {
			time.Sleep(10 * time.Second)
		}
		io.WriteString(rw, r.URL.Path)
	})}
	srv.RegisterOnShutdown(func() { w.note("shutdown") })
	return pending(func() error { return w.Serve(ln, srv) }), ln
}

// TestServeTellsToClose: a client whose answer began before the drain has not been
// told to close. It may send again, and is told then; the server is shut down when
// it cannot any more.
func TestServeTellsToClose(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorker()
		close(w.work)
		src := newSource()
		served, ln := serveHTTP(w, src)
		defer ln.Close()
		long, idle := newHTTPClient(t, src.connect()), newHTTPClient(t, src.connect())
		for _, c := range []*httpClient{long, idle} {
			body, close := c.get("/first")
			require.Equal(t, "/first", body)
			require.False(t, close)
		}
		go func() {
			time.Sleep(time.Second)
			w.Begin(ByMaster, time.Hour)
		}()
		body, close := long.get("/slow")
		require.Equal(t, "/slow", body)
		require.False(t, close)
		_, err := idle.r.ReadByte()
		require.ErrorIs(t, err, io.EOF)
		body, close = long.get("/again")
		require.Equal(t, "/again", body)
		require.True(t, close)
		_, err = long.r.ReadByte()
		require.ErrorIs(t, err, io.EOF)
		require.NoError(t, <-served)
		w.ended(t)
		require.Equal(t, 12*time.Second, time.Since(w.start).Truncate(time.Second), "ten, and two for main")
	})
}

// TestServeOwnError: what ends by itself is no drain, and the server is forgotten.
func TestServeOwnError(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorker()
		close(w.work)
		src := newSource()
		ln := w.Listener(src, src.Addr(), net.KeepAliveConfig{}, func() {})
		server := newEchoes(w)
		served := pending(func() error { return w.Serve(ln, server) })
		synctest.Wait()
		require.True(t, w.servers.any())
		server.Shutdown(context.Background())
		require.ErrorContains(t, <-served, "shut down")
		require.False(t, w.servers.any())
		require.NoError(t, ln.Close())
		synctest.Wait() // Accept has returned
		w.Begin(BySelf, time.Hour)
		w.ended(t)
		require.Zero(t, time.Since(w.start), "main needs no time")
	})
}
