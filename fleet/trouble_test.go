package fleet

import (
	"context"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/go-cluster/cluster"
	"github.com/go-cluster/cluster/internal/clustertest"
	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/stretchr/testify/require"
)

// TestURLs: what is spelled wrongly is said to be, at once, and is not taken for a server on
// this machine.
func TestURLs(t *testing.T) {
	t.Parallel()
	s := startServer(t)
	for url, text := range map[string]string{
		s.addr:                          "",
		" " + s.URL + ", ":              "",
		"nats://127.0.0.1:1," + s.URL:   "",
		"http://" + s.addr:              "http://: NATS has nats://",
		"nats://:4222":                  "names no host",
		"nats://user:secret@:4222":      "names no host",
		"nats://":                       "names no host",
		" , ":                           "names no server",
		"nats://user:secret@[::1":       "Options.URL is none",
		"nats://user:secret@host:4222x": "Options.URL is none",
	} {
		f, err := joinAs(t, quick, Options{URL: url, Observer: true})
		if text == "" {
			require.NoError(t, err, url)
			require.NoError(t, f.Close())
			continue
		}
		require.ErrorContains(t, err, text, url)
		require.NotContains(t, err.Error(), "secret")
		require.NotErrorIs(t, err, ErrNoFleet)
	}
}

// TestJoinTwice: a process can be in two fleets, and twice in one under two names. What it
// does twice under one name is said to be its own.
func TestJoinTwice(t *testing.T) {
	t.Parallel()
	s := startServer(t)
	a := member(t, quick, Options{URL: s.URL, Node: "a"})
	set := quick
	set.join = time.Second
	_, err := joinAs(t, set, Options{URL: s.URL, Node: "a"})
	require.ErrorIs(t, err, ErrNameTaken)
	require.ErrorContains(t, err, "joined already")
	b := member(t, quick, Options{URL: s.URL, Node: "b"})
	awaitNodes(t, a, "a", "b")
	other, err := join(Options{URL: s.URL, Node: "a", Name: a.Name() + "-other"}, quickly)
	require.NoError(t, err)
	defer other.Close()
	awaitNodes(t, other, "a")
	heard := collect[int](t, other, "x")
	require.NoError(t, b.Publish("x", 1))
	require.NoError(t, other.Publish("x", 2))
	require.Equal(t, 2, clustertest.Await(t, heard, "a message"))
	ctx := long(t)
	require.NoError(t, a.KV("x").Set(ctx, "k", []byte("v"), 0))
	_, ok, err := other.KV("x").Get(ctx, "k")
	require.NoError(t, err)
	require.False(t, ok)
}

// TestSmallMessages: a server that takes only short messages has members all the same. They
// tell what is left out.
func TestSmallMessages(t *testing.T) {
	t.Parallel()
	s := startServer(t, func(o *server.Options) { o.MaxPayload = 1024 })
	a := member(t, quick, Options{URL: s.URL, Node: "a"})
	b := member(t, quick, Options{URL: s.URL, Node: "b"})
	for _, f := range []*Fleet{a, b} {
		var beat beat
		beat.Member = Member{Node: f.Node(), Protocol: protocol}
		beat.Snapshot.Workers = make([]cluster.WorkerStats, 100)
		require.ErrorIs(t, f.roster.publish(beat), cluster.ErrTooLarge)
	}
	awaitNodes(t, a, "a", "b")
	awaitNodes(t, b, "a", "b")
	require.NotZero(t, a.Members()[1].Snapshot.PID)
	require.ErrorIs(t, a.Publish("x", strings.Repeat("x", 1024)), cluster.ErrTooLarge)
	require.ErrorIs(t, a.Request(long(t), "", "x", strings.Repeat("x", 1024), nil), cluster.ErrTooLarge)
	require.ErrorIs(t, a.KV("x").Set(long(t), "k", make([]byte, 1025), 0), cluster.ErrTooLarge)
}

// TestFullServer: what a server has no room for is said by the call that needs it.
func TestFullServer(t *testing.T) {
	t.Parallel()
	s := startServer(t, func(o *server.Options) { o.MaxConn, o.JetStreamMaxStore, o.JetStreamMaxMemory = 1, 4096, 4096 })
	f := member(t, quick, Options{URL: s.URL, Node: "a"})
	set := quick
	set.join = time.Second
	_, err := joinAs(t, set, Options{URL: s.URL, Node: "b"})
	require.ErrorContains(t, err, "connection") // what the server says of it does not always arrive
	err = nil
	for i := 0; i < 100 && err == nil; i++ {
		err = f.KV("x").Set(long(t), strconv.Itoa(i), make([]byte, 512), 0)
	}
	require.ErrorContains(t, err, "resources")
}

