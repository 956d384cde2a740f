//go:build unix

package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/rpc"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	coder "github.com/coder/websocket"
	"github.com/go-cluster/cluster/internal/clustertest"
	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/reflection/grpc_reflection_v1"
	"google.golang.org/grpc/status"
)

// bin is the program of this module.
var bin string

func TestMain(m *testing.M) { os.Exit(buildAndRun(m)) }

func buildAndRun(m *testing.M) int {
	dir, err := os.MkdirTemp("", "cluster-frameworks")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	bin = filepath.Join(dir, "frameworks")
	if out, err := exec.Command("go", "build", "-o", bin, ".").CombinedOutput(); err != nil {
		fmt.Fprintf(os.Stderr, "go build: %v\n%s", err, out)
		return 1
	}
	return m.Run()
}

// patience bounds every wait; it measures nothing.
const patience = time.Minute

// session is a connection of a client.
type session interface {
	// do sends one request and reads its answer. again says whether the connection
	// may be used for another.
	do() (again bool, err error)
	Close() error
}

// row is how a hello is used.
type row struct {
	dial func(addr string) (session, error)
	// retries says that the protocol has no word for the end of a connection, so that
	// a client tries again on a new one when an old one is closed without an answer.
	retries bool
}

var get = row{dial: dialHTTP("GET / HTTP/1.1\r\nHost: x\r\n\r\n", "hello")}

var rows = map[string]row{
	"net/http": get, "gin": get, "chi": get, "echo": get, "echo v5": get, "fiber": get, "fiber v3": get,
	"fasthttp": get, "hertz": get, "proxy": get, "fx": get, "errgroup": get, "cobra": get,
	"fiber tls": {dial: dialTLS(get.dial)},
	"connect":   {dial: dialHTTP("POST /hello.v1.Hello/Say HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 3\r\n\r\n\"x\"", `"hello x"`)},
	"grpc":      {dial: dialGRPC}, "sse": {dial: dialSSE},
	"coder websocket": {dial: dialWebsocket}, "gorilla websocket": {dial: dialWebsocket},
	"net/rpc": {dial: dialRPC, retries: true}, "redcon": {dial: dialRedis, retries: true},
}

// TestFrameworks: each hello is started, loaded, reloaded five times and stopped, and no
// request is lost.
func TestFrameworks(t *testing.T) {
	backend := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, "hello") }))
	t.Cleanup(backend.Close)
	require.Len(t, rows, len(hellos))
	makeCertificate(t)
	for name, r := range rows {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := start(t, name, backend.URL)
			l := &load{row: r, addr: p.addr}
			var clients sync.WaitGroup
			for range 4 {
				clients.Go(l.run)
			}
			for range 5 {
				before := l.requests.Load()
				require.NoError(t, p.cmd.Process.Signal(syscall.SIGHUP))
				require.Regexp(t, `^reloaded 2 \S+ <nil>$`, p.expect("reloaded"))
				require.Eventually(t, func() bool { return l.requests.Load() > before+10 }, patience, time.Millisecond)
			}
			l.stopping.Store(true)
			require.NoError(t, p.cmd.Process.Signal(syscall.SIGTERM))
			clients.Wait()
			<-p.exited
			require.True(t, p.cmd.ProcessState.Success(), "%v", p.cmd.ProcessState)
			l.mu.Lock()
			defer l.mu.Unlock()
			require.Empty(t, l.lost, "of %d requests", l.requests.Load())
			t.Logf("%d requests, none lost, %d sent again", l.requests.Load(), l.retried.Load())
		})
	}
}

// program is a hello that runs.
type program struct {
	t      *testing.T
	addr   string
	cmd    *exec.Cmd
	lines  chan string
	exited chan struct{}
}

func start(t *testing.T, name, backend string) *program {
	manager := clustertest.NewManager(t)
	p := &program{t: t, addr: clustertest.UnusedAddress(t, "tcp", ""), lines: make(chan string, 1000), exited: make(chan struct{})}
	p.cmd = exec.Command(bin, name)
	p.cmd.Env = append(os.Environ(), "GOMAXPROCS=2", "ADDR="+p.addr, "BACKEND="+backend, manager.Env)
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	r, w, err := os.Pipe()
	require.NoError(t, err)
	var log bytes.Buffer
	p.cmd.Stdout, p.cmd.Stderr = w, w
	require.NoError(t, p.cmd.Start())
	w.Close()
	read := make(chan struct{})
	go func() {
		defer close(read)
		defer r.Close()
		for s := bufio.NewScanner(r); s.Scan(); {
			fmt.Fprintln(&log, s.Text())
			p.lines <- s.Text()
		}
	}()
	go func() {
		defer close(p.exited)
		p.cmd.Wait()
	}()
	t.Cleanup(func() {
		syscall.Kill(-p.cmd.Process.Pid, syscall.SIGKILL)
		<-p.exited
		<-read
		if t.Failed() {
			t.Logf("output of %s:\n%s", name, log.String())
		}
	})
	p.expect("listening")
	p.expect("listening")
	manager.InRun()
	return p
}

