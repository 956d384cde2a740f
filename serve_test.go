package cluster_test

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/go-cluster/cluster"
	"github.com/go-cluster/cluster/internal/clustertest"
	"github.com/stretchr/testify/require"
)

// The settings of the program web.
const (
	modeEnv     = "CLUSTER_TEST_MODE"     // how it serves: see webModes
	addressEnv  = "CLUSTER_TEST_ADDRESS"  // where: on a free port unless it is set
	timeoutEnv  = "CLUSTER_TEST_TIMEOUT"  // Options.ShutdownTimeout
	afterEnv    = "CLUSTER_TEST_AFTER"    // "hang": main does not return after Serve
	fullBody    = 64 << 10                // bytes that a slow request is answered with
	slowFor     = 300 * time.Millisecond  // how long it goes on after the drain has begun
	streamPause = 1300 * time.Millisecond // longer than the drain keeps an idle connection
)

// webModes are the ways to serve HTTP.
var webModes = []string{"naive", "serve", "listenAndServe"}

// web serves HTTP in a worker; as a master it runs two of them. It prints what
// happens. SIGUSR1 makes the master call Disconnect.
var web = clustertest.Program("web", func() {
	if cluster.IsMaster() {
		setupWebMaster()
	} else {
		said := make(chan struct{})
		go func() {
			<-cluster.Context().Done()
			fmt.Println("draining", os.Getpid())
			close(said)
		}()
		cluster.OnShutdown(func(context.Context) error { // one with nothing to do ends at once
			<-said
			return nil
		})
	}
	mode := os.Getenv(modeEnv)
	if cluster.IsMaster() && (mode == "naive" || strings.HasPrefix(mode, "tls")) {
		clustertest.Must(cluster.Run(context.Background()))
		return
	}
	err := serveWeb(mode)
	fmt.Println("served", os.Getpid(), err)
	clustertest.Must(err)
	if os.Getenv(afterEnv) == "hang" && cluster.IsWorker() {
		select {}
	}
})

func serveWeb(mode string) error {
	address := cmp.Or(os.Getenv(addressEnv), "127.0.0.1:0")
	if mode == "listenAndServe" {
		return cluster.ListenAndServe(address, webHandler())
	}
	ln, err := cluster.Listen("tcp", address)
	if err != nil {
		return err
	}
	switch mode {
	case "naive":
		log.Fatal(http.Serve(ln, webHandler()))
	case "serve":
		return cluster.Serve(ln, &http.Server{Handler: webHandler()})
	case "tls":
		return cluster.Serve(tls.NewListener(ln, serverTLS()), &http.Server{Handler: webHandler()})
	case "tlsNaive":
		log.Fatal(http.Serve(tls.NewListener(ln, serverTLS()), webHandler()))
	case "tlsHTTP2":
		config := serverTLS()
		config.NextProtos = []string{"h2", "http/1.1"}
		return cluster.Serve(tls.NewListener(ln, config), &http.Server{Handler: webHandler(), TLSConfig: config})
	}
	return errors.New("no mode " + mode)
}

// serverTLS has the certificate of package httptest.
func serverTLS() *tls.Config {
	s := httptest.NewUnstartedServer(nil)
	s.StartTLS()
	defer s.Close()
	return &tls.Config{Certificates: s.TLS.Certificates}
}

func setupWebMaster() {
	timeout, _ := time.ParseDuration(os.Getenv(timeoutEnv))
	clustertest.Must(cluster.SetupMaster(cluster.Options{Workers: 2, ShutdownTimeout: timeout, Scheduling: cluster.Scheduling(clustertest.Atoi(os.Getenv(clustertest.SchedulingEnv)))}))
	cluster.OnListening(func(w *cluster.Process, addr net.Addr) { fmt.Println("listening", addr) })
	cluster.OnDeath(func(w *cluster.Process, e cluster.Exit) {
		fmt.Println("death", w.PID(), e.Code, e.Signal, e.Voluntary)
	})
	order := make(chan os.Signal, 1)
	clustertest.Notify(order)
	go func() {
		<-order
		err := cluster.Disconnect(context.Background())
		fmt.Println("disconnected", err)
		clustertest.StopSelf()
	}()
	// Run goes on in the background, so that no signal comes before it handles
	// them; what main calls joins it.
	forked := make(chan bool, 100)
	cluster.OnFork(func(*cluster.Process) { forked <- true })
	go cluster.Run(context.Background())
	<-forked
}

