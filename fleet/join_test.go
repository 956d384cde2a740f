package fleet

import (
	"encoding/json"
	"sync/atomic"
	"testing"
	"time"

	"github.com/go-cluster/cluster/internal/clustertest"
	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/stretchr/testify/require"
)

// TestAbsentServer: Join says so in time, or waits for it if it is told to.
func TestAbsentServer(t *testing.T) {
	t.Parallel()
	s := startServer(t)
	s.stop()
	set := quick
	set.join = 100 * time.Millisecond
	_, err := joinAs(t, set, Options{URL: "nats://user:secret@" + s.addr})
	require.ErrorIs(t, err, ErrNoFleet)
	require.ErrorContains(t, err, s.addr)
	require.NotContains(t, err.Error(), "secret")

	_, err = joinAs(t, set, Options{URL: "nats://user:secret@[::1"})
	require.ErrorContains(t, err, "Options.URL")
	require.NotContains(t, err.Error(), "secret")

	f := member(t, quick, Options{URL: s.URL, Node: "a", NATS: []nats.Option{nats.RetryOnFailedConnect(true)}})
	require.ErrorIs(t, f.Publish("x", 1), ErrNoFleet)
	require.ErrorIs(t, f.Request(t.Context(), "", "x", 1, nil), ErrNoFleet)
	heard := collect[int](t, f, "x")
	s.start()
	clustertest.Eventually(t, func() bool { return f.Publish("x", 1) == nil }, "the connection")
	require.Equal(t, 1, clustertest.Await(t, heard, "a message"))
}

// TestLateServer: a server that starts within the time is found.
func TestLateServer(t *testing.T) {
	t.Parallel()
	s := startServer(t)
	s.stop()
	joined := make(chan error)
	go func() {
		f, err := joinAs(t, quick, Options{URL: s.URL, Node: "a"})
		if err == nil {
			f.Close()
		}
		joined <- err
	}()
	s.start()
	require.NoError(t, clustertest.Await(t, joined, "Join"))
}

// TestWrongCredentials: Join says so at once.
func TestWrongCredentials(t *testing.T) {
	t.Parallel()
	s := startServer(t, func(o *server.Options) { o.Username, o.Password = "user", "right" })
	_, err := joinAs(t, quick, Options{URL: s.URL, NATS: []nats.Option{nats.UserInfo("user", "wrong")}})
	require.ErrorIs(t, err, nats.ErrAuthorization)
	require.NotErrorIs(t, err, ErrNoFleet)
	f := member(t, quick, Options{URL: s.URL, NATS: []nats.Option{nats.UserInfo("user", "right")}})
	require.NoError(t, f.Publish("x", 1))
}

// TestNotPermitted: each call says what is not permitted, by the call's error or
// through OnError.
func TestNotPermitted(t *testing.T) {
	t.Parallel()
	name := fleetName(t)
	subjects := func(rest ...string) *server.SubjectPermission {
		p := &server.SubjectPermission{Allow: []string{"_INBOX.>"}}
		for _, r := range rest {
			p.Allow = append(p.Allow, "cluster."+name+"."+r)
		}
		return p
	}
	s := startServer(t, func(o *server.Options) {
		o.Users = []*server.User{
			{Username: "mute", Password: "x", Permissions: &server.Permissions{Publish: subjects(), Subscribe: subjects(">")}},
			{Username: "deaf", Password: "x", Permissions: &server.Permissions{Publish: subjects(">"), Subscribe: subjects()}},
			{Username: "member", Password: "x", Permissions: &server.Permissions{
				Publish: subjects("member.*", "who", "name.*"), Subscribe: subjects("member.*", "who", "name.*"),
			}},
		}
	})
	as := func(user string) Options { return Options{URL: s.URL, NATS: []nats.Option{nats.UserInfo(user, "x")}} }
	for _, user := range []string{"mute", "deaf"} {
		_, err := joinAs(t, quick, as(user))
		require.ErrorIs(t, err, nats.ErrPermissionViolation)
		require.ErrorContains(t, err, "cluster."+name)
	}
	errs := errorsOf(t)
	f := member(t, quick, as("member"))
	err := f.Request(t.Context(), "", "cmd", 1, nil)
	require.ErrorIs(t, err, nats.ErrPermissionViolation)
	require.ErrorContains(t, err, "request.cmd")
	Subscribe(f, "heard", func(int) {})
	awaitError(t, errs, nats.ErrPermissionViolation, "topic.heard")
	Respond(f, "answered", func(int) (int, error) { return 0, nil })
	awaitError(t, errs, nats.ErrPermissionViolation, "request.answered")
	require.NoError(t, f.Publish("said", 1))
	awaitError(t, errs, nats.ErrPermissionViolation, "topic.said")
	require.ErrorIs(t, f.Publish("said", 1), nats.ErrPermissionViolation)
}