// expect waits for a line that begins so.
func (p *program) expect(prefix string) string {
	p.t.Helper()
	for timeout := time.After(patience); ; {
		select {
		case line := <-p.lines:
			if strings.HasPrefix(line, prefix) {
				return line
			}
		case <-p.exited:
			p.t.Fatalf("it has ended, before %q", prefix)
		case <-timeout:
			p.t.Fatalf("no line %q", prefix)
		}
	}
}

// load are clients in closed loops, and what they saw.
type load struct {
	row
	addr     string
	stopping atomic.Bool // the cluster is being stopped: new connections may be refused
	requests atomic.Int64
	retried  atomic.Int64
	mu       sync.Mutex
	lost     []string
}

// run is one client, until nobody is there any more.
func (l *load) run() {
	var s session
	for deadline := time.Now().Add(5 * patience); time.Now().Before(deadline); {
		fresh := s == nil
		if fresh {
			stopping := l.stopping.Load()
			var err error
			if s, err = l.dial(l.addr); err != nil {
				s = nil
				if stopping || l.stopping.Load() {
					return
				}
				l.lose(fmt.Errorf("dial: %w", err))
				time.Sleep(time.Millisecond)
				continue
			}
		}
		again, err := s.do()
		switch {
		case err == nil:
			l.requests.Add(1)
		case fresh && l.stopping.Load(), errors.Is(err, errRefused) && l.stopping.Load():
			s.Close()
			return // it was in the queue when the last socket was closed
		case l.retries && !fresh && errors.Is(err, io.EOF):
			l.retried.Add(1)
		default:
			l.lose(err)
		}
		if !again || err != nil {
			s.Close()
			s = nil
		}
	}
	l.lose(errors.New("there is always somebody there"))
}

func (l *load) lose(err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.lost) < 10 {
		l.lost = append(l.lost, err.Error())
	}
}

// errRefused says that there is nobody to connect to.
var errRefused = errors.New("refused")

// stream is a connection with what a client reads from it.
type stream struct {
	net.Conn
	r *bufio.Reader
}

func dialStream(addr string) (*stream, error) {
	c, err := net.DialTimeout("tcp", addr, patience)
	if err != nil {
		return nil, err
	}
	c.SetDeadline(time.Now().Add(5 * patience))
	return &stream{c, bufio.NewReader(c)}, nil
}

// silent is err, or io.EOF if the connection was closed before anything came.
func (s *stream) silent(err error) error {
	if s.r.Buffered() == 0 && (errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE)) {
		return io.EOF
	}
	return err
}

// httpSession sends the same request again and again. It tries nothing again.
type httpSession struct {
	*stream
	request, answer string
}

func dialHTTP(request, answer string) func(addr string) (session, error) {
	return func(addr string) (session, error) {
		s, err := dialStream(addr)
		if err != nil {
			return nil, err
		}
		return &httpSession{s, request, answer}, nil
	}
}

func (s *httpSession) do() (again bool, err error) {
	if _, err := io.WriteString(s, s.request); err != nil {
		return false, fmt.Errorf("write: %w", err)
	}
	resp, err := http.ReadResponse(s.r, nil)
	if err != nil {
		return false, fmt.Errorf("read: %w", err)
	}
	body, err := io.ReadAll(resp.Body)
	if err == nil && (resp.StatusCode != http.StatusOK || string(body) != s.answer) {
		err = fmt.Errorf("%s: %q", resp.Status, body)
	}
	return !resp.Close, err
}

// sseSession reads events.
type sseSession struct {
	*stream
	body *bufio.Reader
}

func dialSSE(addr string) (session, error) {
	s, err := dialStream(addr)
	if err != nil {
		return nil, err
	}
	return &sseSession{stream: s}, nil
}

