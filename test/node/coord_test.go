//go:build unix

package node_test

import (
	"context"
	"errors"
	"fmt"
	"testing"

	"github.com/go-cluster/cluster"
	"github.com/go-cluster/cluster/coord"
	"github.com/go-cluster/cluster/internal/clustertest"
	"github.com/stretchr/testify/require"
)

// coordGuest tries all of package coord, and tells its primary what came of it: of
// each call whether it was ErrNotSupported.
var coordGuest = clustertest.Program("coord guest", func() {
	ctx := context.Background()
	failed := make(map[string]bool)
	reported := make(chan error, 10)
	cluster.OnError(func(_ *cluster.Process, err error) { reported <- err })
	tried := func(call string, err error) {
		failed[call] = errors.Is(err, cluster.ErrNotSupported) && errors.Is(err, errors.ErrUnsupported)
	}
	never := func(context.Context) error { panic("it runs") }
	coord.Lead("x", never)()
	tried("Lead", <-reported)
	coord.Subscribe("x", func(string) {})()
	tried("Subscribe", <-reported)
	tried("Once", coord.Once(ctx, "x", never))
	tried("Publish", coord.Publish("x", 1))
	_, err := coord.Lock(ctx, "x")
	tried("Lock", err)
	_, _, err = coord.TryLock("x")
	tried("TryLock", err)
	s := coord.Open("x")
	_, _, err = s.Get(ctx, "k")
	tried("Get", err)
	tried("Set", s.Set(ctx, "k", nil, 0))
	_, err = s.Add(ctx, "k", nil, 0)
	tried("Add", err)
	_, err = s.CompareAndSwap(ctx, "k", nil, nil, 0)
	tried("CompareAndSwap", err)
	_, err = s.Incr(ctx, "k", 1, 0)
	tried("Incr", err)
	tried("Delete", s.Delete(ctx, "k"))
	tried("DeletePrefix", s.DeletePrefix(ctx, ""))
	_, err = s.Keys(ctx, "")
	tried("Keys", err)
	l := coord.NewLimiter("x", 1, 1)
	_, _, err = l.Allow(ctx, "k")
	tried("Allow", err)
	_, _, err = l.AllowN(ctx, "k", 2)
	tried("AllowN", err)
	tried("Wait", l.Wait(ctx, "k"))
	for call, ok := range failed {
		if !ok {
			cluster.Worker.Send(map[string]string{"supported": call})
		}
	}
	cluster.Worker.Send(map[string]any{"tried": len(failed), "leads": coord.Leads("x"), "more": len(reported)})
	<-cluster.Context().Done()
	select {}
})

// TestNodePrimaryCoord: under a node primary each call of package coord is
// ErrNotSupported; Lead and Subscribe tell OnError.
func TestNodePrimaryCoord(t *testing.T) {
	t.Parallel()
	n := clustertest.NewNodePrimary(t)
	w := n.Fork(map[string]string{clustertest.ProgramEnv: coordGuest})
	n.Find(t, fmt.Sprintf(`message %d {"leads":false,"more":0,"tried":17}`, w))
	require.Zero(t, n.Count(fmt.Sprintf(`message %d {"supported"`, w)), "%v", n.All())
	n.End()
}
