package upgrade_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/go-cluster/cluster"
	"github.com/go-cluster/cluster/internal/clustertest"
	"github.com/stretchr/testify/require"
)

// An upgrade in the middle of something: see the table in the package's documentation.

// step is a file by which a test and its programs tell each other how far they are.
func step(name string) string { return os.Getenv("STEPS") + name }

// awaitStep waits in a program.
func awaitStep(name string) {
	for !exists(step(name)) {
		time.Sleep(pace)
	}
}

// steps makes the directory.
func steps(t *testing.T) (dir string, do func(name string)) {
	t.Helper()
	dir = t.TempDir() + string(filepath.Separator)
	return dir, func(name string) {
		t.Helper()
		require.NoError(t, os.WriteFile(dir+name, nil, 0o600))
	}
}

// halfScript is a worker that writes half a message and half a line of output, and reads
// nothing before the step "go".
const halfScript = `printf '{"cmd":"NODE_CLUSTER","act":"online","seq":0}\n{"cmd":"whole","text":"one ' >&3
printf 'a line '
while [ ! -e "$STEPS"go ]; do sleep 0.05; done
printf 'and two"}\n' >&3
printf 'that ends\n'
exec cat <&3 >"$STEPS"in`

// halves is the master of such a worker, to which it sends more than the channel takes.
var halves = clustertest.Program("upgrade halves", func() {
	fmt.Println("main", version)
	cluster.OnOnline(func(w *cluster.Process) {
		for n := range halfMessages {
			clustertest.Must(w.Send(numbered{strings.Repeat("x", 1000), n}))
		}
		fmt.Println("sent")
	})
	cluster.OnAdopt(func(w *cluster.Process) { clustertest.Must(w.Send(numbered{"last", halfMessages})) })
	cluster.OnMessage(func(_ *cluster.Process, m cluster.Message) { fmt.Println("message", m) })
	printEvents()
	poke()
	o := options()
	o.Workers, o.Exec, o.Args = 1, "/bin/sh", []string{"-c", halfScript}
	o.Output = func(*cluster.Process) (stdout, stderr io.Writer) { return prefixed{}, nil }
	clustertest.Must(cluster.SetupMaster(o))
	clustertest.Must(cluster.Run(context.Background()))
})

const halfMessages = 2000

// prefixed prints lines of a worker.
type prefixed struct{}

func (prefixed) Write(b []byte) (int, error) {
	fmt.Print("output ", string(b))
	return len(b), nil
}

// TestHalves: half a message that has come, half an outbox and half a line of output go
// over, and are completed.
func TestHalves(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	dir, do := steps(t)
	s.deploy("one")
	p := s.start(halves, "STEPS="+dir)
	p.Expect("sent")
	s.deploy("two")
	require.Equal(t, "<nil>", upgrade(p, clustertest.SigPoke))
	require.NotContains(t, p.Output(), "message")
	do("go")
	require.Equal(t, `{"cmd":"whole","text":"one and two"}`, printed(t, p, "message "))
	require.Equal(t, "a line that ends", printed(t, p, "output "))
	var got []byte
	clustertest.Eventually(t, func() bool {
		got, _ = os.ReadFile(dir + "in")
		return bytes.Contains(got, []byte(`"last"`))
	}, "the message of the new program")
	n := 0
	for lines := bufio.NewScanner(bytes.NewReader(got)); lines.Scan(); {
		var m numbered
		require.NoError(t, json.Unmarshal(lines.Bytes(), &m), "%s", lines.Bytes())
		if m.Cmd == "last" || len(m.Cmd) == 1000 {
			require.Equal(t, n, m.N)
			n++
		}
	}
	require.Equal(t, halfMessages+1, n)
	p.Signal(syscall.SIGKILL) // a stop would wait for the worker
}

// states is a master whose workers are each in another state.
var states = clustertest.Program("upgrade states", func() {
	if cluster.IsWorker() {
		switch cluster.Worker.Slot() {
		case 2:
			if !exists(step("heal")) {
				os.Exit(3)
			}
		case 3:
			awaitStep("start")
		}
		serveSlowly()
		return
	}
	fmt.Println("main", version)
	printEvents()
	poke()
	if version == "one" {
		go func() {
			awaitStep("drain")
			w := cluster.Workers()[0]
			go w.Disconnect(context.Background())
			for w.State() < cluster.Draining {
				time.Sleep(pace)
			}
			fmt.Println("draining", w.PID())
		}()
	}
	o := options()
	o.Workers, o.MaxBootFailures = 4, -1
	o.Backoff.Min = 4 * time.Second
	clustertest.Must(cluster.SetupMaster(o))
	clustertest.Must(cluster.Run(context.Background()))
})