func (s *sseSession) do() (again bool, err error) {
	if s.body == nil {
		if _, err := io.WriteString(s, "GET / HTTP/1.1\r\nHost: x\r\n\r\n"); err != nil {
			return false, err
		}
		resp, err := http.ReadResponse(s.r, nil)
		if err != nil {
			return false, err
		}
		s.body = bufio.NewReader(resp.Body)
	}
	for _, want := range []string{"data: hello\n", "\n"} {
		line, err := s.body.ReadString('\n')
		if err == io.EOF && line == "" && want != "\n" {
			return false, nil // the stream has ended, as it should
		}
		if err != nil || line != want {
			return false, fmt.Errorf("%q: %v", line, err)
		}
	}
	return true, nil
}

// websocketSession sends messages and reads them.
type websocketSession struct{ c *coder.Conn }

func dialWebsocket(addr string) (session, error) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	c, _, err := coder.Dial(ctx, "ws://"+addr, nil)
	return websocketSession{c}, err
}

func (s websocketSession) do() (again bool, err error) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if err := s.c.Write(ctx, coder.MessageText, []byte("hello")); err != nil {
		// What the server said last tells whether it went.
		_, _, readErr := s.c.Read(ctx)
		return away(errors.Join(err, readErr), readErr)
	}
	_, msg, err := s.c.Read(ctx)
	if err != nil {
		return away(err, err)
	}
	if string(msg) != "hello" {
		err = fmt.Errorf("%q", msg)
	}
	return true, err
}

// away says whether the server has said that it goes. Whether it has read the message
// that was on its way the client asks after it has come back: that is the protocol's.
func away(err, said error) (again bool, _ error) {
	if coder.CloseStatus(said) == coder.StatusGoingAway {
		return false, nil
	}
	return false, err
}

func (s websocketSession) Close() error { return s.c.CloseNow() }

// grpcSession makes calls and streams.
type grpcSession struct{ *grpc.ClientConn }

func dialGRPC(addr string) (session, error) {
	c, err := grpc.NewClient("passthrough:///"+addr, grpc.WithTransportCredentials(insecure.NewCredentials()))
	return grpcSession{c}, err
}

func (s grpcSession) do() (again bool, err error) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	_, err = grpc_health_v1.NewHealthClient(s).Check(ctx, &grpc_health_v1.HealthCheckRequest{})
	if err == nil {
		err = s.stream(ctx)
	}
	if status.Code(err) == codes.Unavailable && strings.Contains(err.Error(), "connection refused") {
		err = errors.Join(errRefused, err)
	}
	return true, err
}

// stream asks something in a stream of both directions.
func (s grpcSession) stream(ctx context.Context) error {
	stream, err := grpc_reflection_v1.NewServerReflectionClient(s).ServerReflectionInfo(ctx)
	if err != nil {
		return err
	}
	for range 3 {
		ask := &grpc_reflection_v1.ServerReflectionRequest_ListServices{}
		if err := stream.Send(&grpc_reflection_v1.ServerReflectionRequest{MessageRequest: ask}); err != nil {
			_, err = stream.Recv()
			return err
		}
		if _, err := stream.Recv(); err != nil {
			return err
		}
	}
	if err := stream.CloseSend(); err != nil {
		return err
	}
	if _, err := stream.Recv(); err != io.EOF {
		return fmt.Errorf("end of the stream: %v", err)
	}
	return nil
}

// rpcSession makes calls of net/rpc.
type rpcSession struct{ *rpc.Client }

func dialRPC(addr string) (session, error) {
	c, err := rpc.Dial("tcp", addr)
	return rpcSession{c}, err
}

func (s rpcSession) do() (again bool, err error) {
	var reply string
	err = s.Call("Hello.Say", "x", &reply)
	if err == rpc.ErrShutdown || err == io.ErrUnexpectedEOF || errors.Is(err, syscall.EPIPE) || errors.Is(err, syscall.ECONNRESET) {
		err = io.EOF // nothing came
	}
	if err == nil && reply != "hello x" {
		err = fmt.Errorf("%q", reply)
	}
	return true, err
}

// redisSession sends commands.
type redisSession struct{ *stream }

func dialRedis(addr string) (session, error) {
	s, err := dialStream(addr)
	return redisSession{s}, err
}

func (s redisSession) do() (again bool, err error) {
	if _, err := io.WriteString(s, "PING\r\n"); err != nil {
		return false, s.silent(err)
	}
	line, err := s.r.ReadString('\n')
	if err != nil {
		return false, s.silent(err)
	}
	if line != "+hello\r\n" {
		err = fmt.Errorf("%q", line)
	}
	return true, err
}