func webHandler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		n, err := io.Copy(io.Discard, r.Body)
		fmt.Fprintf(w, "%d bytes, error %v", n, err)
	})
	// It is answered some time after the drain has begun.
	mux.HandleFunc("/slow", func(w http.ResponseWriter, r *http.Request) {
		fmt.Println("begun", os.Getpid())
		<-cluster.Context().Done()
		time.Sleep(slowFor)
		w.Write(make([]byte, fullBody))
	})
	// Its answer has begun before the drain, and goes on for long, with pauses.
	mux.HandleFunc("/stream", func(w http.ResponseWriter, r *http.Request) {
		rc := http.NewResponseController(w)
		w.Write(make([]byte, fullBody/2))
		rc.Flush()
		fmt.Println("begun", os.Getpid())
		<-cluster.Context().Done()
		for range 2 {
			select {
			case <-time.After(streamPause):
			case <-r.Context().Done():
				fmt.Println("cancelled", os.Getpid())
			}
			w.Write(make([]byte, fullBody/4))
			rc.Flush()
		}
	})
	mux.HandleFunc("/hang", func(w http.ResponseWriter, r *http.Request) {
		fmt.Println("begun", os.Getpid())
		select {}
	})
	mux.HandleFunc("/leave", func(w http.ResponseWriter, r *http.Request) {
		go cluster.Worker.Disconnect(context.Background())
		<-cluster.Context().Done()
		fmt.Fprint(w, "leaving")
	})
	return mux
}

// startWeb starts the program web and returns its address, once both workers
// listen.
func startWeb(t *testing.T, mode string, env ...string) (p *clustertest.Proc, addr string) {
	t.Helper()
	addr = clustertest.UnusedAddress(t, "tcp", "") // nobody else gets it at the end
	p = clustertest.Start(t, web, append(env, modeEnv+"="+mode, addressEnv+"="+addr)...)
	require.Equal(t, addr, p.Expect("listening"))
	require.Equal(t, addr, p.Expect("listening"))
	return p, addr
}

// fetched is the end of a request.
type fetched struct {
	body string
	err  error
}

// fetch gets url n times at once, each on a connection of its own.
func fetch(n int, url string) <-chan fetched {
	done := make(chan fetched, n)
	for range n {
		go func() {
			body, err := clustertest.Get(url)
			done <- fetched{body, err}
		}()
	}
	return done
}

// stops are the ways in which a whole cluster is asked to stop.
var stops = map[string]func(p *clustertest.Proc){
	"SIGTERM":    func(p *clustertest.Proc) { p.Signal(syscall.SIGTERM) },
	"SIGINT":     func(p *clustertest.Proc) { p.CtrlC() }, // Ctrl-C
	"Disconnect": func(p *clustertest.Proc) { p.Signal(clustertest.SigPoke) },
}

// However the server is written and however the cluster is stopped, a request in
// flight gets its whole answer, and the exit status is 0.
func TestServeSlowRequests(t *testing.T) {
	t.Parallel()
	for _, mode := range webModes {
		for name, stop := range stops {
			t.Run(mode+" "+name, func(t *testing.T) {
				t.Parallel()
				p, addr := startWeb(t, mode)
				const n = 4
				slow := fetch(n, "http://"+addr+"/slow")
				for range n {
					p.Expect("begun")
				}
				stop(p)
				for range n {
					f := clustertest.Await(t, slow, "answer")
					require.NoError(t, f.err)
					require.Len(t, f.body, fullBody)
				}
				for range 2 {
					require.True(t, strings.HasSuffix(p.Expect("death"), " 0 <nil> true"))
				}
				require.Equal(t, 0, p.Exit())
				p.GroupEmpty()
				_, err := net.Dial("tcp", addr)
				require.ErrorIs(t, err, clustertest.ErrRefused)
			})
		}
	}
}

// When the master is killed its workers finish what is in flight and exit, and
// the address is free.
func TestServeMasterKilled(t *testing.T) {
	t.Parallel()
	for _, mode := range webModes {
		t.Run(mode, func(t *testing.T) {
			t.Parallel()
			p, addr := startWeb(t, mode)
			slow := fetch(2, "http://"+addr+"/slow")
			p.Expect("begun")
			p.Expect("begun")
			p.Signal(syscall.SIGKILL)
			for range 2 {
				f := clustertest.Await(t, slow, "answer")
				require.NoError(t, f.err)
				require.Len(t, f.body, fullBody)
			}
			p.GroupEmpty()
			ln, err := net.Listen("tcp", addr)
			require.NoError(t, err)
			ln.Close()
		})
	}
}

