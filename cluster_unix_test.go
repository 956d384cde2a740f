//go:build unix

package cluster_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/go-cluster/cluster"
	"github.com/go-cluster/cluster/internal/clustertest"
	"github.com/stretchr/testify/require"
)

// holder gives its channel to a child that never ends, talks, and ends itself.
var holder = clustertest.Program("holder", func() {
	fd, err := syscall.Dup(3)
	clustertest.Must(err)
	c := exec.Command("/bin/sleep", "1000")
	c.ExtraFiles = []*os.File{os.NewFile(uintptr(fd), "channel")}
	clustertest.Must(c.Start())
	cluster.Worker.Send(c.Process.Pid)
	for i := range chatter {
		cluster.Worker.Send(i)
	}
	cluster.Worker.Disconnect(context.Background())
})

// TestDeathComesAfterTheMessages: even if a grandchild holds the channel open,
// a worker's death is reported, and after all that it said.
func TestDeathComesAfterTheMessages(t *testing.T) {
	clustertest.WithMaster(t, holder, cluster.Options{})
	rec := clustertest.NewRecorder()
	t.Cleanup(cluster.OnMessage(func(_ *cluster.Process, m cluster.Message) { rec.Add("%s", m) }))
	t.Cleanup(cluster.OnDisconnect(func(*cluster.Process) { rec.Add("disconnect") }))
	t.Cleanup(cluster.OnDeath(func(_ *cluster.Process, e cluster.Exit) { rec.Add("death %d %v", e.Code, e.Voluntary) }))
	clustertest.Fork(t)
	rec.Until(t, "death")
	lines := rec.All()
	require.NoError(t, syscall.Kill(clustertest.Atoi(lines[0]), syscall.SIGKILL), "the grandchild lives")
	var want []string
	for i := range chatter {
		want = append(want, strconv.Itoa(i))
	}
	require.Equal(t, append(want, "disconnect", "death 0 true"), lines[1:])
}

// TestOptionsCredential: workers run as the user and with the groups that are
// named, and with no other group; without the privilege Fork says so.
func TestOptionsCredential(t *testing.T) {
	clustertest.WithMaster(t, clustertest.CommandWorker, cluster.Options{Credential: &cluster.Credential{UID: 65534, GID: 65533, Groups: []uint32{65532}}, Dir: "/"})
	w, err := cluster.Fork()
	if os.Getuid() != 0 {
		require.ErrorIs(t, err, syscall.EPERM)
		return
	}
	require.NoError(t, err)
	self := clustertest.Ask[clustertest.About](t, w, clustertest.Order{Cmd: "about", Env: []string{"HOME", "USER", "LOGNAME"}})
	require.Equal(t, []int{65534, 65533}, []int{self.UID, self.GID})
	want := map[string]string{"HOME": "/"}
	if u, err := user.LookupId("65534"); err == nil {
		want = map[string]string{"HOME": u.HomeDir, "USER": u.Username, "LOGNAME": u.Username}
	}
	require.Equal(t, want, self.Env)
	require.Subset(t, []int{65532, 65533}, self.Groups)
	// The sockets are the master's to open, and it can still end the worker.
	clustertest.Ask[string](t, w, clustertest.Order{Cmd: "listen"})
	require.NoError(t, w.Disconnect(clustertest.Within(t, clustertest.Patience)))

	o := cluster.Settings()
	o.Credential = &cluster.Credential{UID: 65534, GID: 65533}
	require.NoError(t, cluster.SetupMaster(o))
	self = clustertest.Ask[clustertest.About](t, clustertest.Fork(t), clustertest.Order{Cmd: "about"})
	require.Subset(t, []int{65533}, self.Groups, "the master's supplementary groups are dropped")
}

