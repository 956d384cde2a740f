package fleet

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-cluster/cluster"
	"github.com/go-cluster/cluster/internal/clustertest"
	"github.com/nats-io/nats-server/v2/server"
	"github.com/stretchr/testify/require"
)

func TestMain(m *testing.M) { clustertest.Main(m) }

// quick are settings by which tests need not wait long, and lose nobody who is only
// slow. A connection that is to be lost has the settings touchy, a member that is to be
// lost by others, and those others, have beating.
var (
	quick   = settings{join: clustertest.Patience, call: clustertest.Patience, master: clustertest.Patience, ping: time.Minute, beat: 10 * time.Second}
	touchy  = settings{join: clustertest.Patience, call: clustertest.Patience, master: clustertest.Patience, ping: 4 * time.Second, beat: 2 * time.Second}
	beating = settings{join: clustertest.Patience, call: clustertest.Patience, master: clustertest.Patience, ping: time.Minute, beat: 2 * time.Second}
)

// natsServer is a server of a test's own.
type natsServer struct {
	*server.Server
	t    *testing.T
	o    *server.Options
	addr string
	URL  string
}

// startServer starts one that keeps what it is told in a directory of the test's.
func startServer(t *testing.T, change ...func(*server.Options)) *natsServer {
	t.Helper()
	o := &server.Options{
		Host: "127.0.0.1", Port: clustertest.FreePort(t), NoLog: true, NoSigs: true,
		JetStream: true, StoreDir: clustertest.TempDir(t), JetStreamMaxMemory: 64 << 20, JetStreamMaxStore: 64 << 20,
	}
	for _, fn := range change {
		fn(o)
	}
	s := &natsServer{t: t, o: o, addr: fmt.Sprintf("127.0.0.1:%d", o.Port)}
	s.URL = "nats://" + s.addr
	s.start()
	t.Cleanup(func() { s.stop() })
	return s
}

func (s *natsServer) start() {
	s.t.Helper()
	o := s.o.Clone()
	n, err := server.NewServer(o)
	require.NoError(s.t, err)
	s.Server = n
	n.Start()
	require.True(s.t, n.ReadyForConnections(clustertest.Patience))
}

func (s *natsServer) stop() {
	s.Shutdown()
	s.WaitForShutdown()
}

// proxy is the network between a member and its server.
type proxy struct {
	ln     net.Listener
	target string
	URL    string
	all    sync.WaitGroup

	mu    sync.Mutex
	open  map[net.Conn]bool
	whole *sync.Cond // waited for while it is cut
	cut   bool
	ended bool
	delay time.Duration
	lose  []byte // see Lose
}

// startProxy starts one to that server.
func startProxy(t *testing.T, s *natsServer) *proxy {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	p := &proxy{ln: ln, target: s.addr, URL: "nats://" + ln.Addr().String(), open: make(map[net.Conn]bool)}
	p.whole = sync.NewCond(&p.mu)
	p.all.Go(p.accept)
	t.Cleanup(func() {
		ln.Close()
		p.mu.Lock()
		p.ended = true
		p.closeLocked()
		p.whole.Broadcast()
		p.mu.Unlock()
		p.all.Wait()
	})
	return p
}

func (p *proxy) closeLocked() {
	for c := range p.open {
		c.Close()
	}
	clear(p.open)
}

func (p *proxy) accept() {
	for {
		near, err := p.ln.Accept()
		if err != nil {
			return
		}
		far, err := net.Dial("tcp", p.target)
		if err != nil {
			near.Close()
			continue
		}
		p.mu.Lock()
		p.open[near], p.open[far] = true, true
		if p.ended {
			p.closeLocked()
		}
		p.mu.Unlock()
		p.all.Go(func() { p.copy(near, far) })
		p.all.Go(func() { p.copy(far, near) })
	}
}

