package cluster_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"reflect"
	"strings"
	"testing"

	"github.com/go-cluster/cluster"
	"github.com/go-cluster/cluster/internal/clustertest"
	"github.com/stretchr/testify/require"
)

var roleVars = []string{"NODE_WORKER_ID", "NODE_UNIQUE_ID", "NODE_CHANNEL_FD", "NODE_CHANNEL_SERIALIZATION_MODE", "NODE_GO_CLUSTER"}

// sayRole prints what the process takes itself for, and which of the variables
// that made it so are left in its environment.
var sayRole = clustertest.Program("say-role", func() {
	role := "master"
	if cluster.IsWorker() {
		role = fmt.Sprintf("worker %d slot %d", cluster.Worker.ID(), cluster.Worker.Slot())
	}
	if cluster.IsMaster() == cluster.IsWorker() || cluster.IsWorker() != (cluster.Worker != nil) {
		role = "confused"
	}
	if cluster.IsMaster() && stranded() {
		role += " that cannot fork"
	}
	if cluster.Parent != nil {
		role += " with a parent"
	}
	for _, k := range roleVars {
		if v, ok := os.LookupEnv(k); ok {
			role += " " + k + "=" + v
		}
	}
	fmt.Println(role)
})

// stranded reports whether no call makes a master of this process, and each says why.
func stranded() bool {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	cluster.SetupMaster(cluster.Options{Workers: 1, Exec: os.DevNull})
	_, err := cluster.Fork()
	for _, err := range []error{err, cluster.AutoFork(), cluster.Run(ctx), cluster.Scale(1)} {
		if !errors.Is(err, cluster.ErrNotMaster) || !strings.Contains(err.Error(), "was started as") {
			return false
		}
	}
	return true
}

// wrongRole calls in a worker what only a master can do.
var wrongRole = clustertest.Program("wrong-role", func() {
	check := func(ok bool, what string) {
		if !ok {
			cluster.Worker.Send("wrong: " + what)
		}
	}
	_, err := cluster.Fork()
	check(errors.Is(err, cluster.ErrNotMaster), "Fork")
	check(errors.Is(cluster.Run(cluster.Context()), cluster.ErrNotMaster), "Run")
	check(errors.Is(cluster.Disconnect(cluster.Context()), cluster.ErrNotMaster), "Disconnect")
	check(cluster.SetupMaster(cluster.Options{Workers: -1}) == nil, "SetupMaster")
	check(cluster.AutoFork() == nil, "AutoFork")
	check(len(cluster.Workers()) == 0, "Workers")
	cluster.EachWorker(func(*cluster.Process) { check(false, "EachWorker") })
	check(cluster.Worker.OSProcess() == nil, "OSProcess")
	check(cluster.Worker.PID() == os.Getpid(), "PID")
	check(!cluster.IsMaster(), "IsMaster")
	cluster.Worker.Send("done")
	select {}
})

// TestMasterCallsInAWorker: a worker cannot fork; what one main does for both
// roles does nothing.
func TestMasterCallsInAWorker(t *testing.T) {
	clustertest.WithMaster(t, wrongRole, cluster.Options{})
	said := make(chan string, 100)
	t.Cleanup(cluster.OnMessage(func(_ *cluster.Process, m cluster.Message) { said <- m.String() }))
	w := clustertest.Fork(t)
	require.Equal(t, `"done"`, clustertest.Await(t, said, "word from the worker"))
	require.ErrorIs(t, w.Ready(), cluster.ErrNotWorker, "Ready is the worker's own to call")
	require.Empty(t, clustertest.Children(w.PID()))
}

// TestNilWorker: every method can be called on cluster.Worker in a process that
// is no worker, and those that can fail say ErrNotWorker.
func TestNilWorker(t *testing.T) {
	require.Nil(t, cluster.Worker)
	v := reflect.ValueOf(cluster.Worker)
	for i := range v.NumMethod() {
		m, name := v.Method(i), v.Type().Method(i).Name
		var args []reflect.Value
		for j := range m.Type().NumIn() {
			if m.Type().IsVariadic() && j == m.Type().NumIn()-1 {
				break
			}
			args = append(args, reflect.Zero(m.Type().In(j)))
		}
		for _, r := range m.Call(args) {
			switch r := r.Interface().(type) {
			case error:
				require.ErrorIs(t, r, cluster.ErrNotWorker, name)
				require.ErrorContains(t, r, "cluster: "+name+":")
			case func():
				require.NotNil(t, r, name)
				r()
			}
		}
		if out := m.Type(); out.NumOut() > 0 && out.Out(out.NumOut()-1) == reflect.TypeFor[error]() {
			require.NotNil(t, m.Call(args)[out.NumOut()-1].Interface(), name)
		}
	}
	require.Equal(t, cluster.Dead, cluster.Worker.State())
	require.False(t, cluster.Worker.IsConnected())
	require.True(t, cluster.Worker.IsDead())
	require.Equal(t, -1, cluster.Worker.Slot())
}

// In a process that is no worker, Worker is nil; its methods may be called all
// the same.
func ExampleProcess_nil() {
	err := cluster.Worker.Send("to nobody")
	fmt.Println(errors.Is(err, cluster.ErrNotWorker))
	fmt.Println(cluster.Worker.ID(), cluster.Worker.State())

	// Output:
	// true
	// 0 dead
}

// A nil function is refused where it is registered.
func TestNilCallback(t *testing.T) {
	for name, register := range map[string]func(){
		"OnFork":     func() { cluster.OnFork(nil) },
		"OnMessage":  func() { cluster.OnMessage(nil) },
		"OnRequest":  func() { cluster.OnRequest(nil) },
		"OnShutdown": func() { cluster.OnShutdown(nil) },
		"OnUpgrade":  func() { cluster.OnUpgrade("", nil) },
		"Handle":     func() { cluster.Handle[int]("", nil) },
		"Respond":    func() { cluster.Respond[int, int]("", nil) },
	} {
		require.PanicsWithValue(t, "cluster: the function to call is nil", register, name)
	}
}
