package clustertest

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/go-cluster/cluster"
	"github.com/stretchr/testify/require"
)

// Echoing is a worker that echoes over HTTP and over a protocol of its own, on the addresses
// in its environment.
var Echoing = Program("echoing", func() {
	generation := os.Getenv("GENERATION")
	raw, err := cluster.Listen(os.Getenv("NETWORK"), os.Getenv("RAW"))
	Must(err)
	go func() {
		for {
			c, err := raw.Accept()
			Must(err)
			go echoRaw(c, generation)
		}
	}()
	ln, err := cluster.Listen(os.Getenv("NETWORK"), os.Getenv("HTTP"))
	Must(err)
	Must(cluster.Serve(ln, &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			return
		}
		w.Header().Set("Generation", generation)
		w.Write(body)
	})}))
})

// echoRaw answers each line of a connection with the generation and the line.
func echoRaw(c net.Conn, generation string) {
	defer c.Close()
	r := bufio.NewReaderSize(c, 32<<10)
	for {
		line, err := r.ReadString('\n')
		if err != nil {
			return
		}
		if _, err := io.WriteString(c, generation+" "+line); err != nil {
			return
		}
	}
}

// Load has clients that send one request after another. They do not repeat a request, unless
// their doc says so.
type Load struct {
	T             *testing.T
	Network       string
	HTTP, Raw     string
	Body          []byte
	Oldest        atomic.Int64 // the generation that may answer
	Requests      atomic.Int64
	Stop          chan struct{}
	Excuse        func(began time.Time, err error) bool // whether a request may have failed so; nil: none may fail
	Hasty         bool                                  // the server closes even new connections if no request has come: node 26 does
	Running       sync.WaitGroup
	Mu            sync.Mutex
	Failures      []error
	FailuresCount int
}

func (l *Load) stopped() bool {
	select {
	case <-l.Stop:
		return true
	default:
		return false
	}
}

// Run lets a client send one request after the other until the load stops.
func (l *Load) Run(client func() error) {
	l.Running.Go(func() {
		for !l.stopped() {
			began := time.Now()
			if err := client(); err != nil && (l.Excuse == nil || !l.Excuse(began, err)) {
				l.Mu.Lock()
				if l.FailuresCount++; len(l.Failures) < 5 {
					l.Failures = append(l.Failures, err)
				}
				l.Mu.Unlock()
			}
		}
	})
}

// answered checks that a worker of the generation oldest or a later one has answered a request.
// oldest is what Reload had promised when the request began.
func (l *Load) answered(oldest int64, generation string) error {
	l.Requests.Add(1)
	if int64(Atoi(generation)) < oldest {
		return fmt.Errorf("generation %s answered after %d was complete", generation, oldest)
	}
	return nil
}

