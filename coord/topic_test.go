package coord_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/go-cluster/cluster"
	"github.com/go-cluster/cluster/coord"
	"github.com/go-cluster/cluster/internal/clustertest"
	"github.com/stretchr/testify/require"
)

// TestTopic: all hear all, in one order, the publishers included.
func TestTopic(t *testing.T) {
	clustertest.WithMaster(t, coordWorker, cluster.Options{})
	said := words(t)
	w := forkAll(t, 3)
	for _, one := range w {
		ask(t, one, "subscribe", "news")
	}
	here := make(chan string, 1000)
	stop := coord.Subscribe("news", func(v string) { here <- v })
	const each = 50
	done := make(chan bool)
	for _, one := range w {
		go func() {
			for i := range each {
				ask(t, one, "publish", "news", key(fmt.Sprintf("%d-%d", one.ID(), i)))
			}
			done <- true
		}()
	}
	for i := range each {
		require.NoError(t, coord.Publish("news", fmt.Sprintf("0-%d", i)))
	}
	for range w {
		clustertest.Await(t, done, "publisher")
	}
	order := make([]string, 0, 4*each)
	for range 4 * each {
		order = append(order, clustertest.Await(t, here, "message"))
	}
	heard := make(map[*cluster.Process][]string)
	for range 4 * each * len(w) {
		one := clustertest.Await(t, said, "message")
		heard[one.w] = append(heard[one.w], strings.TrimSuffix(strings.TrimPrefix(one.what, "heard "), " "))
	}
	for _, one := range w {
		require.Empty(t, cmpHeard(order, heard[one]))
	}
	stop()
	require.NoError(t, coord.Publish("news", "late"))
	await(t, said, "heard late")
	require.Empty(t, here)
}

// cmpHeard tells where two orders differ.
func cmpHeard(a, b []string) string {
	if len(a) != len(b) {
		return fmt.Sprint(len(a), " and ", len(b))
	}
	for i := range a {
		if a[i] != b[i] {
			return fmt.Sprint(i, ": ", a[i], " and ", b[i])
		}
	}
	return ""
}

// TestTopicAlone: a subscriber that is slow misses messages, which is counted and
// reported at the first, and one that cannot decode a message is told.
func TestTopicAlone(t *testing.T) {
	errs := make(chan error, 100)
	defer cluster.OnError(func(w *cluster.Process, err error) { require.Nil(t, w); errs <- err })()
	numbers := make(chan int, 10)
	defer coord.Subscribe(t.Name(), func(n int) { numbers <- n })()
	require.NoError(t, coord.Publish(t.Name(), "one"))
	require.ErrorContains(t, clustertest.Await(t, errs, "error"), "cannot unmarshal")
	require.NoError(t, coord.Publish(t.Name(), 2))
	require.Equal(t, 2, clustertest.Await(t, numbers, "number"))
	require.Error(t, coord.Publish(t.Name(), func() {}))
	require.ErrorIs(t, coord.Publish(strings.Repeat("x", 2000), 1), coord.ErrTooLarge)
	coord.Subscribe("\xff", func(int) {})
	require.ErrorContains(t, clustertest.Await(t, errs, "error"), "UTF-8")

	wait, began := make(chan bool), make(chan bool, 100)
	stop := coord.Subscribe(t.Name()+"slow", func(string) { began <- true; <-wait })
	large := strings.Repeat("x", 4<<20)
	for i := range 10 {
		require.NoError(t, coord.Publish(t.Name()+"slow", large))
		if i == 0 {
			clustertest.Await(t, began, "message") // it is at work with this one: no room comes any more
		}
	}
	require.ErrorContains(t, clustertest.Await(t, errs, "error"), "slow")
	require.Empty(t, errs, "once a burst")
	clustertest.Eventually(t, func() bool {
		for _, topic := range cluster.Stats().Coord.Topics {
			if topic.Name == t.Name()+"slow" {
				return topic.Published == 10 && topic.Missed == 7
			}
		}
		return false
	}, "it is counted")
	stop()
	close(wait)
}
