package clustertest

import (
	"context"
	"os"
	"os/exec"
	"runtime"
	"syscall"
	"testing"

	"github.com/go-cluster/cluster"
	"github.com/stretchr/testify/require"
)

// CommandWorker is a worker that does what the master asks it to, and nothing by
// itself.
var CommandWorker = Program("command worker", func() {
	ServeOrders()
	select {}
})

// Order is a request to a command worker. Its cmd is the verb.
type Order struct {
	Cmd  string   `json:"cmd"`
	Code int      `json:"code,omitempty"`
	Env  []string `json:"env,omitempty"`
	Text string   `json:"text,omitempty"`
}

// About is what a process can say about itself.
type About struct {
	Args        []string
	Exe, Dir    string
	Env         map[string]string
	UID, GID    int
	Groups      []int
	MaxProcs    int
	Slot, ID    int
	Descriptors []string
}

// ServeOrders answers the orders of the command worker.
func ServeOrders() {
	cluster.Respond("about", func(_ *cluster.Process, o Order) (About, error) { return aboutSelf(o.Env), nil })
	cluster.Respond("exit", func(_ *cluster.Process, o Order) (any, error) {
		os.Exit(o.Code)
		return nil, nil
	})
	cluster.Respond("listen", func(*cluster.Process, Order) (string, error) {
		ln, err := cluster.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return "", err
		}
		go ln.Accept()
		return ln.Addr().String(), nil
	})
	cluster.Respond("hold", func(*cluster.Process, Order) (string, error) {
		ln, err := cluster.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return "", err
		}
		return ln.Addr().String(), nil
	})
	cluster.Respond("ready", func(w *cluster.Process, _ Order) (any, error) { return nil, w.Ready() })
	cluster.Respond("print", func(_ *cluster.Process, o Order) (any, error) {
		os.Stdout.WriteString(o.Text)
		return nil, nil
	})
	// child starts a process that inherits all it can and outlives the worker.
	cluster.Respond("child", func(_ *cluster.Process, o Order) (int, error) {
		c := exec.Command("/bin/sh", "-c", o.Text)
		c.Stdin, c.Stdout, c.Stderr = os.Stdin, os.Stdout, os.Stderr
		if err := c.Start(); err != nil {
			return 0, err
		}
		return c.Process.Pid, nil
	})
	cluster.Respond("disconnect", func(w *cluster.Process, _ Order) (any, error) {
		go w.Disconnect(context.Background())
		return nil, nil
	})
	cluster.Respond("kill", func(w *cluster.Process, _ Order) (any, error) {
		go w.Kill()
		return nil, nil
	})
}

func aboutSelf(env []string) About {
	a := About{
		Args: os.Args, UID: syscall.Getuid(), GID: syscall.Getgid(), MaxProcs: runtime.GOMAXPROCS(0),
		Slot: cluster.Worker.Slot(), ID: cluster.Worker.ID(), Descriptors: Descriptors(), Env: make(map[string]string),
	}
	a.Exe, _ = os.Readlink("/proc/self/exe")
	a.Dir, _ = os.Getwd()
	a.Groups, _ = syscall.Getgroups()
	for _, k := range env {
		if v, ok := os.LookupEnv(k); ok {
			a.Env[k] = v
		}
	}
	return a
}

// Ask gives an order to a worker and returns its answer.
func Ask[A any](t *testing.T, w *cluster.Process, o Order) (answer A) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), Patience)
	defer cancel()
	require.NoError(t, w.Request(ctx, o, &answer), "%s to worker %d", o.Cmd, w.ID())
	return answer
}

// Tell gives an order that the worker may not live to answer.
func Tell(t *testing.T, w *cluster.Process, o Order) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), Patience)
	defer cancel()
	if err := w.Request(ctx, o, nil); err != nil {
		require.ErrorIs(t, err, cluster.ErrClosed)
	}
}
