//go:build unix

package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/coder/websocket"
	"github.com/coder/websocket/wsjson"
	"github.com/go-cluster/cluster/internal/clustertest"
	"github.com/stretchr/testify/require"
)

// users are in the room together.
type users struct {
	t     *testing.T
	users []*user
	leave context.CancelFunc
	left  sync.WaitGroup
}

// users lets n in, each with the addresses that he tries in turn, until each has heard
// himself: from then on they hear all.
func (f *running) users(n int, urls func(i int) []string) *users {
	all := &users{t: f.t}
	ctx, cancel := context.WithCancel(f.t.Context())
	all.leave = cancel
	f.t.Cleanup(all.left.Wait)
	f.t.Cleanup(cancel)
	for i := range n {
		u := &user{t: f.t, name: fmt.Sprint("user", i), urls: urls(i), news: make(chan struct{}, 1), heard: make(map[string]bool)}
		all.users = append(all.users, u)
		all.left.Go(func() { u.stay(ctx) })
	}
	all.talkUntil(func(*user) bool { return true })
	return all
}

// talkUntil lets each talk until done says so of him, and then until he has heard
// himself once more.
func (all *users) talkUntil(done func(u *user) bool) {
	all.each(func(u *user) {
		for ; !done(u); u.say() {
		}
		u.say()
	})
}

// each calls fn for each user, all at once.
func (all *users) each(fn func(u *user)) {
	var wait sync.WaitGroup
	for _, u := range all.users {
		wait.Go(func() { fn(u) })
	}
	wait.Wait()
	require.False(all.t, all.t.Failed())
}

// awaitCron waits until all have heard the cron from one of these members, and returns
// which that was.
func (all *users) awaitCron(nodes ...string) (node string) {
	for _, u := range all.users {
		u.await(func() bool {
			for _, window := range u.windows {
				for _, m := range window {
					if m.From == "cron" && slices.Contains(nodes, m.Node) {
						node = m.Node
						return true
					}
				}
			}
			return false
		})
	}
	return node
}

// part lets all say a last thing, which all hear, and leave. Of what each user has said,
// each connection must have heard one piece, without a gap, and what one worker has sent
// on in its order. The order between workers is nobody's.
func (all *users) part() {
	all.each((*user).say)
	all.each(func(u *user) {
		for _, who := range all.users {
			u.await(func() bool { return u.heard[who.last()] })
		}
	})
	all.leave()
	all.left.Wait()
	for _, u := range all.users {
		for _, window := range u.windows {
			all.whole(window)
		}
	}
}

// whole checks what one connection has heard.
func (all *users) whole(window []message) {
	type source struct {
		from, node string
		worker     int
	}
	last := make(map[source]int)
	heard := make(map[string][]int)
	for _, m := range window {
		if m.From == "cron" {
			continue
		}
		_, number, _ := strings.Cut(m.ID, "/")
		n, err := strconv.Atoi(number)
		require.NoError(all.t, err)
		s := source{m.From, m.Node, m.Worker}
		require.Greater(all.t, n, last[s], "what %v has sent on", s)
		last[s] = n
		heard[m.From] = append(heard[m.From], n)
	}
	for from, ns := range heard {
		slices.Sort(ns)
		ns = slices.Compact(ns) // what was said again by way of another worker
		require.Equal(all.t, ns[len(ns)-1]-ns[0]+1, len(ns), "a gap in what %s has said", from)
	}
}

// user does what the page does.
type user struct {
	t    *testing.T
	name string
	urls []string
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
	for n := 0; ctx.Err() == nil; {
		c, _, err := websocket.Dial(ctx, u.urls[n%len(u.urls)], nil)
		if err == nil {
			u.listen(ctx, c)
			continue
		}
		if len(u.urls) == 1 && errors.Is(err, syscall.ECONNREFUSED) {
			u.t.Errorf("%s: %v", u.name, err)
			return
		}
		n++
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

// await waits until cond is true, which is called with u.mu held. A lease may have to
// be waited for.
func (u *user) await(cond func() bool) {
	u.t.Helper()
	end := time.After(3 * clustertest.Patience)
	for {
		u.mu.Lock()
		ok := cond()
		u.mu.Unlock()
		if ok {
			return
		}
		select {
		case <-u.news:
		case <-end:
			u.t.Fatalf("%s waits for something too long", u.name)
		}
	}
}

// crons are the ids of what the cron has said to him.
func (u *user) crons() (ids []string) {
	for _, m := range slices.Concat(u.windows...) {
		if m.From == "cron" {
			ids = append(ids, m.ID)
		}
	}
	return ids
}