// A worker that leaves by itself finishes first; its exit is voluntary and it is
// not replaced.
func TestServeWorkerDisconnect(t *testing.T) {
	t.Parallel()
	for _, mode := range webModes {
		t.Run(mode, func(t *testing.T) {
			t.Parallel()
			p, addr := startWeb(t, mode)
			for range 2 {
				body, err := clustertest.Get("http://" + addr + "/leave")
				require.NoError(t, err)
				require.Equal(t, "leaving", body)
				require.True(t, strings.HasSuffix(p.Expect("death"), " 0 <nil> true"))
			}
			// The address stays, but nobody is left who could answer.
			c, err := net.Dial("tcp", addr)
			require.NoError(t, err)
			c.Close()
			p.Signal(syscall.SIGTERM)
			require.Equal(t, 0, p.Exit())
			require.Equal(t, 2, strings.Count(p.Output(), "listening"))
		})
	}
}

// Handlers that never return do not keep a drain from ending within
// ShutdownTimeout, and it still ends with 0.
func TestServeHangingHandlers(t *testing.T) {
	t.Parallel()
	for _, mode := range webModes {
		t.Run(mode, func(t *testing.T) {
			t.Parallel()
			p, addr := startWeb(t, mode, timeoutEnv+"=2s", afterEnv+"=hang")
			hanging := fetch(2, "http://"+addr+"/hang")
			p.Expect("begun")
			p.Expect("begun")
			begin := time.Now()
			p.Signal(syscall.SIGTERM)
			for range 2 {
				require.True(t, strings.HasSuffix(p.Expect("death"), " 0 <nil> true"))
			}
			require.Equal(t, 0, p.Exit())
			require.Less(t, time.Since(begin), 12*time.Second)
			for range 2 {
				require.Error(t, clustertest.Await(t, hanging, "end of the connection").err)
			}
		})
	}
}

// A streaming answer is not taken for an idle connection while it pauses, over
// plain connections and TLS, HTTP/1 and HTTP/2.
func TestServeStreaming(t *testing.T) {
	t.Parallel()
	for _, mode := range []string{"naive", "serve", "tls", "tlsNaive", "tlsHTTP2"} {
		t.Run(mode, func(t *testing.T) {
			t.Parallel()
			p, addr := startWeb(t, mode)
			tr := &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, ForceAttemptHTTP2: mode == "tlsHTTP2"}
			defer tr.CloseIdleConnections()
			scheme := "http://"
			if strings.HasPrefix(mode, "tls") {
				scheme = "https://"
			}
			resp, err := (&http.Client{Transport: tr, Timeout: clustertest.Patience}).Get(scheme + addr + "/stream")
			require.NoError(t, err)
			defer resp.Body.Close()
			if mode == "tlsHTTP2" {
				require.Equal(t, 2, resp.ProtoMajor)
			}
			p.Expect("begun")
			p.Signal(syscall.SIGTERM)
			body, err := io.ReadAll(resp.Body)
			require.NoError(t, err)
			require.Len(t, body, fullBody)
			require.Equal(t, 0, p.Exit())
			require.NotContains(t, p.Output(), "cancelled")
		})
	}
}

// Serve returns nil after a drain, main may go on, and the process ends by itself
// if main does not: after Worker.Disconnect too.
func TestServeReturns(t *testing.T) {
	t.Parallel()
	for _, after := range []string{"", "hang"} {
		for _, mode := range []string{"serve", "listenAndServe"} {
			if after == "hang" && mode != "serve" {
				continue // the same code, and two seconds each
			}
			t.Run(mode+" "+after, func(t *testing.T) {
				t.Parallel()
				p, addr := startWeb(t, mode, afterEnv+"="+after)
				_, err := clustertest.Get("http://" + addr + "/leave")
				require.NoError(t, err)
				require.True(t, strings.HasSuffix(p.Expect("served"), "<nil>"))
				require.True(t, strings.HasSuffix(p.Expect("death"), " 0 <nil> true"))
				p.Signal(syscall.SIGTERM)
				require.True(t, strings.HasSuffix(p.Expect("served"), "<nil>"))
				require.True(t, strings.HasSuffix(p.Expect("death"), " 0 <nil> true"))
				require.Equal(t, strconv.Itoa(p.Cmd.Process.Pid)+" <nil>", p.Expect("served"), "in the master Serve is Run")
				require.Equal(t, 0, p.Exit())
			})
		}
	}
}