// TestOutputHeldByGrandchild: a grandchild that keeps the pipe open does not
// delay the worker's death for as long as it lives, and what it writes later
// is still copied.
func TestOutputHeldByGrandchild(t *testing.T) {
	out := clustertest.NewLineWriter()
	clustertest.WithMaster(t, clustertest.CommandWorker, cluster.Options{Output: out.Both})
	dead := clustertest.Deaths(t)
	w := clustertest.Fork(t)
	hold := filepath.Join(clustertest.TempDir(t), "hold")
	require.NoError(t, syscall.Mkfifo(hold, 0o600))
	clustertest.Ask[int](t, w, clustertest.Order{Cmd: "child", Text: "echo begin; read line <" + hold + "; echo $line"})
	require.Equal(t, "begin", clustertest.Await(t, out.Lines, "output of the grandchild"))
	require.NoError(t, w.Disconnect(clustertest.Within(t, clustertest.Patience)))
	clustertest.Await(t, dead, "death")
	require.NoError(t, os.WriteFile(hold, []byte("later\n"), 0))
	require.Equal(t, "later", clustertest.Await(t, out.Lines, "output after the worker's death"))
}

// versionMaster is a master that prints, for each worker, the pid and the file
// that it runs; its workers are the program of the environment.
var versionMaster = clustertest.Program("version-master", func() {
	clustertest.Must(cluster.SetupMaster(cluster.Options{Workers: 1, Env: []string{clustertest.ProgramEnv + "=" + clustertest.CommandWorker}}))
	cluster.OnOnline(func(w *cluster.Process) {
		var a clustertest.About
		clustertest.Must(w.Request(context.Background(), clustertest.Order{Cmd: "about"}, &a))
		fmt.Println("worker", w.PID(), a.Slot)
	})
	cluster.OnError(func(_ *cluster.Process, err error) { fmt.Println("error", err) })
	clustertest.Must(cluster.Run(context.Background()))
})

// TestRespawnRunsTheMastersBinary: after another program was put in the place
// of the binary, or nothing, a crashed worker is still replaced by the version
// that the master runs.
func TestRespawnRunsTheMastersBinary(t *testing.T) {
	t.Parallel()
	other, err := exec.LookPath("false")
	require.NoError(t, err)
	binary := filepath.Join(clustertest.TempDir(t), "server")
	clustertest.CopyBinary(t, binary)
	p := clustertest.StartCmd(t, exec.Command(binary), versionMaster)
	pid := func() (pid int) {
		_, err := fmt.Sscan(p.Expect("worker"), &pid, new(int))
		require.NoError(t, err)
		return pid
	}
	first := pid()
	require.NoError(t, os.Remove(binary))
	require.NoError(t, os.Symlink(other, binary))
	require.NoError(t, syscall.Kill(first, syscall.SIGKILL))
	second := pid()
	require.NotEqual(t, first, second)
	require.NoError(t, os.Remove(binary))
	require.NoError(t, syscall.Kill(second, syscall.SIGKILL))
	require.NotEqual(t, second, pid())
	p.Signal(syscall.SIGTERM)
	require.Zero(t, p.Exit())
	p.GroupEmpty()
	require.NotContains(t, p.Output(), "error")
}

// runRole runs sayRole with exactly these role variables, and with file as
// descriptor 3.
func runRole(t *testing.T, file *os.File, env ...string) (stdout, stderr string) {
	t.Helper()
	c := exec.Command(os.Args[0])
	c.Env = append(os.Environ(), clustertest.ProgramEnv+"="+sayRole)
	c.Env = append(c.Env, env...)
	if file != nil {
		c.ExtraFiles = []*os.File{file}
	}
	out, err := c.Output()
	if exit := new(exec.ExitError); errors.As(err, &exit) {
		return strings.TrimSpace(string(out)), string(exit.Stderr)
	}
	require.NoError(t, err)
	return strings.TrimSpace(string(out)), ""
}

