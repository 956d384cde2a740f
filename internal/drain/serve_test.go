package drain

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"testing"
	"testing/synctest"
	"time"

	"github.com/go-cluster/cluster/internal/roomtest"
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

// requireGets gets path, and requires the answer to say whether the connection ends.
func (c *httpClient) requireGets(path string, close bool) {
	c.t.Helper()
	body, closes := c.get(path)
	require.Equal(c.t, path, body)
	require.Equal(c.t, close, closes)
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
	return roomtest.Pending(func() error { return w.Serve(ln, srv) }), ln
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
			c.requireGets("/first", false)
		}
		go func() {
			time.Sleep(time.Second)
			w.Begin(ByMaster, time.Hour)
		}()
		long.requireGets("/slow", false)
		_, err := idle.r.ReadByte()
		require.ErrorIs(t, err, io.EOF)
		long.requireGets("/again", true)
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
		served := roomtest.Pending(func() error { return w.Serve(ln, server) })
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

// TestToldAtTheBeginning: the functions of RegisterOnShutdown are called once, when the
// drain begins and long before Shutdown, also those of a server that is embedded, and
// of one that enters later.
func TestToldAtTheBeginning(t *testing.T) {
	type embedding struct{ *http.Server }
	type byValue struct{ http.Server }
	for name, wrap := range map[string]func(h func(*http.Server)) Server{
		"the server": func(set func(*http.Server)) Server { h := new(http.Server); set(h); return h },
		"embedded":   func(set func(*http.Server)) Server { h := new(http.Server); set(h); return embedding{h} },
		"by value":   func(set func(*http.Server)) Server { v := new(byValue); set(&v.Server); return v },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorker()
				close(w.work)
				src := newSource()
				ln := w.Listener(src, src.Addr(), net.KeepAliveConfig{}, func() {})
				defer ln.Close()
				told := make(chan time.Duration, 10)
				over := make(chan struct{})
				srv := wrap(func(h *http.Server) {
					h.Handler = http.HandlerFunc(func(rw http.ResponseWriter, _ *http.Request) {
						rw.(http.Flusher).Flush()
						<-over // as a stream of events
					})
					h.RegisterOnShutdown(func() {
						told <- time.Since(w.start)
						close(over)
					})
				})
				served := roomtest.Pending(func() error { return w.Serve(ln, srv) })
				client := newHTTPClient(t, src.connect())
				go func() {
					time.Sleep(time.Second)
					w.Begin(ByMaster, time.Hour)
				}()
				client.get("/")
				require.Equal(t, time.Second, <-told)
				client.conn.Close()
				require.NoError(t, <-served)

				late := &http.Server{}
				late.RegisterOnShutdown(func() { told <- 0 })
				lateLn := w.Listener(newSource(), src.Addr(), net.KeepAliveConfig{}, func() {})
				lateServed := roomtest.Pending(func() error { return w.Serve(lateLn, late) })
				require.Zero(t, <-told)
				w.ended(t)
				lateLn.Close()
				require.NoError(t, <-lateServed)
				require.Empty(t, told)
			})
		})
	}
}

// TestDeadlines: the contexts of the hooks and of Shutdown have the ends of their times
// as deadlines, which a second order to stop makes earlier.
func TestDeadlines(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorker()
		close(w.work)
		_, ok := w.clock.rest.Deadline()
		require.False(t, ok, "there is no drain")
		w.OnShutdown.Add(func(ctx context.Context) error {
			at, ok := ctx.Deadline()
			require.True(t, ok)
			require.Equal(t, 29*time.Second, at.Sub(w.start))
			w.Begin(ByMaster, 8*time.Second)
			at, ok = ctx.Deadline()
			require.True(t, ok)
			require.Equal(t, 7*time.Second, at.Sub(w.start))
			at, ok = w.clock.work.Deadline()
			require.True(t, ok)
			require.Equal(t, 6*time.Second, at.Sub(w.start))
			child, cancel := context.WithTimeout(ctx, time.Hour)
			defer cancel()
			<-child.Done()
			require.Equal(t, 7*time.Second, time.Since(w.start))
			return nil
		})
		w.Begin(ByMaster, 30*time.Second)
		w.ended(t)
	})
}

// TestStopping: it is closed by a notice, while everything goes on, or with the drain.
func TestStopping(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorker()
		close(w.work)
		w.Notice()
		w.Notice()
		<-w.Stopping()
		require.NoError(t, w.Context().Err())
		require.NoError(t, w.Hold(t.Context()))
		w.Begin(ByMaster, time.Hour)
		w.ended(t)
		other := newWorker()
		close(other.work)
		other.Begin(ByMaster, time.Hour)
		<-other.Stopping()
		other.ended(t)
	})
}

// TestAtOnce: such a function is called when nothing new is taken any more, whatever is
// in flight, and at once in a drain.
func TestAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorker()
		src := newSource()
		ln := w.Listener(src, src.Addr(), net.KeepAliveConfig{}, func() {})
		defer ln.Close()
		accepted := make(chan net.Conn, 1)
		go func() { c, _ := ln.Accept(); accepted <- c }()
		defer src.connect().Close()
		c := <-accepted
		begun := make(chan time.Duration, 2)
		w.AtOnce(func() { begun <- time.Since(w.start) })
		w.Begin(ByMaster, time.Hour)
		require.Zero(t, <-begun)
		w.AtOnce(func() { begun <- time.Since(w.start) })
		require.Zero(t, <-begun)
		c.Close()
		close(w.work)
		w.ended(t)
	})
}