// client speaks HTTP on one connection, and does nothing that the caller does
// not see: no retry, no pool.
type client struct {
	c  net.Conn
	br *bufio.Reader
}

func dialHTTP(addr string) (*client, error) {
	c, err := net.DialTimeout("tcp", addr, clustertest.Patience)
	if err != nil {
		return nil, err
	}
	return &client{c, bufio.NewReader(c)}, nil
}

// do sends one request; close reports whether the server wants no more on this
// connection.
func (c *client) do(method, path string, body []byte) (answer string, close bool, err error) {
	c.c.SetDeadline(time.Now().Add(clustertest.Patience))
	req, err := http.NewRequest(method, "http://"+c.c.RemoteAddr().String()+path, bytes.NewReader(body))
	if err != nil {
		return "", false, err
	}
	if err := req.Write(c.c); err != nil {
		return "", false, fmt.Errorf("write: %w", err)
	}
	resp, err := http.ReadResponse(c.br, req)
	if err != nil {
		return "", false, fmt.Errorf("read: %w", err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	return string(b), resp.Close, err
}

// Busy keep-alive clients lose no request while workers drain and are replaced,
// again and again: each one that was sent is answered, with no retry.
func TestServeLosesNoRequest(t *testing.T) {
	if clustertest.Apart(t) {
		return
	}
	for _, mode := range []string{"serve", "listenAndServe"} {
		for _, scheduling := range []cluster.Scheduling{cluster.Shared, cluster.RoundRobin} {
			t.Run(mode+" "+scheduling.String(), func(t *testing.T) {
				clustertest.WithMaster(t, web, cluster.Options{Workers: 2, Scheduling: scheduling, Env: []string{modeEnv + "=" + mode}, Output: muted})
				listening := make(chan string, 100)
				t.Cleanup(cluster.OnListening(func(_ *cluster.Process, addr net.Addr) { listening <- addr.String() }))
				require.NoError(t, cluster.AutoFork())
				addr := clustertest.Await(t, listening, "listening event")
				clustertest.Await(t, listening, "listening event")

				stop := make(chan struct{})
				var clients sync.WaitGroup
				for i := range 8 {
					pause := []time.Duration{0, 0, 0, time.Millisecond, 10 * time.Millisecond, 50 * time.Millisecond, 200 * time.Millisecond, 400 * time.Millisecond}[i]
					clients.Go(func() { keepBusy(t, addr, pause, stop) })
				}
				dead := make(chan cluster.Exit, 100)
				t.Cleanup(cluster.OnDeath(func(_ *cluster.Process, e cluster.Exit) { dead <- e }))
				for range 3 {
					if !clustertest.System.Term {
						require.NoError(t, cluster.Reload(clustertest.Within(t, clustertest.Patience)))
						for range 2 {
							require.Equal(t, 0, clustertest.Await(t, dead, "death").Code)
							clustertest.Await(t, listening, "listening event of the next worker")
						}
						continue
					}
					for _, w := range cluster.Workers() {
						if w.State() != cluster.Ready {
							continue
						}
						clustertest.Kill(t, w.PID(), syscall.SIGTERM)
						require.Equal(t, 0, clustertest.Await(t, dead, "death").Code)
						clustertest.Await(t, listening, "listening event of the next worker")
					}
				}
				close(stop)
				clients.Wait()
			})
		}
	}
}

func muted(*cluster.Process) (io.Writer, io.Writer) { return io.Discard, io.Discard }

// keepBusy sends requests on one connection, and on another when the server
// closes it and says so.
func keepBusy(t *testing.T, addr string, pause time.Duration, stop <-chan struct{}) {
	post := make([]byte, 16<<10)
	var c *client
	for i := 0; ; i++ {
		select {
		case <-stop:
			if c != nil {
				c.c.Close()
			}
			return
		case <-time.After(pause):
		}
		if c == nil {
			var err error
			if c, err = dialHTTP(addr); err != nil {
				t.Errorf("client with pause %v: dial %d: %v", pause, i, err)
				return
			}
		}
		want, method, body := "0 bytes, error <nil>", "GET", []byte(nil)
		if i%2 == 1 {
			want, method, body = fmt.Sprintf("%d bytes, error <nil>", len(post)), "POST", post
		}
		answer, close, err := c.do(method, "/", body)
		if err != nil || answer != want {
			t.Errorf("client with pause %v: request %d: %q, %v", pause, i, answer, err)
			return
		}
		if close {
			c.c.Close()
			c = nil
		}
	}
}
