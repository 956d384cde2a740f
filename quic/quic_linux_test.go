package quic_test

import (
	"bufio"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/go-cluster/cluster"
	"github.com/go-cluster/cluster/internal/clustertest"
	"github.com/go-cluster/cluster/quic"
	quicgo "github.com/quic-go/quic-go"
	"github.com/quic-go/quic-go/http3"
	"github.com/stretchr/testify/require"
)

func TestMain(m *testing.M) { clustertest.Main(m) }

// serverTLS is the configuration of a worker.
func serverTLS() *tls.Config {
	cert, err := tls.X509KeyPair([]byte(os.Getenv("CERT")), []byte(os.Getenv("KEY")))
	clustertest.Must(err)
	return &tls.Config{Certificates: []tls.Certificate{cert}, NextProtos: []string{"echo"}}
}

// patient has no limit that a loaded machine reaches.
var patient = &quicgo.Config{HandshakeIdleTimeout: clustertest.Patience, MaxIdleTimeout: 2 * clustertest.Patience}

// phase says whether this worker drains.
func phase() string {
	if cluster.Context().Err() != nil {
		return "drains"
	}
	return "serves"
}

// echoLines answers each line with it, the pid and the phase.
func echoLines(r io.Reader, w io.Writer, flush func()) {
	for lines := bufio.NewScanner(r); lines.Scan(); flush() {
		if _, err := fmt.Fprintln(w, lines.Text(), os.Getpid(), phase()); err != nil {
			return
		}
	}
}

// echo is a worker that echoes the streams of QUIC connections.
var echo = clustertest.Program("echo", serveEcho)

func serveEcho() {
	ln, err := quic.Listen(os.Getenv("ADDRESS"), serverTLS(), patient)
	clustertest.Must(err)
	for {
		conn, err := ln.Accept(context.Background())
		clustertest.Must(err)
		go func() {
			for {
				s, err := conn.AcceptStream(context.Background())
				if err != nil {
					return
				}
				go func() {
					defer s.Close()
					echoLines(s, s, func() {})
				}()
			}
		}()
	}
}

// web is one that echoes the bodies of HTTP/3 requests.
var web = clustertest.Program("web", func() {
	ln, err := quic.Listen(os.Getenv("ADDRESS"), http3.ConfigureTLSConfig(serverTLS()), patient)
	clustertest.Must(err)
	clustertest.Must(quic.Serve(ln, webServer()))
})

func webServer() *http3.Server {
	return &http3.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.WriteHeader(http.StatusOK)
		http.NewResponseController(w).Flush()
		echoLines(r.Body, w, func() { http.NewResponseController(w).Flush() })
	})}
}

// begin makes a cluster of n workers, and returns when all take connections.
func begin(t testing.TB, program string, n int) (addr *net.UDPAddr, client *tls.Config, ready <-chan *cluster.Process) {
	t.Helper()
	return beginWith(t, program, cluster.Options{Workers: n})
}

// beginWith is begin with options.
func beginWith(t testing.TB, program string, o cluster.Options) (addr *net.UDPAddr, client *tls.Config, ready <-chan *cluster.Process) {
	t.Helper()
	cert, key := clustertest.Certificate(t)
	o.ReadyFor, o.Env = -1, []string{"ADDRESS=127.0.0.1:0", "CERT=" + string(cert), "KEY=" + string(key)}
	clustertest.WithMaster(t, program, o)
	addrs, up := make(chan net.Addr, 100), make(chan *cluster.Process, 100)
	t.Cleanup(cluster.OnListening(func(_ *cluster.Process, addr net.Addr) { addrs <- addr }))
	t.Cleanup(cluster.OnReady(func(w *cluster.Process) { up <- w }))
	require.NoError(t, cluster.AutoFork())
	addr = clustertest.Await(t, addrs, "address").(*net.UDPAddr)
	for range o.Workers {
		clustertest.Await(t, up, "worker")
	}
	roots := x509.NewCertPool()
	require.True(t, roots.AppendCertsFromPEM(cert))
	return addr, &tls.Config{RootCAs: roots, NextProtos: []string{"echo"}}, up
}

// peer is a client's connection to an echo, and a stream of it.
type peer struct {
	*quicgo.Conn
	stream *quicgo.Stream
	lines  *bufio.Reader
}

// transport is a client's socket. Its connections have IDs, by which they can migrate.
func transport(t *testing.T) *quicgo.Transport {
	t.Helper()
	socket, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	require.NoError(t, err)
	tr := &quicgo.Transport{Conn: socket}
	t.Cleanup(func() {
		tr.Close()
		socket.Close()
	})
	return tr
}

func dial(t *testing.T, addr net.Addr, config *tls.Config) peer {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), clustertest.Patience)
	defer cancel()
	conn, err := transport(t).Dial(ctx, addr, config, patient)
	require.NoError(t, err)
	t.Cleanup(func() { conn.CloseWithError(0, "") })
	s, err := conn.OpenStreamSync(ctx)
	require.NoError(t, err)
	return peer{conn, s, bufio.NewReader(s)}
}

