//go:build unix

package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strconv"
	"sync"
	"syscall"
	"testing"

	"github.com/coder/websocket"
	"github.com/coder/websocket/wsjson"
	"github.com/go-cluster/cluster/internal/clustertest"
	"github.com/stretchr/testify/require"
)

// chat is the example as a program of the test binary.
var chat = clustertest.Program("chat", main)

func TestMain(m *testing.M) { clustertest.Main(m) }

// TestPage: the page is there.
func TestPage(t *testing.T) {
	r := open(t, 0)
	text, err := clustertest.Get("http://" + r.addr)
	require.NoError(t, err)
	require.Contains(t, text, "new WebSocket(")
	r.close()
}

// TestTalk: users on three workers all hear the same, in the same order.
func TestTalk(t *testing.T) {
	r := open(t, 9)
	r.allSay(20)
	workers := make(map[int]bool)
	for _, u := range r.users {
		require.Empty(t, u.ends)
		for _, m := range u.windows[0] {
			workers[m.Worker] = true
		}
	}
	require.Len(t, workers, 3)
	r.close()
}

// TestReload: a reload closes all with 1001. They come back and go on talking, and
// nothing that was said is lost.
func TestReload(t *testing.T) {
	r := open(t, 9)
	old := r.workers
	r.proc.Signal(syscall.SIGHUP)
	gone := func(w worker) bool { return syscall.Kill(w.pid, 0) == syscall.ESRCH }
	r.allTalkUntil(func(u *user) bool { return !slices.ContainsFunc(old, func(w worker) bool { return !gone(w) }) })
	r.close()
	for _, u := range r.users {
		require.NotEmpty(t, u.ends)
		for _, end := range u.ends {
			require.Equal(t, websocket.StatusGoingAway, end, "%v", u.ends)
		}
	}
}

// TestKill: the users of a worker that is killed come back to another one; the
// others notice nothing.
func TestKill(t *testing.T) {
	r := open(t, 9)
	victim := r.workers[0]
	require.NoError(t, syscall.Kill(victim.pid, syscall.SIGKILL))
	r.allTalkUntil(func(u *user) bool { return u.firstWorker() != victim.id || u.wasCut() })
	r.close()
	var cut int
	for _, u := range r.users {
		if u.firstWorker() == victim.id {
			cut++
			require.Equal(t, []websocket.StatusCode{-1}, u.ends)
		} else {
			require.Empty(t, u.ends)
		}
	}
	require.NotZero(t, cut)
	require.Less(t, cut, len(r.users))
}

// room is a running example with its users.
type room struct {
	t       *testing.T
	proc    *clustertest.Proc
	addr    string
	workers []worker
	users   []*user
	leave   context.CancelFunc
	left    sync.WaitGroup
}

type worker struct{ id, pid int }

// open starts the example with three workers, and lets users in until each has heard
// itself: from then on they hear all.
func open(t *testing.T, users int) *room {
	t.Parallel()
	manager := clustertest.NewManager(t)
	r := &room{t: t, proc: clustertest.StartCmd(t, exec.Command(os.Args[0], "-addr", "127.0.0.1:0"), chat, "GOMAXPROCS=3", manager.Env)}
	for range 3 {
		m := regexp.MustCompile(`^(\d+) \(pid (\d+)\) listening on (\S+)$`).FindStringSubmatch(r.proc.Expect("worker "))
		require.NotNil(t, m)
		id, _ := strconv.Atoi(m[1])
		pid, _ := strconv.Atoi(m[2])
		r.workers, r.addr = append(r.workers, worker{id, pid}), m[3]
	}
	manager.InRun()
	ctx, cancel := context.WithCancel(t.Context())
	r.leave = cancel
	t.Cleanup(r.left.Wait)
	t.Cleanup(cancel)
	for i := range users {
		u := &user{t: t, name: fmt.Sprint("user", i), url: "ws://" + r.addr + "/chat", news: make(chan struct{}, 1), heard: make(map[string]bool)}
		r.users = append(r.users, u)
		r.left.Go(func() { u.stay(ctx) })
	}
	r.allTalkUntil(func(*user) bool { return true })
	return r
}

// allSay lets all say so many things, each waiting until he has heard himself, and
// then waits until all have heard all.
func (r *room) allSay(n int) {
	r.all(func(u *user) {
		for range n {
			u.say()
		}
	})
	r.all(func(u *user) {
		for _, who := range r.users {
			u.await(func() bool { return u.heard[who.last()] })
		}
	})
}