// socket returns one end of a new socketpair or a fresh socket as a file.
func socket(t *testing.T, domain, typ int, pair bool) (file, peer *os.File) {
	t.Helper()
	var fds [2]int
	var err error
	if pair {
		fds, err = syscall.Socketpair(domain, typ, 0)
	} else {
		fds[0], err = syscall.Socket(domain, typ, 0)
	}
	require.NoError(t, err)
	file = os.NewFile(uintptr(fds[0]), "socket")
	syscall.CloseOnExec(fds[0])
	t.Cleanup(func() { file.Close() })
	if pair {
		peer = os.NewFile(uintptr(fds[1]), "peer")
		syscall.CloseOnExec(fds[1])
		t.Cleanup(func() { peer.Close() })
	}
	return file, peer
}

// TestRoleNeedsALiveChannel: the variables alone, leaked into the environment
// of some other process, make nobody a worker. All of them are unset. Who has lost
// its channel becomes no master either: it would fork the like of itself.
func TestRoleNeedsALiveChannel(t *testing.T) {
	plain, err := os.Create(filepath.Join(clustertest.TempDir(t), "plain"))
	require.NoError(t, err)
	defer plain.Close()
	pipe, pipeIn, err := os.Pipe()
	require.NoError(t, err)
	defer pipe.Close()
	defer pipeIn.Close()
	udp, _ := socket(t, syscall.AF_INET, syscall.SOCK_DGRAM, false)
	tcp, _ := socket(t, syscall.AF_INET, syscall.SOCK_STREAM, false)
	gram, _ := socket(t, syscall.AF_UNIX, syscall.SOCK_DGRAM, true)
	ln, err := net.Listen("unix", filepath.Join(clustertest.TempDir(t), "sock"))
	require.NoError(t, err)
	defer ln.Close()
	listening, err := ln.(*net.UnixListener).File()
	require.NoError(t, err)
	defer listening.Close()
	live, _ := socket(t, syscall.AF_UNIX, syscall.SOCK_STREAM, true)
	named, err := net.Dial("unix", ln.Addr().String())
	require.NoError(t, err)
	defer named.Close()
	journal, err := named.(*net.UnixConn).File()
	require.NoError(t, err)
	defer journal.Close()

	both := []string{"NODE_WORKER_ID=7", "NODE_UNIQUE_ID=7", "NODE_CHANNEL_SERIALIZATION_MODE=json", `NODE_GO_CLUSTER={"version":1,"slot":3}`}
	for _, c := range []struct {
		name string
		file *os.File
		env  []string
	}{
		{"no variables", nil, nil},
		{"what node leaves to its children", nil, []string{"NODE_WORKER_ID=7", `NODE_GO_CLUSTER={"version":1,"slot":3}`}},
		{"no channel variable", live, both},
		{"empty channel variable", live, append(both, "NODE_CHANNEL_FD=")},
		{"forked by node", live, []string{"NODE_CHANNEL_FD=3", "NODE_CHANNEL_SERIALIZATION_MODE=json"}},
		{"forked by a node worker of ours", live, []string{"NODE_CHANNEL_FD=3", "NODE_WORKER_ID=7", `NODE_GO_CLUSTER={"version":1,"slot":3}`}},
		{"started by node, with another serialization", live, []string{"NODE_CHANNEL_FD=3", "NODE_CHANNEL_SERIALIZATION_MODE=advanced"}},
		{"started by node, with a log's socket", journal, []string{"NODE_CHANNEL_FD=3"}},
		{"id not a number", live, []string{"NODE_WORKER_ID=x", "NODE_CHANNEL_FD=3"}},
		{"id zero", live, []string{"NODE_WORKER_ID=0", "NODE_CHANNEL_FD=3"}},
		{"channel not a number", live, append(both, "NODE_CHANNEL_FD=three")},
		{"channel negative", live, append(both, "NODE_CHANNEL_FD=-1")},
		{"channel not open", nil, append(both, "NODE_CHANNEL_FD=99")},
		{"regular file", plain, append(both, "NODE_CHANNEL_FD=3")},
		{"pipe", pipe, append(both, "NODE_CHANNEL_FD=3")},
		{"udp socket", udp, append(both, "NODE_CHANNEL_FD=3")},
		{"tcp socket", tcp, append(both, "NODE_CHANNEL_FD=3")},
		{"unix datagram socket", gram, append(both, "NODE_CHANNEL_FD=3")},
		{"unix listener", listening, append(both, "NODE_CHANNEL_FD=3")},
		{"a log's socket", journal, append(both, "NODE_CHANNEL_FD=3")},
		{"standard output", live, append(both, "NODE_CHANNEL_FD=1")},
	} {
		t.Run(c.name, func(t *testing.T) {
			out, _ := runRole(t, c.file, c.env...)
			want := "master"
			if strings.Contains(strings.Join(c.env, " "), "NODE_UNIQUE_ID") || strings.HasPrefix(c.name, "id ") {
				want += " that cannot fork"
			}
			if strings.HasPrefix(c.name, "forked ") {
				want += " with a parent"
			}
			require.Equal(t, want, out)
		})
	}
}

