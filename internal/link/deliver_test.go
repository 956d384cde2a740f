package link

import (
	"fmt"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/go-cluster/cluster/internal/channel"
	"github.com/go-cluster/cluster/internal/roomtest"
)

// here has the reader call fn for each message, where nothing is being delivered.
func (l *testLink) here(fn func(m string)) *testLink {
	l.p.here = fn
	return l
}

// send writes text when nothing is being delivered, so that the reader delivers it.
func (l *testLink) send(text string) {
	l.t.Helper()
	require.Eventually(l.t, func() bool { return !l.p.under.Load() }, roomtest.Patience, 100*time.Microsecond)
	l.write(text)
}

// TestReaderDelivers: the reader delivers messages itself, in order, however they are cut and
// whatever lies between them, and counts them.
func TestReaderDelivers(t *testing.T) {
	l := newTestLink(t, PeerGo, Options{}).take()
	l.here(func(m string) { l.messages <- m }).start()
	const rounds, each = 20, 100
	for round := range rounds {
		var text strings.Builder
		for n := range each {
			fmt.Fprintf(&text, "%d%s\n", round*each+n, strings.Repeat(" ", round*n%300))
			if n%30 == 29 {
				text.WriteString(`{"cmd":"NODE_CLUSTER","act":"between"}` + "\n")
			}
		}
		l.write(text.String()[:text.Len()-round])
		l.write(text.String()[text.Len()-round:])
		got := make(map[string]bool)
		for range each { // in two orders: what the reader delivers, and what it does not
			got[strings.TrimSpace(l.message())] = true
		}
		for n := range each {
			require.True(t, got[fmt.Sprint(round*each+n)])
		}
	}
	in, _ := l.Counts()
	require.EqualValues(t, rounds*each, in)
}

// TestReaderDeliversInOrder: one read is delivered whole, in its order.
func TestReaderDeliversInOrder(t *testing.T) {
	l := newTestLink(t, PeerGo, Options{})
	l.here(func(m string) { l.messages <- m }).start()
	var text strings.Builder
	for n := range 2 * maxBatch {
		fmt.Fprintln(&text, n)
	}
	require.Less(t, text.Len(), channel.FullRead)
	for range 50 {
		l.send(text.String())
		for n := range 2 * maxBatch {
			require.Equal(t, fmt.Sprint(n), l.message())
		}
	}
	require.Empty(t, l.p.batches)
}

// TestReaderDeliversSlowly: a callback that the reader calls waits for what comes later.
func TestReaderDeliversSlowly(t *testing.T) {
	for name, wait := range waits() {
		t.Run(name, func(t *testing.T) {
			l := newTestLink(t, PeerGo, Options{}).take()
			done := make(chan error, 1)
			l.here(func(m string) {
				if m == `"wait"` {
					done <- wait(t, l)
				} else {
					l.messages <- m
				}
			}).start()
			l.echoes()
			for range 10 {
				l.send(`"wait"` + "\n")
				require.NoError(t, roomtest.Await(t, done, "the callback"))
				l.write(`"after"` + "\n")
				require.Equal(t, `"after"`, l.message())
			}
		})
	}
}

// TestLinkEndsUnderDelivery: the end of the link does not wait for a callback that the
// reader has called.
func TestLinkEndsUnderDelivery(t *testing.T) {
	for name, end := range map[string]func(l *testLink){
		"peer":   func(l *testLink) { l.peer.Close() },
		"close":  func(l *testLink) { l.Close() },
		"exited": func(l *testLink) { l.PeerExited() },
	} {
		t.Run(name, func(t *testing.T) {
			l := newTestLink(t, PeerGo, Options{})
			done := make(chan struct{})
			l.here(func(string) {
				end(l)
				roomtest.Await(t, l.ended, "end")
				close(done)
			}).start()
			l.write("1\n")
			roomtest.Await(t, done, "the callback")
		})
	}
}

// TestDeliveryEndsReader: a callback that ends its goroutine ends no reading, and those after
// it are called.
func TestDeliveryEndsReader(t *testing.T) {
	l := newTestLink(t, PeerGo, Options{}).take()
	l.here(func(m string) {
		if m == `"leave"` {
			runtime.Goexit()
		}
		l.messages <- m
	}).start()
	for range 20 {
		l.send(`"leave"` + "\n" + `"after"` + "\n")
		require.Equal(t, `"after"`, l.message())
	}
}

// TestPauseUnderDelivery: a pause does not wait for a callback that the reader has called, and
// nothing is read in it.
func TestPauseUnderDelivery(t *testing.T) {
	l := newTestLink(t, PeerGo, Options{}).take()
	entered, leave := make(chan struct{}), make(chan struct{})
	l.here(func(m string) {
		if m == `"wait"` {
			close(entered)
			<-leave
			return
		}
		l.messages <- m
	}).start()
	l.write(`"wait"` + "\n")
	roomtest.Await(t, entered, "the callback")
	require.NoError(t, PauseReading(t.Context(), l.Link))
	l.write(`"later"` + "\n")
	close(leave)
	require.Never(t, func() bool { return len(l.messages) > 0 }, 50*time.Millisecond, time.Millisecond)
	Resume(l.Link)
	require.Equal(t, `"later"`, l.message())
}