// TestStates: a worker that drains finishes its request and is not replaced, one that is
// stopped goes on, one that starts comes up, and one that waits for its backoff is forked.
func TestStates(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	dir, do := steps(t)
	s.deploy("one")
	p := s.start(states, "STEPS="+dir)
	rests := p.All("ready 0 ", "ready 1 ", "address ", "dead 2 ", "dead 2 ")
	draining, stopped, address := rests[0], rests[1], rests[2]
	goOn := pause(t, stopped)
	c := asking(t, address, "/slow")
	clustertest.Eventually(t, func() bool { return exists(dir + "asked") }, "the request")
	do("drain")
	require.Equal(t, draining, p.Expect("draining "))

	s.deploy("two")
	require.Equal(t, "<nil>", upgrade(p, clustertest.SigPoke))
	require.Equal(t, draining+" draining", printed(t, p, "adopted 0 "))
	require.Equal(t, stopped+" ready", printed(t, p, "adopted 1 "))
	require.Contains(t, printed(t, p, "adopted 3 "), " online")

	do("heal")
	do("start")
	printed(t, p, "ready 3 ")
	require.Equal(t, printed(t, p, "fork 2 "), strings.Fields(printed(t, p, "ready 2 "))[0])
	do("answer")
	answered(t, c)
	require.Equal(t, draining+" drain 0", printed(t, p, "dead 0 "))
	goOn(syscall.SIGCONT)
	p.Terminate()
	require.Contains(t, p.Output(), "dead 1 "+stopped+" stop 0\n")
	require.NotContains(t, p.Output()[strings.LastIndex(p.Output(), "main "):], "fork 0", "it was to go")
}

// recycled is a master that replaces its worker of the start by age: its replacement starts
// when the step "start" has come, and the one that is replaced has a request to finish.
var recycled = clustertest.Program("upgrade recycled", func() {
	if cluster.IsWorker() {
		if cluster.Worker.ID() > 1 {
			fmt.Println("starts", cluster.Worker.ID())
			awaitStep("start")
		}
		serveSlowly()
		return
	}
	fmt.Println("main", version)
	printEvents()
	poke()
	o := options()
	o.Workers = 1
	if version == "one" { // later ones replace nobody
		o.Recycle = cluster.Recycle{Age: time.Second, MinAge: time.Millisecond}
	}
	clustertest.Must(cluster.SetupMaster(o))
	clustertest.Must(cluster.Run(context.Background()))
})

// TestRecycled: a recycling goes on, in each of its two halves: while the replacement starts,
// and while the worker that is replaced drains.
func TestRecycled(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	dir, do := steps(t)
	s.deploy("one")
	p := s.start(recycled, "STEPS="+dir)
	rests := p.All("ready 0 ", "address ")
	old := rests[0]
	c := asking(t, rests[1], "/slow")
	clustertest.Eventually(t, func() bool { return exists(dir + "asked") }, "the request")
	p.Expect("starts ")
	s.deploy("two")
	require.Equal(t, "<nil>", upgrade(p, clustertest.SigPoke))
	printed(t, p, "adopted 0 "+old+" ready")
	do("start")
	replacement := printed(t, p, "ready 0 ")
	require.NotEqual(t, old, replacement)
	s.deploy("three")
	require.Equal(t, "<nil>", upgrade(p, clustertest.SigPoke))
	require.NotContains(t, p.Output(), "dead ", "it has a request")
	do("answer")
	answered(t, c)
	clustertest.Eventually(t, func() bool { return strings.Contains(p.Output(), "dead 0 "+old+" recycle 0\n") }, "the end of the recycling")
	p.Terminate()
	require.Equal(t, 2, strings.Count(p.Output(), "dead "), "nobody else was replaced")
	require.Contains(t, p.Output(), "dead 0 "+replacement+" stop 0\n")
}
