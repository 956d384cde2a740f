package clustertest

import (
	"bufio"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/go-cluster/cluster"
	"github.com/stretchr/testify/require"
)

// Event waits for the next line of that kind.
func (p *Proc) Event(kind string) Event {
	p.t.Helper()
	return ParseEvent(p.Expect(kind + " "))
}

// Ups waits for n workers to be up, and sorts them by slot.
func (p *Proc) Ups(n int) []Event {
	p.t.Helper()
	all := make([]Event, n)
	for range n {
		e := p.Event("up")
		all[e.Slot] = e
	}
	return all
}

// All waits for a line with each of the prefixes, in any order. It returns what follows the
// prefixes.
func (p *Proc) All(prefixes ...string) []string {
	p.t.Helper()
	rests, found := make([]string, len(prefixes)), make([]bool, len(prefixes))
	for slices.Contains(found, false) {
		line := Await(p.t, p.lines, "lines "+strings.Join(prefixes, ", "))
		for i, prefix := range prefixes {
			if rest, ok := strings.CutPrefix(line, prefix); ok && !found[i] {
				rests[i], found[i] = rest, true
				break // one line is one event: it is not also the second of two alike
			}
		}
	}
	return rests
}

// Dead waits for a death and checks why.
func (p *Proc) Dead(pid int, reason cluster.Reason) {
	p.t.Helper()
	e := p.Event("dead")
	require.Equal(p.t, pid, e.PID)
	require.Equal(p.t, string(reason), e.Rest[0])
}

// Terminate ends a supervisor as a service manager does.
func (p *Proc) Terminate() {
	p.t.Helper()
	p.Signal(syscall.SIGTERM)
	require.Zero(p.t, p.Exit())
	p.GroupEmpty()
}

// Stats asks a supervisor for its Stats.
func (p *Proc) Stats() (s cluster.Snapshot) {
	p.t.Helper()
	p.Signal(SigPoke)
	require.NoError(p.t, json.Unmarshal([]byte(p.Expect("stats ")), &s))
	return s
}

// Proc is a process of its own: usually a master with workers.
type Proc struct {
	t     testing.TB
	Cmd   *exec.Cmd
	lines chan string
	mu    sync.Mutex
	log   strings.Builder
	read  chan struct{} // closed when all its output is read
	done  chan struct{} // closed when it has exited, and all its output is read
	group processGroup  // the program and its workers
}

// Start runs a program in a process of its own, with its own process group.
func Start(t testing.TB, programName string, env ...string) *Proc {
	t.Helper()
	return StartCmd(t, exec.Command(os.Args[0]), programName, env...)
}

// StartCmd is Start with a command of the caller's, which runs the test binary.
func StartCmd(t testing.TB, cmd *exec.Cmd, programName string, env ...string) *Proc {
	t.Helper()
	p := &Proc{t: t, Cmd: cmd, lines: make(chan string, 10000), read: make(chan struct{}), done: make(chan struct{})}
	p.Cmd.Env = append(append(os.Environ(), ProgramEnv+"="+programName), env...)
	ownGroup(p.Cmd)
	r, w, err := os.Pipe()
	require.NoError(t, err)
	p.Cmd.Stdout, p.Cmd.Stderr = w, w
	require.NoError(t, p.Cmd.Start())
	p.group = groupOf(p.Cmd.Process)
	go p.scan(r)
	go p.wait(w)
	t.Cleanup(func() {
		p.group.kill()
		<-p.done
		if t.Failed() {
			t.Logf("output of %s:\n%s", programName, p.Output())
		}
	})
	return p
}

// endOfOutput is written by the test behind all that a program has printed. The end of the pipe
// would be no sign of that, since other processes may have the pipe too, and live on.
const endOfOutput = "\x00 the end of the output \x00"

// scan reads what the program and its workers print.
func (p *Proc) scan(r *os.File) {
	defer r.Close()
	ended := sync.OnceFunc(func() { close(p.read) })
	defer ended()
	for s := bufio.NewScanner(r); s.Scan(); {
		line, last := strings.CutSuffix(s.Text(), endOfOutput)
		if line != "" || !last {
			p.mu.Lock()
			fmt.Fprintln(&p.log, line)
			p.mu.Unlock()
			p.lines <- line
		}
		if last {
			ended()
		}
	}
}

// wait waits for the end of the program, and until all that it has printed to w is read: a test
// that waits for the exit looks at the output next.
func (p *Proc) wait(w *os.File) {
	p.Cmd.Wait()
	go func() {
		fmt.Fprintln(w, endOfOutput)
		w.Close()
	}()
	select {
	case <-p.read:
	case <-time.After(Patience): // the test does not take the lines
	}
	close(p.done)
}

// Output returns all that the program and its workers have printed.
func (p *Proc) Output() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.log.String()
}

// Expect waits for a line that begins with prefix and returns the rest of it.
func (p *Proc) Expect(prefix string) string {
	p.t.Helper()
	for {
		if rest, ok := strings.CutPrefix(Await(p.t, p.lines, "line "+prefix), prefix); ok {
			return strings.TrimSpace(rest)
		}
	}
}

// Signal sends a signal to the program.
func (p *Proc) Signal(sig os.Signal) {
	p.t.Helper()
	Kill(p.t, p.Cmd.Process.Pid, sig.(syscall.Signal))
}

// Exit waits for the end and returns the exit status, -1 after a signal.
func (p *Proc) Exit() int {
	p.t.Helper()
	Await(p.t, p.done, "exit")
	return p.Cmd.ProcessState.ExitCode()
}

// GroupEmpty waits until no process of the program's group is left.
func (p *Proc) GroupEmpty() {
	p.t.Helper()
	Eventually(p.t, func() bool { return !p.group.runs() }, "the end of all its processes")
}
