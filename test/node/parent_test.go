//go:build unix

package node_test

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/go-cluster/cluster"
	"github.com/go-cluster/cluster/internal/clustertest"
	"github.com/stretchr/testify/require"
)

// childOfNode is a master that a node program has forked. It says ready when its
// worker does, answers messages, and ends some time after its parent has left it.
var childOfNode = clustertest.Program("child-of-node", func() {
	parent := cluster.Parent
	if cluster.IsWorker() {
		clustertest.Must(cluster.Worker.Send(fmt.Sprint("worker with a parent: ", parent != nil)))
		<-cluster.Context().Done()
		select {}
	}
	if parent == nil || parent.PID() != os.Getppid() || parent.ID() != 0 || parent.State() != cluster.Online {
		panic("this process has no parent")
	}
	left := make(chan struct{})
	parent.OnDisconnect(func(*cluster.Process) { close(left) })
	cluster.OnDisconnect(func(w *cluster.Process) {
		if w == parent {
			panic("the parent is taken for a worker")
		}
	})
	parent.OnMessage(func(p *cluster.Process, m cluster.Message) { clustertest.Must(p.Send(map[string]any{"echo": m})) })
	cluster.OnMessage(func(w *cluster.Process, m cluster.Message) {
		if w == parent {
			panic("the parent is taken for a worker")
		}
		clustertest.Must(parent.Send("ready"))
		clustertest.Must(parent.Send(m))
	})
	clustertest.Must(cluster.SetupMaster(cluster.Options{Workers: 1}))
	clustertest.Must(cluster.AutoFork())
	<-left
	if !errors.Is(parent.Send("late"), cluster.ErrClosed) || parent.IsConnected() {
		panic("the parent is still there")
	}
	clustertest.Must(cluster.Disconnect(cluster.Context()))
	fmt.Println("end")
})

// nodeParent forks the Go program as any program, and not as a worker.
const nodeParent = `
	const child = require('child_process').fork('unused', [], {execPath: process.env.GO_PROGRAM, serialization: process.env.SERIALIZATION,
		env: {...process.env, CLUSTER_TEST_PROGRAM: process.env.CHILD}});
	child.send('early', () => {}); // one that leaves at once may be gone
	child.on('message', (m) => {
		console.log('message', JSON.stringify(m));
		if (m === 'ready') child.send({hello: 1}, () => child.send(null));
		if (m && m.echo === null) child.disconnect();
	});
	child.on('disconnect', () => console.log('disconnect'));
	child.on('exit', (code, signal) => console.log('exit', code, signal));`

// startParent starts node with the child.
func startParent(t *testing.T, child, serialization string) *clustertest.Proc {
	t.Helper()
	script := filepath.Join(t.TempDir(), "parent.js")
	require.NoError(t, os.WriteFile(script, []byte(nodeParent), 0o600))
	return clustertest.StartCmd(t, exec.Command(clustertest.NodeBinary(t), script), "node parent",
		"GO_PROGRAM="+os.Args[0], "CHILD="+child, "SERIALIZATION="+serialization)
}

// TestNodeParent: a Go master that node's child_process.fork has made, as PM2 does
// in its fork mode, tells its parent that it is ready, hears from it, and goes on
// when it is left. Its workers have no parent.
func TestNodeParent(t *testing.T) {
	p := startParent(t, childOfNode, "json")
	require.Equal(t, []string{"", "", "", "", ""}, p.All(`message "ready"`, `message "worker with a parent: false"`,
		`message {"echo":"early"}`, `message {"echo":{"hello":1}}`, `message {"echo":null}`))
	require.Equal(t, []string{"", "", ""}, p.All("disconnect", "end", "exit 0 null"))
	require.Zero(t, p.Exit())
	p.GroupEmpty()
}

// leaverOfNode closes the channel itself.
var leaverOfNode = clustertest.Program("leaver-of-node", func() {
	parent := cluster.Parent
	if parent == nil {
		fmt.Println("no parent")
		return
	}
	if err := parent.Request(cluster.Context(), 1, nil); !errors.Is(err, cluster.ErrNotSupported) {
		panic(err)
	}
	if err := parent.Kill(); !errors.Is(err, cluster.ErrNotSupported) {
		panic(err)
	}
	if err := parent.Ready(); !errors.Is(err, cluster.ErrNotWorker) {
		panic(err)
	}
	clustertest.Must(parent.Send("bye"))
	clustertest.Must(parent.Disconnect(cluster.Context()))
	fmt.Println("left")
})

// TestNodeParentLeft: a child says farewell, closes the channel, and what it has
// said before arrives.
func TestNodeParentLeft(t *testing.T) {
	p := startParent(t, leaverOfNode, "json")
	require.Equal(t, []string{"", "", "", ""}, p.All(`message "bye"`, "left", "disconnect", "exit 0 null"))
	require.Zero(t, p.Exit())
}

// TestNodeParentAdvanced: with a parent that does not speak JSON, Parent is nil.
func TestNodeParentAdvanced(t *testing.T) {
	p := startParent(t, leaverOfNode, "advanced")
	require.Equal(t, []string{"", ""}, p.All("no parent", "exit 0 null"))
	require.Zero(t, p.Exit())
}