// allTalkUntil lets each talk until done says so of him, and then until he has heard
// himself once more.
func (r *room) allTalkUntil(done func(u *user) bool) {
	r.all(func(u *user) {
		for ; !done(u); u.say() {
		}
		u.say()
	})
}

// all calls fn for each user, all at once.
func (r *room) all(fn func(u *user)) {
	var all sync.WaitGroup
	for _, u := range r.users {
		all.Go(func() { fn(u) })
	}
	all.Wait()
}

// close lets all say a last thing, which all hear, and stops the example. What each
// connection has heard must be one piece of the one order of all messages.
func (r *room) close() {
	if len(r.users) > 0 {
		r.allSay(1)
	}
	r.leave()
	r.left.Wait()
	r.proc.Terminate()
	var windows [][]message
	for _, u := range r.users {
		windows = append(windows, u.windows...)
	}
	for _, a := range windows {
		place := make(map[message]int)
		for i, m := range a {
			place[m] = i + 1
		}
		require.Equal(r.t, len(a), len(place), "something was heard twice")
		for _, b := range windows {
			for j := 1; j < len(b); j++ {
				before, here := place[b[j-1]], place[b[j]]
				require.True(r.t, here == before+1 && here > 0 || here == 0 && (before == 0 || before == len(a)),
					"one connection has heard %v and %v, as %d and %d of %d of another", b[j-1], b[j], before, here, len(a))
			}
		}
	}
}

// user does what the page does.
type user struct {
	t    *testing.T
	name string
	url  string
	news chan struct{} // something has changed; for the one who waits

	mu      sync.Mutex
	said    int
	conn    *websocket.Conn // nil while there is none
	unheard []message
	heard   map[string]bool        // ids
	windows [][]message            // what each connection has heard
	ends    []websocket.StatusCode // how each connection has ended; -1 is without a word
}

// stay is connected until ctx ends.
func (u *user) stay(ctx context.Context) {
	for ctx.Err() == nil {
		c, _, err := websocket.Dial(ctx, u.url, nil)
		if err == nil {
			u.listen(ctx, c)
		} else if errors.Is(err, syscall.ECONNREFUSED) {
			u.t.Errorf("%s: %v", u.name, err)
			return
		}
	}
}

// listen hears what comes over a connection until that ends.
func (u *user) listen(ctx context.Context, c *websocket.Conn) {
	defer c.CloseNow()
	u.mu.Lock()
	u.conn, u.windows = c, append(u.windows, nil)
	for _, m := range u.unheard {
		wsjson.Write(ctx, c, m)
	}
	u.mu.Unlock()
	for {
		var m message
		err := wsjson.Read(ctx, c, &m)
		if ctx.Err() != nil {
			return
		}
		u.mu.Lock()
		if err != nil {
			u.conn, u.ends = nil, append(u.ends, websocket.CloseStatus(err))
		} else {
			u.unheard = slices.DeleteFunc(u.unheard, func(said message) bool { return said.ID == m.ID })
			u.heard[m.ID] = true
			last := len(u.windows) - 1
			u.windows[last] = append(u.windows[last], m)
		}
		u.mu.Unlock()
		select {
		case u.news <- struct{}{}:
		default:
		}
		if err != nil {
			return
		}
	}
}

// say says something, and waits until he has heard himself say it.
func (u *user) say() {
	u.mu.Lock()
	u.said++
	m := message{ID: u.last(), From: u.name, Text: "hello"}
	u.unheard = append(u.unheard, m)
	if u.conn != nil {
		wsjson.Write(u.t.Context(), u.conn, m)
	}
	u.mu.Unlock()
	u.await(func() bool { return u.heard[m.ID] })
}

// last is the id of what he said last.
func (u *user) last() string { return fmt.Sprint(u.name, "/", u.said) }

// await waits until cond is true, which is called with u.mu held.
func (u *user) await(cond func() bool) {
	u.t.Helper()
	for {
		u.mu.Lock()
		ok := cond()
		u.mu.Unlock()
		if ok {
			return
		}
		clustertest.Await(u.t, u.news, "news for "+u.name)
	}
}

// wasCut reports whether a connection of his has ended.
func (u *user) wasCut() bool {
	u.mu.Lock()
	defer u.mu.Unlock()
	return len(u.ends) > 0
}

// firstWorker is the worker that his first connection was to.
func (u *user) firstWorker() int {
	u.mu.Lock()
	defer u.mu.Unlock()
	i := slices.IndexFunc(u.windows[0], func(m message) bool { return m.From == u.name })
	return u.windows[0][i].Worker
}