// TestStrangeBucket: a bucket and keys that somebody else has made are said to be none.
func TestStrangeBucket(t *testing.T) {
	t.Parallel()
	s := startServer(t)
	f := member(t, quickly, Options{URL: s.URL, Node: "a"})
	ctx := long(t)
	_, err := f.conn.js.CreateKeyValue(ctx, jetstream.KeyValueConfig{Bucket: f.store.name()})
	require.NoError(t, err)
	_, _, err = f.Lock(ctx, "x")
	require.ErrorContains(t, err, "the bucket "+f.store.name())
	require.NoError(t, f.conn.js.DeleteKeyValue(ctx, f.store.name()))
	_, unlock, err := f.Lock(ctx, "x") // once the new bucket is old enough
	require.NoError(t, err)
	unlock()

	errs := errorsOf(t)
	_, err = f.store.put(ctx, "lead.job", []byte("no lease"), anyRevision, 0, nil)
	require.NoError(t, err)
	led := make(chan struct{}, 10)
	defer f.Lead("job", func(ctx context.Context) error {
		led <- struct{}{}
		<-ctx.Done()
		return nil
	})()
	awaitError(t, errs, nil, "lead.job of the bucket "+f.store.name())
	require.NoError(t, f.store.remove(ctx, "lead.job"))
	clustertest.Await(t, led, "the lead")
}

// TestDeletedBucket: who deletes the bucket ends what is led, and it is led again later.
func TestDeletedBucket(t *testing.T) {
	t.Parallel()
	s := startServer(t)
	f := member(t, quickly, Options{URL: s.URL, Node: "a"})
	w := newWitness(t)
	defer f.Lead("job", func(ctx context.Context) error {
		w.begin(ctx, "a")
		<-ctx.Done()
		w.end("a")
		return nil
	})()
	w.await("a leads")
	w.mu.Lock()
	w.fences = nil // they begin anew with the bucket
	w.mu.Unlock()
	require.NoError(t, f.conn.js.DeleteKeyValue(long(t), f.store.name()))
	w.await("a led")
	w.await("a leads")
	require.NoError(t, f.Close())
	w.await("a led")
}

// TestClockSetBack: the age of a bucket that was made in the future is how long it is known.
func TestClockSetBack(t *testing.T) {
	t.Parallel()
	s := startServer(t)
	f := member(t, quickly, Options{URL: s.URL, Node: "a"})
	c := contender{all: f.leases, key: "lead.job"}
	_, _, err := c.young(long(t))
	require.NoError(t, err)
	c.since = c.since.Add(-time.Hour) // it is not by the server's clock that it is old enough
	wait, _, err := c.young(long(t))
	require.NoError(t, err)
	require.Negative(t, wait)
}

// TestForeignQuestions: what is no JSON, and what wants no answer, ends no handler.
func TestForeignQuestions(t *testing.T) {
	t.Parallel()
	s := startServer(t)
	f := member(t, quick, Options{URL: s.URL, Node: "a", Orders: true})
	errs := errorsOf(t)
	var calls atomic.Int32
	Respond(f, "cmd", func(n int) (int, error) {
		calls.Add(1)
		return n, nil
	})
	nc, err := nats.Connect(s.URL)
	require.NoError(t, err)
	defer nc.Close()
	for _, subject := range []string{f.me.requestSubject("", "cmd"), f.me.orderSubject("a")} {
		m, err := nc.Request(subject, []byte("\x00{"), clustertest.Patience)
		require.NoError(t, err)
		require.Contains(t, m.Header.Get(errorHeader), "invalid character")
	}
	require.NoError(t, nc.Publish(f.me.requestSubject("", "cmd"), []byte("1")))
	awaitError(t, errs, nats.ErrMsgNoReply, "request.cmd")
	require.Equal(t, int32(1), calls.Load())
	for _, body := range []string{"", "\xff", `{"node":7}`, `{"node":"x","protocol":1,"snapshot":7}`} {
		require.NoError(t, nc.Publish(f.me.memberSubject("x"), []byte(body)))
		awaitError(t, errs, nil, "heartbeat")
	}
	require.Equal(t, []string{"a"}, nodes(f))
}

// TestManyMembers: many that join know each other. However many ask who is there, each says
// so a few times.
func TestManyMembers(t *testing.T) {
	t.Parallel()
	const members, questions = 20, 100
	s := startServer(t)
	all := make([]*Fleet, members)
	var busy sync.WaitGroup
	for i := range all {
		busy.Go(func() {
			var err error
			if all[i], err = joinAs(t, quick, Options{URL: s.URL, Node: strconv.Itoa(i)}); err != nil {
				t.Error(err)
			}
		})
	}
	busy.Wait()
	require.False(t, t.Failed())
	defer busy.Wait()
	for _, f := range all {
		defer busy.Go(func() { f.Close() })
	}
	for _, f := range all {
		clustertest.Eventually(t, func() bool { return len(f.Members()) == members }, "all members")
	}
	nc, err := nats.Connect(s.URL)
	require.NoError(t, err)
	defer nc.Close()
	var beats atomic.Int32
	_, err = nc.Subscribe(all[0].me.memberSubject("*"), func(*nats.Msg) { beats.Add(1) })
	require.NoError(t, err)
	begin := time.Now()
	for range questions {
		ask(all[0].me, nc)
		time.Sleep(time.Millisecond)
	}
	clustertest.Eventually(t, func() bool { return beats.Load() >= members }, "the answers")
	periods := 3 + int32(time.Since(begin)/(quick.beat/20))
	require.LessOrEqual(t, beats.Load(), members*periods)
}