// TestMembers: each knows the others, and hears who comes and who goes.
func TestMembers(t *testing.T) {
	t.Parallel()
	s := startServer(t)
	a := member(t, beating, Options{URL: s.URL, Node: "a"})
	came, went := make(chan string, 10), make(chan string, 10)
	a.OnJoin(func(m Member) { came <- m.Node })
	a.OnLeave(func(m Member) { went <- m.Node })
	require.Equal(t, "a", clustertest.Await(t, came, "itself"))
	b := member(t, beating, Options{URL: s.URL, Node: "b b", Orders: true})
	require.Equal(t, "b b", clustertest.Await(t, came, "b"))
	awaitNodes(t, a, "a", "b b")
	awaitNodes(t, b, "a", "b b")
	m := a.Members()[1]
	require.True(t, m.Orders)
	require.NotZero(t, m.PID)
	require.Equal(t, m.PID, m.Snapshot.PID)
	ownEnd := make(chan string, 10)
	b.OnLeave(func(m Member) { ownEnd <- m.Node })
	require.NoError(t, b.Close())
	require.Equal(t, "b b", clustertest.Await(t, went, "the end of b"))
	awaitNodes(t, a, "a")
	b.roster.calls.Call(func() {}) // what it was told before has run
	require.Empty(t, ownEnd, "it is told of its own end")

	c := member(t, beating, Options{URL: s.URL, Node: "c"})
	require.Equal(t, "c", clustertest.Await(t, came, "c"))
	c.abandon() // without a word
	require.Equal(t, "c", clustertest.Await(t, went, "the loss of c"))
	member(t, beating, Options{URL: s.URL, Node: "c"})
	require.Equal(t, "c", clustertest.Await(t, came, "the next c"))
}

// TestObserver: who is no member sees members, asks and leads, and nobody hears of it.
func TestObserver(t *testing.T) {
	t.Parallel()
	s := startServer(t)
	errs := errorsOf(t)
	a := member(t, beating, Options{URL: s.URL, Node: "observed"})
	came, went := make(chan string, 10), make(chan string, 10)
	a.OnJoin(func(m Member) { came <- m.Node })
	a.OnLeave(func(m Member) { went <- m.Node })
	require.Equal(t, "observed", clustertest.Await(t, came, "itself"))
	Respond(a, "echo", func(n int) (int, error) { return n, nil })
	for _, node := range []string{"observed", "o"} { // even of a member's name
		o := member(t, beating, Options{URL: s.URL, Node: node, Observer: true})
		awaitNodes(t, o, "observed")
		require.NoError(t, o.Request(long(t), "observed", "echo", 1, nil))
		require.NoError(t, o.Close())
	}
	b := member(t, beating, Options{URL: s.URL, Node: "b"})
	require.NoError(t, b.Close())
	require.Equal(t, "b", clustertest.Await(t, came, "b"))
	require.Equal(t, "b", clustertest.Await(t, went, "the end of b"))
	for len(errs) > 0 { // those of other tests as well
		require.NotContains(t, (<-errs).Error(), `"observed" is also that of`)
	}
	_, err := joinAs(t, quick, Options{URL: s.URL, Observer: true, Orders: true})
	require.ErrorContains(t, err, "Options.Observer")
}

// TestNameTaken: a second member of one name does not join, unless the first is gone.
// Two that join at once are told.
func TestNameTaken(t *testing.T) {
	t.Parallel()
	s := startServer(t)
	errs := errorsOf(t)
	a := member(t, quick, Options{URL: s.URL, Node: "a"})
	set := quick
	set.join = 3 * time.Second
	_, err := joinAs(t, set, Options{URL: s.URL, Node: "a"})
	require.ErrorIs(t, err, ErrNameTaken)

	closed := make(chan error)
	go func() {
		time.Sleep(quick.join / 20)
		closed <- a.Close()
	}()
	b := member(t, quick, Options{URL: s.URL, Node: "a"}) // waits for it
	require.NoError(t, clustertest.Await(t, closed, "the first one's end"))

	body, err := json.Marshal(beat{Member{Node: "a", Protocol: protocol}, "another", false, false})
	require.NoError(t, err)
	require.NoError(t, b.Conn().Publish(b.me.memberSubject("a"), body))
	awaitError(t, errs, ErrNameTaken, `"a"`)
}