// simple serves HTTP/1 as servers do that never say that a connection ends: it answers
// /slow in two parts, with ten seconds between them.
func simple(ln net.Listener) error {
	for {
		c, err := ln.Accept()
		if err != nil {
			return err
		}
		go func() {
			defer c.Close()
			r := bufio.NewReader(c)
			for {
				req, err := http.ReadRequest(r)
				if err != nil {
					return
				}
				body := req.URL.Path
				head := fmt.Sprintf("HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n", len(body))
				if body == "/slow" {
					io.WriteString(c, head)
					time.Sleep(10 * time.Second)
					head = ""
				}
				if _, err := io.WriteString(c, head+body); err != nil {
					return
				}
			}
		}()
	}
}

// TestServeFunc: clients of a server that never tells them to close are told, idle
// connections are closed, and shutdown comes when nobody is left. A client whose answer
// began before the drain is waited for.
func TestServeFunc(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorker()
		close(w.work)
		src := newSource()
		ln := w.Listener(src, src.Addr(), net.KeepAliveConfig{}, func() {})
		shut := make(chan time.Duration, 1)
		served := roomtest.Pending(func() error {
			return w.ServeFunc(ln, simple, func(context.Context) error {
				shut <- time.Since(w.start)
				return ln.Close()
			})
		})
		long, idle, fresh := newHTTPClient(t, src.connect()), newHTTPClient(t, src.connect()), newHTTPClient(t, src.connect())
		for _, c := range []*httpClient{long, idle} {
			c.requireGets("/first", false)
		}
		go func() {
			time.Sleep(time.Second)
			w.Begin(ByMaster, time.Hour)
		}()
		long.requireGets("/slow", false) // it had begun
		for _, c := range []*httpClient{idle, fresh} {
			_, err := c.r.ReadByte()
			require.ErrorIs(t, err, io.EOF)
		}
		long.requireGets("/again", true)
		long.conn.Close()
		require.NoError(t, <-served)
		w.ended(t)
		require.Equal(t, 10*time.Second, (<-shut).Truncate(time.Second))
	})
}

// TestGoodbyeInParts: what a server writes is counted as it wrote it, and an answer that
// says how it ends is left alone.
func TestGoodbyeInParts(t *testing.T) {
	for _, kind := range connKinds {
		t.Run(kind, func(t *testing.T) {
			w := newWorker()
			close(w.work)
			src := listen(t, kind)
			ln := w.Listener(src, src.Addr(), net.KeepAliveConfig{}, func() {})
			ln.tells.Store(true)
			client, err := net.Dial(src.Addr().Network(), src.Addr().String())
			require.NoError(t, err)
			defer client.Close()
			server, err := ln.Accept()
			require.NoError(t, err)
			w.draining.Store(true)
			ask := func(answer string) string {
				_, err := client.Write([]byte("GET"))
				require.NoError(t, err)
				require.NoError(t, readByte(server)())
				n, err := server.Write([]byte(answer))
				require.NoError(t, err)
				require.Equal(t, len(answer), n)
				b := make([]byte, 1000)
				n, err = client.Read(b)
				require.NoError(t, err)
				for n < len(answer) {
					more, err := client.Read(b[n:])
					require.NoError(t, err)
					n += more
				}
				return string(b[:n])
			}
			for answer, want := range map[string]string{
				"HTTP/1.1 200 OK\r\n\r\n":                        "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n",
				"HTTP/1.1 200 OK\r\nConnection: upgrade\r\n\r\n": "HTTP/1.1 200 OK\r\nConnection: upgrade\r\n\r\n",
				"+OK\r\n": "+OK\r\n",
			} {
				require.Equal(t, want, ask(answer))
			}
			server.Close()
			ln.Close()
		})
	}
}

// TestServeFuncWrapped: a listener that wraps this package's tells its clients too.
func TestServeFuncWrapped(t *testing.T) {
	type limited struct {
		net.Listener
		limit int
	}
	synctest.Test(t, func(t *testing.T) {
		w := newWorker()
		close(w.work)
		src := newSource()
		ln := w.Listener(src, src.Addr(), net.KeepAliveConfig{}, func() {})
		served := roomtest.Pending(func() error {
			return w.ServeFunc(&limited{limited{ln, 1}, 2}, simple, func(context.Context) error { return ln.Close() })
		})
		client := newHTTPClient(t, src.connect())
		_, close := client.get("/first")
		require.False(t, close)
		w.Begin(ByMaster, time.Hour)
		_, close = client.get("/second")
		require.True(t, close)
		client.conn.Close()
		require.NoError(t, <-served)
		w.ended(t)
	})
	require.Nil(t, listenerOf(nil))
	require.Nil(t, listenerOf(limited{}))
	plain, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer plain.Close()
	require.Nil(t, listenerOf(limited{plain, 1}))
}