// ask returns the pid and the phase of the worker that answers.
func (p peer) ask(t *testing.T) (pid int, phase string) {
	t.Helper()
	require.NoError(t, p.stream.SetDeadline(time.Now().Add(clustertest.Patience)))
	pid, phase, err := exchange(p.stream, p.lines, "hello")
	require.NoError(t, err)
	return pid, phase
}

func exchange(w io.Writer, r *bufio.Reader, word string) (pid int, phase string, err error) {
	if _, err := fmt.Fprintln(w, word); err != nil {
		return 0, "", err
	}
	line, err := r.ReadString('\n')
	if err != nil {
		return 0, "", err
	}
	fields := strings.Fields(line)
	if len(fields) != 3 || fields[0] != word {
		return 0, "", fmt.Errorf("answer %q to %q", line, word)
	}
	pid, err = strconv.Atoi(fields[1])
	return pid, fields[2], err
}

// dialAll dials until every one of n workers has a connection.
func dialAll(t *testing.T, addr net.Addr, config *tls.Config, n int) map[int]peer {
	t.Helper()
	all := make(map[int]peer)
	for range 200 {
		p := dial(t, addr, config)
		pid, _ := p.ask(t)
		if _, has := all[pid]; has {
			p.CloseWithError(0, "")
			continue
		}
		if all[pid] = p; len(all) == n {
			return all
		}
	}
	require.Fail(t, "a worker takes no connection", "%d of %d do", len(all), n)
	return nil
}

// TestConnectionsFinishOverReload: what is connected stays with its worker, which drains,
// while new connections go to the new ones.
func TestConnectionsFinishOverReload(t *testing.T) {
	addr, config, ready := begin(t, echo, 2)
	old := dialAll(t, addr, config, 2)
	reloaded := make(chan error, 1)
	go func() { reloaded <- cluster.Reload(t.Context()) }()
	clustertest.Await(t, ready, "worker")
	// The first old worker drains now, and goes on until its client is gone.
	for draining := 0; draining < 2; {
		for pid, p := range old {
			got, phase := p.ask(t)
			require.Equal(t, pid, got)
			if phase == "drains" {
				if draining++; draining == 1 {
					fresh := dial(t, addr, config)
					got, phase := fresh.ask(t)
					require.NotEqual(t, pid, got)
					require.Equal(t, "serves", phase)
					fresh.CloseWithError(0, "")
				}
				p.CloseWithError(0, "")
				delete(old, pid)
			}
		}
	}
	require.NoError(t, clustertest.Await(t, reloaded, "reload"))
	fresh := dial(t, addr, config)
	_, phase := fresh.ask(t)
	require.Equal(t, "serves", phase)
}

// TestMigration: a client that goes on from another port finds its worker, before a drain
// and in it.
func TestMigration(t *testing.T) {
	addr, config, _ := begin(t, echo, 2)
	ctx, cancel := context.WithTimeout(t.Context(), clustertest.Patience)
	defer cancel()
	for pid, p := range dialAll(t, addr, config, 2) {
		for range 4 {
			tr := transport(t)
			path, err := p.AddPath(tr)
			require.NoError(t, err)
			require.NoError(t, path.Probe(ctx))
			require.NoError(t, path.Switch())
			got, _ := p.ask(t)
			require.Equal(t, pid, got)
			require.Equal(t, tr.Conn.LocalAddr().String(), p.LocalAddr().String())
		}
		p.CloseWithError(0, "") // before its last transport, or nobody is told
	}
}

// answered is a word that makes a packet which quic-go answers with a stateless reset: one of
// more than 42 bytes, since a shorter one may be a reset itself.
var answered = strings.Repeat("hello", 10)

// TestDeadWorker: clients of a worker that has died are told by the next one, and can
// connect again.
func TestDeadWorker(t *testing.T) {
	addr, config, ready := begin(t, echo, 2)
	all := dialAll(t, addr, config, 2)
	for pid, p := range all {
		require.NoError(t, syscall.Kill(pid, syscall.SIGKILL))
		clustertest.Await(t, ready, "worker")
		require.NoError(t, p.stream.SetDeadline(time.Now().Add(clustertest.Patience)))
		var err error
		for err == nil {
			_, _, err = exchange(p.stream, p.lines, answered)
		}
		var reset *quicgo.StatelessResetError
		require.ErrorAs(t, err, &reset)
		again := dial(t, addr, config)
		again.ask(t)
		again.CloseWithError(0, "")
		delete(all, pid)
		for other, p := range all {
			got, _ := p.ask(t)
			require.Equal(t, other, got, "whose worker lives")
		}
	}
}

// TestSessionsResume on any worker.
func TestSessionsResume(t *testing.T) {
	addr, config, _ := begin(t, echo, 2)
	config.ClientSessionCache = tls.NewLRUClientSessionCache(1)
	first := dial(t, addr, config)
	home, _ := first.ask(t)
	for away := false; !away; {
		p := dial(t, addr, config)
		pid, _ := p.ask(t)
		require.True(t, p.ConnectionState().TLS.DidResume)
		away = pid != home
		p.CloseWithError(0, "")
	}
}

