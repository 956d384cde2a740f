//go:build unix

package fleet

import (
	"context"
	"errors"
	"fmt"
	"os"
	"testing"

	"github.com/go-cluster/cluster"
	"github.com/go-cluster/cluster/internal/clustertest"
	"github.com/go-cluster/cluster/internal/upgrade"
	"github.com/nats-io/nats.go"
	"github.com/stretchr/testify/require"
)

// checked is a member whose main ends with an error if it takes part before AutoFork.
var checked = clustertest.Program("checked", func() {
	f, err := join(Options{URL: os.Getenv("URL"), Name: os.Getenv("NAME"), Node: "a", Orders: true}, quick)
	clustertest.Must(err)
	Respond(f, "who", func(struct{}) (int, error) { return os.Getpid(), nil })
	f.Lead("report", func(context.Context) error { return nil })
	if n := len(f.leads.stops); n > 0 {
		clustertest.Must(fmt.Errorf("%d candidacies", n))
	}
	if err := f.Request(context.Background(), "", "who", struct{}{}, nil); !errors.Is(err, nats.ErrNoResponders) {
		clustertest.Must(fmt.Errorf("it answers: %w", err))
	}
	clustertest.Must(cluster.AutoFork())
})

// TestCheckOfAnUpgrade: the new program of a member is checked while the member lives. It
// does not collide with it, and nobody hears of it.
func TestCheckOfAnUpgrade(t *testing.T) {
	t.Parallel()
	s := startServer(t)
	f := member(t, quick, Options{URL: s.URL, Node: "a"})
	joined := make(chan string, 10)
	t.Cleanup(f.OnJoin(func(m Member) { joined <- m.Node }))
	require.Equal(t, "a", clustertest.Await(t, joined, "itself"))
	c := upgrade.Check{Path: os.Args[0], Args: os.Args[:1], Timeout: clustertest.Patience, Env: append(os.Environ(),
		clustertest.ProgramEnv+"="+checked, "URL="+s.URL, "NAME="+f.Name())}
	require.NoError(t, c.Run(t.Context()))
	require.NoError(t, f.Conn().Flush()) // what it could have said is here
	require.Empty(t, joined)
}