// copy hands over what comes while the network is whole. What comes while it is cut
// waits, and arrives later, as TCP has it.
func (p *proxy) copy(from, to net.Conn) {
	defer from.Close()
	defer to.Close()
	b := make([]byte, 32<<10)
	for {
		n, err := from.Read(b)
		p.mu.Lock()
		for p.cut && !p.ended {
			p.whole.Wait()
		}
		delay := p.delay
		if i := bytes.Index(b[:n], p.lose); p.lose != nil && i >= 0 {
			b[i], p.lose = lostSubject, nil
		}
		p.mu.Unlock()
		time.Sleep(delay)
		if n > 0 {
			if _, err := to.Write(b[:n]); err != nil {
				return
			}
		}
		if err != nil {
			return
		}
	}
}

// Cut lets nothing through, and tells nobody.
func (p *proxy) Cut() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.cut = true
}

// Heal lets all through again.
func (p *proxy) Heal() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.cut = false
	p.whole.Broadcast()
}

// Slow delays each piece.
func (p *proxy) Slow(d time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.delay = d
}

// lostSubject is the first byte of a subject of JetStream's that Lose has changed.
const lostSubject = 'x'

// Lose has the next question whose subject begins so, which a "$" has to begin, arrive
// nowhere: nobody answers it. It can be heard with lostSubject in the place of the "$".
func (p *proxy) Lose(subject string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.lose = []byte(subject)
}

// Reset ends all connections.
func (p *proxy) Reset() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.closeLocked()
}

// member joins a fleet whose name is the test's.
func member(t *testing.T, set settings, o Options) *Fleet {
	t.Helper()
	f, err := joinAs(t, set, o)
	require.NoError(t, err)
	t.Cleanup(func() {
		f.Close()
		if o.URL != "" {
			f.abandon()
		}
	})
	return f
}

func joinAs(t *testing.T, set settings, o Options) (*Fleet, error) {
	t.Helper()
	o.Name = fleetName(t)
	return join(o, set)
}

// names are those of fleets, by their tests: one for each run of a test, since the leases
// and values of package coord in this process outlive it.
var names struct {
	sync.Mutex
	of map[*testing.T]string
	n  int
}

// fleetName is that of the test's fleet.
func fleetName(t *testing.T) string {
	names.Lock()
	defer names.Unlock()
	if names.of == nil {
		names.of = make(map[*testing.T]string)
	}
	name, ok := names.of[t]
	if !ok {
		names.n++
		name = fmt.Sprintf("%s-%d", strings.ReplaceAll(token(t.Name()), "=", "-"), names.n)
		names.of[t] = name
		t.Cleanup(func() {
			names.Lock()
			defer names.Unlock()
			delete(names.of, t)
		})
	}
	return name
}

// errorsOf returns the errors from now on that are told to cluster.OnError.
func errorsOf(t *testing.T) <-chan error {
	c := make(chan error, 10000)
	t.Cleanup(cluster.OnError(func(_ *cluster.Process, err error) {
		select {
		case c <- err:
		default:
		}
	}))
	return c
}

// awaitError waits for an error that is what, and has the text.
func awaitError(t *testing.T, c <-chan error, what error, text string) {
	t.Helper()
	for {
		err := clustertest.Await(t, c, "error "+text)
		if (what == nil || errors.Is(err, what)) && strings.Contains(err.Error(), text) {
			return
		}
	}
}

// collect returns what a subscriber hears.
func collect[T any](t *testing.T, f *Fleet, topic string) <-chan T {
	c := make(chan T, 10000)
	t.Cleanup(Subscribe(f, topic, func(v T) { c <- v }))
	return c
}

// nodes are the names of the members.
func nodes(f *Fleet) (all []string) {
	for _, m := range f.Members() {
		all = append(all, m.Node)
	}
	return all
}

// awaitNodes waits until f knows these members.
func awaitNodes(t *testing.T, f *Fleet, want ...string) {
	t.Helper()
	clustertest.Eventually(t, func() bool { return fmt.Sprint(nodes(f)) == fmt.Sprint(want) }, fmt.Sprint("members ", want))
}

// long is a context for all that a test asks: it ends a test that hangs.
func long(t *testing.T) context.Context { return clustertest.Within(t, 4*clustertest.Patience) }

// eventually waits longer than clustertest does, for what takes several leases.
func eventually(t *testing.T, cond func() bool, what string) {
	t.Helper()
	for end := time.Now().Add(3 * clustertest.Patience); !cond(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("not in time: " + what)
		}
	}
}