// TestRoleFromTheEnvironment: our own id variable and node's both make a worker
// of a process that has a channel, ours first; it says online on the channel
// before main runs.
func TestRoleFromTheEnvironment(t *testing.T) {
	for _, c := range []struct {
		name, want, online string
		env                []string
	}{
		{"ours", "worker 7 slot 3", `"go":{"version":1,"saysReady":true`, []string{"NODE_WORKER_ID=7", "NODE_UNIQUE_ID=8", `NODE_GO_CLUSTER={"version":1,"slot":3}`}},
		{"a node primary's", "worker 8 slot -1", "", []string{"NODE_UNIQUE_ID=8", "NODE_CHANNEL_SERIALIZATION_MODE=json"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			file, peer := socket(t, syscall.AF_UNIX, syscall.SOCK_STREAM, true)
			out, _ := runRole(t, file, append(c.env, "NODE_CHANNEL_FD=3")...)
			require.Equal(t, c.want, out)
			line, err := bufio.NewReader(peer).ReadString('\n')
			require.NoError(t, err)
			require.Contains(t, line, `"cmd":"NODE_CLUSTER"`)
			require.Contains(t, line, `"act":"online"`)
			require.Contains(t, line, c.online)
			if c.online == "" {
				require.NotContains(t, line, `"go"`, "a node primary is told nothing that it does not know")
			}
		})
	}
}

// TestRoleRefusesAnotherSerialization: going on as a master would fork workers
// of its own, each of which does the same.
func TestRoleRefusesAnotherSerialization(t *testing.T) {
	file, _ := socket(t, syscall.AF_UNIX, syscall.SOCK_STREAM, true)
	out, stderr := runRole(t, file, "NODE_UNIQUE_ID=8", "NODE_CHANNEL_FD=3", "NODE_CHANNEL_SERIALIZATION_MODE=advanced")
	require.Empty(t, out)
	require.Contains(t, stderr, `serialization "advanced"`)
}

// TestGrandchildIsNoWorker: what a worker starts itself inherits neither the
// role nor the channel.
func TestGrandchildIsNoWorker(t *testing.T) {
	out := clustertest.NewLineWriter()
	clustertest.WithMaster(t, clustertest.CommandWorker, cluster.Options{Output: out.Both})
	w := clustertest.Fork(t)
	self := clustertest.Ask[clustertest.About](t, w, clustertest.Order{Cmd: "about", Env: roleVars})
	require.Empty(t, self.Env, "the worker's own environment")
	require.Len(t, self.Descriptors, 1, "the channel alone")

	clustertest.Ask[int](t, w, clustertest.Order{Cmd: "child", Text: clustertest.ProgramEnv + "=" + sayRole + " " + os.Args[0]})
	require.Equal(t, "master", clustertest.Await(t, out.Lines, "the grandchild's role"))
	// sh gets what the worker's child gets.
	clustertest.Ask[int](t, w, clustertest.Order{Cmd: "child", Text: "if (: >&3) 2>/dev/null; then echo open; else echo closed; fi"})
	require.Equal(t, "closed", clustertest.Await(t, out.Lines, "the grandchild's descriptor 3"))
}