// exchange makes one HTTP request on c.
func (l *Load) exchange(c net.Conn, r *bufio.Reader, last bool) (closing bool, err error) {
	oldest := l.Oldest.Load()
	req, _ := http.NewRequest("POST", "http://cluster/", bytes.NewReader(l.Body))
	req.Close = last
	c.SetDeadline(time.Now().Add(Patience))
	if err := req.Write(c); err != nil {
		return true, fmt.Errorf("write: %w", err)
	}
	resp, err := http.ReadResponse(r, req)
	if err != nil {
		return true, fmt.Errorf("response: %w", err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != 200 || !bytes.Equal(body, l.Body) {
		return true, fmt.Errorf("body of %d bytes, %s, %v", len(body), resp.Status, err)
	}
	return resp.Close, l.answered(oldest, resp.Header.Get("Generation"))
}

// KeepAlive is a client that uses one connection for as long as the server wants it. A
// server that drains closes a connection that is idle for a second. It may be idle for so
// long because this process gets no turn. A request that comes late for that reason, and is
// not answered, is sent again.
func (l *Load) KeepAlive() func() error {
	const prompt = 500 * time.Millisecond
	return l.keeping(func(f failure) bool { return f.kept && f.silent && f.idle > prompt })
}

// Patient is a client that keeps its connection. If the server closes the connection before
// it answers, the client sends the request again on a new one. With a Hasty server it does so
// if a new connection is closed, too.
func (l *Load) Patient() func() error {
	return l.keeping(func(f failure) bool { return (f.kept || l.Hasty) && f.silent })
}

// failure says how a request failed.
type failure struct {
	kept   bool          // the connection had served another request before
	silent bool          // nothing of an answer came
	idle   time.Duration // from the answer before to the request
}

// keeping returns a client that keeps its connection. again decides whether a request that
// has failed is sent once more, on a new connection.
func (l *Load) keeping(again func(failure) bool) func() error {
	var c *counted
	var r *bufio.Reader
	var answered time.Time
	return func() error {
		for {
			kept := c != nil
			if !kept {
				conn, err := net.Dial(l.Network, l.HTTP)
				if err != nil {
					return err
				}
				c = &counted{Conn: conn}
				r = bufio.NewReader(c)
			}
			before := c.read
			closing, err := l.exchange(c, r, false)
			failed := failure{kept, c.read == before, c.wrote.Sub(answered)}
			answered = time.Now()
			if closing || l.stopped() {
				c.Close()
				c = nil
			}
			if err == nil || !again(failed) {
				return err
			}
		}
	}
}

// OneShot makes a request on a connection of its own.
func (l *Load) OneShot() error {
	for {
		conn, err := net.Dial(l.Network, l.HTTP)
		if err != nil {
			return err
		}
		c := &counted{Conn: conn}
		_, err = l.exchange(c, bufio.NewReader(c), true)
		c.Close()
		if err == nil || !l.Hasty || c.read > 0 {
			return err
		}
	}
}

// Session sends a few lines on a raw connection.
func (l *Load) Session() error {
	oldest := l.Oldest.Load()
	c, err := net.Dial(l.Network, l.Raw)
	if err != nil {
		return err
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(Patience))
	r := bufio.NewReaderSize(c, 32<<10)
	line := string(l.Body) + "\n"
	for range 3 {
		if _, err := io.WriteString(c, line); err != nil {
			return fmt.Errorf("raw write: %w", err)
		}
		answer, err := r.ReadString('\n')
		if err != nil {
			return fmt.Errorf("raw answer: %w", err)
		}
		generation, rest, _ := strings.Cut(answer, " ")
		if rest != line {
			return fmt.Errorf("raw answer of %d bytes", len(answer))
		}
		if err := l.answered(oldest, generation); err != nil {
			return err
		}
	}
	return nil
}

// LoseNothing reloads two workers while the clients are at work, and fails the test if a
// request fails. listeners is the number of addresses on which each worker listens.
func LoseNothing(t *testing.T, l *Load, reloads int, requests int64, listeners int, clients ...func() error) {
	o := cluster.Settings()
	env := o.Env
	generation := func(n int) {
		o.Env = append(env[:len(env):len(env)], "GENERATION="+strconv.Itoa(n))
		require.NoError(t, cluster.SetupMaster(o))
	}
	generation(1)
	listening := Listenings(t)
	require.NoError(t, cluster.AutoFork())
	for range 2 * listeners {
		Await(t, listening, "listening")
	}
	for _, c := range clients {
		l.Run(c)
	}
	for i := 2; i <= reloads+1 || l.Requests.Load() < requests; i++ {
		generation(i)
		before := l.Requests.Load()
		require.NoError(t, cluster.Reload(Within(t, 2*Patience)))
		l.Oldest.Store(int64(i))
		Eventually(t, func() bool { return l.Requests.Load() > before+100 }, "requests between reloads")
	}
	close(l.Stop)
	l.Running.Wait()
	require.Zero(t, l.FailuresCount, "of %d requests: %v", l.Requests.Load(), l.Failures)
	t.Logf("%d requests", l.Requests.Load())
}

// UnusedAddress returns an address on which nothing listens.
func UnusedAddress(t *testing.T, network, name string) string {
	t.Helper()
	if network == "unix" {
		return filepath.Join(TempDir(t), name)
	}
	return "127.0.0.1:" + strconv.Itoa(FreePort(t))
}

// counted is a connection that counts the bytes read, and knows the time of the last write.
type counted struct {
	net.Conn
	read  int
	wrote time.Time
}

func (c *counted) Write(p []byte) (int, error) {
	n, err := c.Conn.Write(p)
	c.wrote = time.Now()
	return n, err
}

func (c *counted) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	c.read += n
	return n, err
}
