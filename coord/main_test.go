package coord_test

import (
	"context"
	"fmt"
	"os"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-cluster/cluster"
	"github.com/go-cluster/cluster/coord"
	"github.com/go-cluster/cluster/internal/clustertest"
	"github.com/stretchr/testify/require"
)

func TestMain(m *testing.M) { clustertest.Main(m) }

// order is what a test asks a worker to do.
type order struct {
	Cmd  string `json:"cmd"`
	Name string
	Key  string
	Val  []byte
	N    int64
	TTL  time.Duration
}

// result is what it says.
type result struct {
	OK  bool
	Val []byte
	N   int64
}

// said is what a worker says by itself.
type said struct {
	Cmd  string `json:"cmd"`
	What string
	Name string
}

func say(what, name string) { cluster.Worker.Send(said{"said", what, name}) }

// hand is what a worker has in its hands: what ends it, by name.
type hand struct {
	mu   sync.Mutex
	ends map[string]func()
}

func (h *hand) take(name string, end func()) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.ends[name] = end
}

func (h *hand) end(name string) {
	h.mu.Lock()
	end := h.ends[name]
	delete(h.ends, name)
	h.mu.Unlock()
	end()
}

// coordWorker does what a test asks it to.
var coordWorker = clustertest.Program("coord", func() {
	h := hand{ends: make(map[string]func())}
	cluster.OnError(func(_ *cluster.Process, err error) { say("error", err.Error()) })
	cluster.Respond("coord", func(_ *cluster.Process, o order) (r result, err error) {
		ctx, s := context.Background(), coord.Open(o.Name)
		switch o.Key {
		case "leads":
			r.OK = coord.Leads(o.Name)
			return r, nil
		}
		switch verb := string(o.Val); verb {
		case "get":
			r.Val, r.OK, err = s.Get(ctx, o.Key)
		case "incr":
			r.N, err = s.Incr(ctx, o.Key, o.N, o.TTL)
		case "set":
			err = s.Set(ctx, o.Key, make([]byte, o.N), 0)
		case "spend":
			r.N, err = spend(o.Name, float64(o.N), o.TTL)
		case "leadpanic": // when it is told to
			now := make(chan bool)
			h.take("now"+o.Name, func() { close(now) })
			coord.Lead(o.Name, func(context.Context) error {
				say("leads", o.Name)
				<-now
				panic("in what leads")
			})
		case "leadslow":
			release := make(chan bool)
			h.take("release"+o.Name, func() { close(release) })
			h.take(verb+o.Name, coord.Lead(o.Name, func(ctx context.Context) error {
				<-ctx.Done()
				say("ending", o.Name)
				<-release
				say("leads no more", o.Name)
				return nil
			}))
		case "panicker":
			coord.Subscribe(o.Name, func(string) { panic("in a subscriber") })
		case "lead", "leadfail", "leaddone":
			h.take(verb+o.Name, coord.Lead(o.Name, func(ctx context.Context) error { return lead(ctx, verb, o.Name) }))
		case "lock":
			go func() {
				unlock, err := coord.Lock(ctx, o.Name)
				if err != nil {
					say("nolock", err.Error())
					return
				}
				h.take("lock"+o.Name, unlock)
				say("locked", o.Name)
			}()
		case "trylock":
			var unlock func()
			if unlock, r.OK, err = coord.TryLock(o.Name); r.OK {
				h.take("lock"+o.Name, unlock)
			}
		case "once":
			go func() {
				err := coord.Once(ctx, o.Name, func(context.Context) error { return once(o.Name) })
				say(fmt.Sprint("once ", err), o.Name)
			}()
		case "subscribe":
			h.take("topic"+o.Name, coord.Subscribe(o.Name, func(v string) { say("heard", v) }))
		case "publish":
			err = coord.Publish(o.Name, o.Key)
		case "allow":
			r.OK, _, err = coord.NewLimiter(o.Name, 0.001, 5).Allow(ctx, o.Key)
		case "end":
			h.end(o.Key + o.Name)
		default:
			err = fmt.Errorf("no verb %q", verb)
		}
		return r, err
	})
	ln, err := cluster.Listen("tcp", "127.0.0.1:0")
	clustertest.Must(err)
	defer ln.Close()
	<-cluster.Context().Done()
	select {}
})

// lead leads as the test wants it.
func lead(ctx context.Context, verb, name string) error {
	say("leads", name)
	switch verb {
	case "leadfail":
		return fmt.Errorf("it fails")
	case "leaddone":
		return nil
	}
	<-ctx.Done()
	say("leads no more", name)
	return nil
}

// exit ends the goroutine.
func exit() { runtime.Goexit() }

// once runs what is to be run once; it fails, and dies, as often as the
// environment says.
func once(name string) error {
	say("runs", name)
	switch os.Getenv("ONCE") {
	case "fail":
		return fmt.Errorf("it fails")
	case "hang":
		select {}
	}
	return nil
}

// ask has a worker do something.
func ask(t testing.TB, w *cluster.Process, verb, name string, more ...func(*order)) (r result) {
	t.Helper()
	r, err := tryAsk(t, w, verb, name, more...)
	require.NoError(t, err)
	return r
}

func tryAsk(t testing.TB, w *cluster.Process, verb, name string, more ...func(*order)) (r result, err error) {
	t.Helper()
	o := order{Cmd: "coord", Name: name, Val: []byte(verb)}
	for _, fn := range more {
		fn(&o)
	}
	ctx, cancel := context.WithTimeout(t.Context(), clustertest.Patience)
	defer cancel()
	err = w.Request(ctx, o, &r)
	return r, err
}

func key(key string) func(*order) { return func(o *order) { o.Key = key } }

func count(n int64, ttl time.Duration) func(*order) {
	return func(o *order) { o.N, o.TTL = n, ttl }
}

// word is what a worker has said.
type word struct {
	w    *cluster.Process
	what string
}

// words are what workers say from now on.
func words(t testing.TB) <-chan word {
	c := make(chan word, 100000)
	t.Cleanup(cluster.Handle("said", func(w *cluster.Process, s said) { c <- word{w, s.What + " " + s.Name} }))
	return c
}

// await waits for the next word, which has to be that.
func await(t testing.TB, c <-chan word, what string) *cluster.Process {
	t.Helper()
	got := clustertest.Await(t, c, what)
	require.Equal(t, what, strings.TrimSpace(got.what))
	return got.w
}

// forkAll forks so many workers.
func forkAll(t *testing.T, n int, env ...string) (all []*cluster.Process) {
	listening := clustertest.Listenings(t)
	for range n {
		all = append(all, clustertest.Fork(t, env...))
	}
	for range n {
		clustertest.Await(t, listening, "listening")
	}
	return all
}