// TestWorkersName is the program's for ps and pgrep, not that of the descriptor
// by which it is executed.
func TestWorkersName(t *testing.T) {
	clustertest.WithMaster(t, clustertest.CommandWorker, cluster.Options{})
	w := clustertest.Fork(t)
	clustertest.Ask[clustertest.About](t, w, clustertest.Order{Cmd: "about"})
	name, err := os.ReadFile(fmt.Sprintf("/proc/%d/comm", w.PID()))
	if os.IsNotExist(err) {
		t.Skip("no /proc")
	}
	require.NoError(t, err)
	want := filepath.Base(os.Args[0])
	require.Equal(t, want[:min(15, len(want))], strings.TrimSpace(string(name)))
}

// TestStdin of a worker is empty, or Options.Stdin.
func TestStdin(t *testing.T) {
	out := clustertest.NewLineWriter()
	clustertest.WithMaster(t, clustertest.CommandWorker, cluster.Options{Output: out.Both})
	clustertest.Ask[int](t, clustertest.Fork(t), clustertest.Order{Cmd: "child", Text: "cat; echo end"})
	require.Equal(t, "end", clustertest.Await(t, out.Lines, "the end of the null device"))

	r, in, err := os.Pipe()
	require.NoError(t, err)
	defer r.Close()
	in.WriteString("input\n")
	in.Close()
	o := cluster.Settings()
	o.Stdin = r
	require.NoError(t, cluster.SetupMaster(o))
	clustertest.Ask[int](t, clustertest.Fork(t), clustertest.Order{Cmd: "child", Text: "cat"})
	require.Equal(t, "input", clustertest.Await(t, out.Lines, "what there is to read"))
}

// brokenLog is a master that logs to nobody before it stops.
var brokenLog = clustertest.Program("broken-log", func() {
	clustertest.Must(cluster.SetupMaster(cluster.Options{Workers: 1, Env: []string{clustertest.ProgramEnv + "=" + clustertest.CommandWorker}}))
	cluster.OnOnline(func(w *cluster.Process) {
		os.Stdout.WriteString("a line\n")
		clustertest.Must(w.Request(context.Background(), clustertest.Order{Cmd: "print", Text: "a line\n"}, nil))
		clustertest.StopSelf()
	})
	clustertest.Must(cluster.Run(context.Background()))
})

// TestReaderOfTheLogGoes: neither a worker nor the master dies of it.
func TestReaderOfTheLogGoes(t *testing.T) {
	r, w, err := os.Pipe()
	require.NoError(t, err)
	r.Close()
	defer w.Close()
	c := exec.Command(os.Args[0])
	c.Env = append(os.Environ(), clustertest.ProgramEnv+"="+brokenLog)
	var said strings.Builder
	c.Stdout, c.Stderr = w, &said
	require.NoError(t, c.Run(), &said)
}

// The connections of a worker are those of now, and not of the last heartbeat, also in
// the worker that is its successor.
func TestStatsAreOfNow(t *testing.T) {
	w := clustertest.SocketWorkers(t, 1, cluster.Options{Watchdog: cluster.Watchdog{Interval: time.Hour}})[0]
	for range 2 {
		addr := clustertest.MustListen(t, w, "tcp", "127.0.0.1:0", cluster.ListenConfig{}).Addr
		first, second := dialGreeted(t, addr), dialGreeted(t, addr)
		is := func(accepted, active int64) func() bool {
			return func() bool {
				s := cluster.Stats().Workers
				return len(s) == 1 && s[0].PID == w.PID() && s[0].Accepted == accepted && s[0].Active == active
			}
		}
		clustertest.Eventually(t, is(2, 2), "two open connections")
		first.Close()
		clustertest.Eventually(t, is(2, 1), "one open connection")
		second.Close()
		clustertest.Eventually(t, is(2, 0), "no open connection")
		clustertest.KillAndWait(t, w)
		w = clustertest.Fork(t)
	}
}