// overReloads runs eight clients, each of which calls once again and again, while the
// cluster is reloaded n times, each time when all have been served anew.
func overReloads(t *testing.T, n int, once func(client int) error) {
	t.Helper()
	over(t, n, func() { require.NoError(t, cluster.Reload(t.Context())) }, once)
}

// over is overReloads for whatever happens to the cluster.
func over(t *testing.T, n int, happens func(), once func(client int) error) {
	t.Helper()
	const clients = 8
	var served atomic.Int64
	failed := make(chan error, clients)
	done := make(chan struct{})
	var wait sync.WaitGroup
	for client := range clients {
		wait.Go(func() {
			for {
				select {
				case <-done:
					return
				default:
				}
				if err := once(client); err != nil {
					failed <- err
					return
				}
				served.Add(1)
			}
		})
	}
	for range n {
		before := served.Load()
		happens()
		clustertest.Eventually(t, func() bool { return served.Load() >= before+clients || len(failed) > 0 }, "clients are served")
	}
	close(done)
	wait.Wait()
	close(failed)
	for err := range failed {
		t.Error(err)
	}
}

// talk says something twenty times, and counts the answers of a worker that drains. All
// come from one.
func talk(w io.Writer, r *bufio.Reader, drained *atomic.Int64) error {
	home := 0
	for i := range 20 {
		pid, phase, err := exchange(w, r, "hello")
		if err != nil {
			return fmt.Errorf("exchange %d: %w", i, err)
		}
		if home != 0 && pid != home {
			return errors.New("another worker answers")
		}
		home = pid
		if phase == "drains" {
			drained.Add(1)
		}
		time.Sleep(5 * time.Millisecond) // as somebody thinks
	}
	return nil
}

// dialAndTalk connects and talks on a stream.
func dialAndTalk(t *testing.T, addr *net.UDPAddr, config *tls.Config, drained *atomic.Int64) error {
	ctx, cancel := context.WithTimeout(t.Context(), clustertest.Patience)
	defer cancel()
	conn, err := quicgo.DialAddr(ctx, addr.String(), config, patient)
	if err != nil {
		return fmt.Errorf("dial: %w", err)
	}
	defer conn.CloseWithError(0, "")
	s, err := conn.OpenStreamSync(ctx)
	if err != nil {
		return fmt.Errorf("open: %w", err)
	}
	s.SetDeadline(time.Now().Add(clustertest.Patience))
	return talk(s, bufio.NewReader(s), drained)
}

// TestStreamsOverReloads: eight clients that connect, and talk on a stream, lose nothing
// over five reloads.
func TestStreamsOverReloads(t *testing.T) {
	addr, config, _ := begin(t, echo, 2)
	var drained atomic.Int64
	overReloads(t, 5, func(int) error { return dialAndTalk(t, addr, config, &drained) })
	require.Positive(t, drained.Load(), "no stream was open in a drain")
}

// TestRequestsOverReloads: nor do those of HTTP/3, which stay connected until GOAWAY.
func TestRequestsOverReloads(t *testing.T) {
	addr, config, _ := begin(t, web, 2)
	config.NextProtos = nil
	var transports [8]http3.Transport
	for i := range transports {
		transports[i].TLSClientConfig, transports[i].QUICConfig = config, patient
		defer transports[i].Close()
	}
	var drained atomic.Int64
	overReloads(t, 2, func(client int) error {
		ctx, cancel := context.WithTimeout(t.Context(), clustertest.Patience)
		defer cancel()
		return request(ctx, &transports[client], addr, &drained)
	})
	require.Positive(t, drained.Load(), "no request was open in a drain")
}

// request talks in one request.
func request(ctx context.Context, tr *http3.Transport, addr net.Addr, drained *atomic.Int64) error {
	var w *io.PipeWriter
	body := func() (io.ReadCloser, error) {
		if w != nil {
			w.Close()
		}
		r, mine := io.Pipe()
		w = mine
		return r, nil
	}
	defer func() { w.Close() }()
	for {
		r, _ := body()
		req, err := http.NewRequestWithContext(ctx, http.MethodPost, "https://"+addr.String(), r)
		if err != nil {
			return err
		}
		req.GetBody = body // a request that meets the GOAWAY is sent again, as browsers do
		answer, err := tr.RoundTrip(req)
		var end *http3.Error
		if errors.As(err, &end) && !end.Remote && end.ErrorCode == http3.ErrCodeNoError {
			// On the GOAWAY quic-go's client may close a connection on which it has just
			// begun a request, which the server has promised not to look at.
			continue
		}
		if err != nil {
			return fmt.Errorf("request: %w", err)
		}
		defer answer.Body.Close()
		lines := bufio.NewReader(answer.Body)
		if err := talk(w, lines, drained); err != nil {
			return err
		}
		w.Close()
		_, err = io.Copy(io.Discard, lines)
		return err
	}
}
