//go:build unix

package node_test

import (
	"fmt"
	"strconv"
	"testing"

	"github.com/go-cluster/cluster"
	"github.com/go-cluster/cluster/internal/clustertest"
	"github.com/stretchr/testify/require"
)

// inspected is a cluster whose node workers have the options before their script.
func inspected(t *testing.T, env []string, options ...string) *clustertest.NodeCluster {
	t.Helper()
	c := clustertest.NewNodeCluster(t, cluster.Options{Env: env})
	o := cluster.Settings()
	o.Args = append(options, o.Args...)
	require.NoError(t, cluster.SetupMaster(o))
	return c
}

// TestNodeInspect: each worker listens for the debugger on a port of its own, which
// is its number behind the one that was said, as under a node primary.
func TestNodeInspect(t *testing.T) {
	for _, say := range []func(port string) (env, options []string){
		func(port string) (_, _ []string) { return nil, []string{"--inspect=" + port} },
		func(port string) (_, _ []string) { return nil, []string{"--inspect=127.0.0.1:" + port} },
		func(port string) (_, _ []string) { return nil, []string{"--inspect", "--inspect-port", port} },
		func(port string) (_, _ []string) { return []string{"NODE_OPTIONS=--inspect=" + port}, nil },
	} {
		port := clustertest.FreePort(t)
		env, options := say(strconv.Itoa(port))
		t.Run(fmt.Sprint(env, options), func(t *testing.T) {
			c := inspected(t, env, options...)
			for _, w := range c.ForkN(2) {
				want := fmt.Sprintf("ws://127.0.0.1:%d/", port+w.ID())
				require.Contains(t, c.Run(w, `return require('inspector').url()`).String(), want)
			}
		})
	}
}

// TestNodeInspectBrk: each of the workers that wait for the debugger, which are not
// online yet, can be had at its port.
func TestNodeInspectBrk(t *testing.T) {
	port := clustertest.FreePort(t)
	inspected(t, nil, "--inspect-brk="+strconv.Itoa(port))
	for range 2 {
		w, err := cluster.Fork()
		require.NoError(t, err)
		url := fmt.Sprintf("http://127.0.0.1:%d/json/version", port+w.ID())
		clustertest.Eventually(t, func() bool {
			_, err := clustertest.Get(url)
			return err == nil
		}, "an inspector at "+url)
		defer w.Kill()
	}
}