// TestOtherVersion: a member of another version is known, and said to be one.
func TestOtherVersion(t *testing.T) {
	t.Parallel()
	s := startServer(t)
	errs := errorsOf(t)
	f := member(t, quick, Options{URL: s.URL, Node: "a", Orders: true})
	require.NoError(t, f.Conn().Publish(f.me.memberSubject("b"), []byte(`{"node":"b","instance":"i","protocol":2,"snapshot":"other"}`)))
	awaitError(t, errs, ErrVersion, `"b" has 2`)
	awaitNodes(t, f, "a", "b")
	res, err := f.Reload(t.Context(), Roll{})
	require.ErrorIs(t, err, ErrVersion)
	require.Empty(t, res.Done)
	require.NoError(t, f.Conn().Publish(f.me.memberSubject("b"), []byte(`{}`)))
	awaitError(t, errs, nil, "heartbeat")
	err = f.conn.request(clustertest.Within(t, clustertest.Patience), f.me.orderSubject("a"), order{Protocol: 2, Verb: "reload"}, nil)
	require.ErrorContains(t, err, ErrVersion.Error())
}

// TestPartition: what is cut off says so, and finds back by itself.
func TestPartition(t *testing.T) {
	t.Parallel()
	s := startServer(t)
	p := startProxy(t, s)
	a := member(t, beating, Options{URL: s.URL, Node: "a"})
	b := member(t, touchy, Options{URL: p.URL, Node: "b"})
	awaitNodes(t, a, "a", "b")
	awaitNodes(t, b, "a", "b")
	heard := collect[int](t, b, "x")
	begun, end := make(chan struct{}, 100), make(chan struct{})
	defer close(end)
	var asked atomic.Bool
	Respond(a, "slow", func(int) (int, error) {
		asked.Store(true)
		begun <- struct{}{}
		<-end
		return 0, nil
	})
	result := make(chan error, 1)
	go func() { // under load the connection can be lost before
		err := b.Request(long(t), "a", "slow", 1, nil)
		for !asked.Load() {
			err = b.Request(long(t), "a", "slow", 1, nil)
		}
		result <- err
	}()
	clustertest.Await(t, begun, "the request")
	p.Cut()
	require.ErrorIs(t, clustertest.Await(t, result, "the end of the request"), ErrNoFleet)
	clustertest.Eventually(t, func() bool { return b.Publish("y", 1) != nil }, "the loss")
	require.ErrorIs(t, b.Publish("y", 1), ErrNoFleet)
	awaitNodes(t, a, "a")
	awaitNodes(t, b, "b")
	p.Reset()
	p.Heal()
	awaitNodes(t, a, "a", "b")
	awaitNodes(t, b, "a", "b")
	require.NoError(t, a.Publish("x", 1))
	require.Equal(t, 1, clustertest.Await(t, heard, "a message"))
}

// TestKilledServer: another server in its place is found.
func TestKilledServer(t *testing.T) {
	t.Parallel()
	s := startServer(t)
	a := member(t, quick, Options{URL: s.URL, Node: "a"})
	b := member(t, quick, Options{URL: s.URL, Node: "b"})
	heard := collect[int](t, b, "x")
	s.stop()
	clustertest.Eventually(t, func() bool { return a.Publish("x", 1) != nil }, "the loss")
	s.start()
	clustertest.Eventually(t, func() bool {
		a.Publish("x", 2)
		return len(heard) > 0
	}, "a message")
	awaitNodes(t, a, "a", "b")
}

// TestSlowLink: nothing is lost or reordered by a slow link.
func TestSlowLink(t *testing.T) {
	t.Parallel()
	s := startServer(t)
	p := startProxy(t, s)
	p.Slow(50 * time.Millisecond)
	a := member(t, quick, Options{URL: s.URL, Node: "a"})
	b := member(t, quick, Options{URL: p.URL, Node: "b"})
	heard := collect[int](t, a, "x")
	for i := range 1000 {
		require.NoError(t, b.Publish("x", i))
	}
	for i := range 1000 {
		require.Equal(t, i, clustertest.Await(t, heard, "a message"))
	}
	Respond(a, "echo", func(n int) (int, error) { return n, nil })
	var n int
	require.NoError(t, b.Request(clustertest.Within(t, clustertest.Patience), "", "echo", 7, &n))
	require.Equal(t, 7, n)
}
