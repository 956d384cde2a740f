package sharded_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
	"unsafe"

	"github.com/go-cluster/cluster"
	"github.com/go-cluster/cluster/internal/clustertest"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// answering is a worker that answers each connection with its slot and closes it.
var answering = clustertest.Program("answering", func() {
	ln, err := cluster.Listen("tcp", "127.0.0.1:0")
	clustertest.Must(err)
	answerAll(ln)
})

func answerAll(ln net.Listener) {
	for {
		c, err := ln.Accept()
		clustertest.Must(err)
		go func() {
			defer c.Close()
			fmt.Fprintln(c, cluster.Worker.Slot())
		}()
	}
}

// begin starts n workers and returns where they listen.
func begin(t testing.TB, n int, s cluster.Scheduling, more cluster.Options) string {
	t.Helper()
	more.Workers, more.Scheduling = n, s
	clustertest.WithMaster(t, answering, more)
	addrs, ready := make(chan string, 100), make(chan bool, 100)
	t.Cleanup(cluster.OnListening(func(_ *cluster.Process, addr net.Addr) { addrs <- addr.String() }))
	t.Cleanup(cluster.OnReady(func(*cluster.Process) { ready <- true }))
	require.NoError(t, cluster.AutoFork())
	for range n {
		clustertest.Await(t, ready, "ready")
	}
	return clustertest.Await(t, addrs, "listening")
}

// ask connects and returns the slot that answers.
func ask(addr string) (slot int, err error) {
	c, err := net.DialTimeout("tcp", addr, clustertest.Patience)
	if err != nil {
		return -1, err
	}
	return readSlot(c)
}

// readSlot reads what a worker says, and closes c.
func readSlot(c net.Conn) (slot int, err error) {
	defer c.Close()
	c.SetDeadline(time.Now().Add(clustertest.Patience))
	line, err := bufio.NewReader(c).ReadString('\n')
	if err != nil {
		return -1, err
	}
	return clustertest.Atoi(strings.TrimSpace(line)), nil
}

// slots is how often each slot answers n times.
func slots(t *testing.T, addr string, n int) (spread map[int]int) {
	t.Helper()
	spread = make(map[int]int)
	for range n {
		slot, err := ask(addr)
		require.NoError(t, err)
		spread[slot]++
	}
	return spread
}

// each waits until each of n slots has answered.
func each(t *testing.T, addr string, n int) {
	t.Helper()
	seen := make(map[int]bool)
	clustertest.Eventually(t, func() bool {
		slot, err := ask(addr)
		require.NoError(t, err)
		require.Less(t, slot, n)
		seen[slot] = true
		return len(seen) == n
	}, "an answer of each slot")
}

func listener(t *testing.T) cluster.ListenerStats {
	t.Helper()
	all := cluster.Stats().Listeners
	require.Len(t, all, 1)
	return all[0]
}

// bySlot is the worker that has the slot.
func bySlot(t *testing.T, slot int) (found *cluster.Process) {
	t.Helper()
	clustertest.Eventually(t, func() bool {
		for _, w := range cluster.Workers() {
			if w.Slot() == slot && w.State() == cluster.Ready {
				found = w
				return true
			}
		}
		return false
	}, "a worker in the slot")
	return found
}

// Each worker has as much as the next, nearly, and nobody else gets the address.
func TestSpread(t *testing.T) {
	addr := begin(t, 4, cluster.Sharded, cluster.Options{})
	l := listener(t)
	require.Equal(t, "Sharded", l.Scheduling)
	require.Empty(t, l.Fallback)
	require.Equal(t, 64, l.Sockets)
	require.Positive(t, l.Limit)
	// Before all workers have their shares, and while one gets no turn of this machine,
	// others have more.
	clustertest.Eventually(t, func() bool {
		spread := slots(t, addr, 400)
		return min(spread[0], spread[1], spread[2], spread[3]) > 60
	}, "an even spread")
	_, err := net.Listen("tcp", addr)
	require.ErrorIs(t, err, syscall.EADDRINUSE)
	rival := clustertest.Start(t, rival, "ADDR="+addr)
	rival.Expect("in use")
	rival.Signal(syscall.SIGTERM)
	require.Zero(t, rival.Exit())
}

// rival is another master whose worker wants the same address.
var rival = clustertest.Program("rival", func() {
	if cluster.IsMaster() {
		clustertest.Must(cluster.SetupMaster(cluster.Options{Workers: 1, Scheduling: cluster.Sharded}))
		clustertest.Must(cluster.Run(context.Background()))
		return
	}
	_, err := cluster.Listen("tcp", os.Getenv("ADDR"))
	if errors.Is(err, syscall.EADDRINUSE) {
		fmt.Println("in use")
	} else {
		fmt.Println("no error of that kind:", err)
	}
	<-cluster.Context().Done()
	select {}
})

// kill ends a worker as a crash does: another one takes its place.
func kill(t *testing.T, w *cluster.Process) {
	t.Helper()
	dead := make(chan bool, 1)
	t.Cleanup(w.OnExit(func(*cluster.Process, cluster.Exit) { dead <- true }))
	require.NoError(t, w.OSProcess().Signal(syscall.SIGKILL))
	clustertest.Await(t, dead, "death")
}

// crowd are clients that connect all the time.
type crowd struct {
	t        *testing.T
	stop     chan struct{}
	running  sync.WaitGroup
	answered atomic.Int64
	cut      atomic.Int64 // connections that ended without an answer
	mu       sync.Mutex
	errs     []error // others
}

func newCrowd(t *testing.T, addr string, n int) *crowd {
	c := &crowd{t: t, stop: make(chan struct{})}
	for range n {
		c.running.Go(func() {
			for {
				select {
				case <-c.stop:
					return
				default:
				}
				switch _, err := ask(addr); {
				case err == nil:
					c.answered.Add(1)
				case errors.Is(err, io.EOF), errors.Is(err, syscall.ECONNRESET):
					c.cut.Add(1)
				default:
					c.mu.Lock()
					c.errs = append(c.errs, err)
					c.mu.Unlock()
				}
			}
		})
	}
	return c
}

// more waits until so many more are answered.
func (c *crowd) more(n int64) {
	c.t.Helper()
	until := c.answered.Load() + n
	clustertest.Eventually(c.t, func() bool { return c.answered.Load() >= until }, "answers")
}

// end stops the clients. It returns how many connections ended without an answer.
func (c *crowd) end() (cut int64) {
	c.t.Helper()
	close(c.stop)
	c.running.Wait()
	require.Empty(c.t, c.errs, "refused, or not answered")
	return c.cut.Load()
}

// Nothing is lost when workers come and go as they are told to; and with one that is
// killed only what it had accepted: of each client one connection at most.
func TestLosesNothing(t *testing.T) {
	if clustertest.Apart(t) {
		return
	}
	const clients = 8
	addr := begin(t, 4, cluster.Sharded, cluster.Options{ReadyFor: time.Millisecond, Backoff: cluster.Backoff{Min: time.Millisecond, Max: 10 * time.Millisecond}})
	c := newCrowd(t, addr, clients)
	c.more(100)
	require.NoError(t, cluster.Reload(clustertest.Within(t, clustertest.Patience)))
	c.more(100)
	for _, n := range []int{1, 4} {
		require.NoError(t, cluster.Scale(n))
		clustertest.Eventually(t, func() bool {
			ready := 0
			for _, w := range cluster.Stats().Workers {
				if w.State == "ready" {
					ready++
				}
			}
			return ready == n && len(cluster.Stats().Workers) == n
		}, "so many workers")
		c.more(100)
	}
	require.Zero(t, c.end(), "nobody was killed")
	each(t, addr, 4)

	c = newCrowd(t, addr, clients)
	const kills = 5
	for i := range kills {
		c.more(50)
		kill(t, bySlot(t, i%4))
	}
	c.more(100)
	require.LessOrEqual(t, c.end(), int64(kills*clients))
	each(t, addr, 4)
}

// A worker that is stopped strands nobody: not under load, and not when another one is
// stopped that nobody has found out yet. When it goes on it has its share again.
func TestStoppedWorkers(t *testing.T) {
	if clustertest.Apart(t) {
		return
	}
	const clients = 16
	addr := begin(t, 4, cluster.Sharded, cluster.Options{Watchdog: cluster.Watchdog{Interval: 100 * time.Millisecond, Timeout: time.Hour}})
	each(t, addr, 4)
	stopped := []*cluster.Process{bySlot(t, 1), bySlot(t, 2)}
	for _, w := range stopped {
		clustertest.PauseWorker(t, w)
	}
	spread := slots(t, addr, 200)
	require.Zero(t, spread[1]+spread[2])
	clustertest.Kill(t, stopped[0].PID(), clustertest.SigCont)
	clustertest.Eventually(t, func() bool {
		slot, err := ask(addr)
		require.NoError(t, err)
		return slot == 1
	}, "an answer of the one that goes on")
	c := newCrowd(t, addr, clients)
	c.more(100)
	clustertest.PauseWorker(t, bySlot(t, 0))
	c.more(200)
	kill(t, bySlot(t, 0))
	clustertest.Kill(t, stopped[1].PID(), clustertest.SigCont)
	c.more(100)
	require.LessOrEqual(t, c.end(), int64(clients), "the one that was killed had accepted them")
	each(t, addr, 4)
}

// All connections of a client go to one slot, also when the slot has another worker. While the
// slot has no worker, others get them.
func TestByClient(t *testing.T) {
	if clustertest.Apart(t) {
		return
	}
	addr := begin(t, 4, cluster.ByClient, cluster.Options{ReadyFor: time.Millisecond, Watchdog: cluster.Watchdog{Interval: 100 * time.Millisecond}})
	require.Equal(t, "ByClient", listener(t).Scheduling)
	require.Empty(t, listener(t).Fallback)
	from := func(client int) int {
		d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 1, byte(client))}, Timeout: clustertest.Patience}
		c, err := d.DialContext(t.Context(), "tcp", addr)
		require.NoError(t, err)
		return answer(t, c)
	}
	const clients = 20
	// What the program of the address makes of a client's, of 64 sockets and 4 slots.
	home := func(client int) int { return int(uint32(127<<24+1<<8+client)*0x9e3779b1>>16) % 64 % 4 }
	// One that gets no turn of this machine for a while has its clients served by others.
	atHome := func() {
		t.Helper()
		clustertest.Eventually(t, func() bool {
			for client := range clients {
				if from(client) != home(client) {
					return false
				}
			}
			return true
		}, "all clients at home at once")
	}
	atHome()
	require.NoError(t, cluster.Reload(clustertest.Within(t, clustertest.Patience)))
	atHome()
	w := bySlot(t, home(0))
	clustertest.PauseWorker(t, w)
	require.NotEqual(t, home(0), from(0), "others have it")
	kill(t, w)
	atHome()
}

// answer is readSlot, which must not fail.
func answer(t *testing.T, c net.Conn) (slot int) {
	t.Helper()
	slot, err := readSlot(c)
	require.NoError(t, err)
	return slot
}

// Where it cannot be, it is Shared, Stats say why and the log does so once. And where only
// the program is refused it is Sharded.
func TestFallback(t *testing.T) {
	for name, test := range map[string]struct {
		env        []string
		scheduling string
		why        string
	}{
		"unix":    {[]string{"NETWORK=unix", "ADDR=" + clustertest.UnusedAddress(t, "unix", "s")}, "Shared", "a unix socket is one"},
		"gram":    {[]string{"NETWORK=unixgram", "ADDR=" + clustertest.UnusedAddress(t, "unix", "g")}, "Shared", "a unix socket is one"},
		"seccomp": {[]string{"NETWORK=tcp", "ADDR=127.0.0.1:0", "REFUSE=1"}, "Sharded", "operation not permitted"},
	} {
		t.Run(name, func(t *testing.T) {
			p := clustertest.Start(t, fallback, test.env...)
			rest := p.All("fallback ", "log ")
			require.Contains(t, rest[0], test.scheduling+": ")
			require.Contains(t, rest[0], test.why)
			require.Contains(t, rest[1], "ByClient is not possible: the address is "+test.scheduling)
			p.Signal(syscall.SIGTERM)
			require.Zero(t, p.Exit())
			require.Equal(t, 1, strings.Count(p.Output(), "is not possible"))
		})
	}
}

// fallback is a master with two workers that listen as they are told; its system may
// refuse the program.
var fallback = clustertest.Program("fallback", func() {
	if cluster.IsMaster() {
		if os.Getenv("REFUSE") != "" {
			clustertest.Must(refuseProgram())
		}
		logger := slog.New(slog.NewTextHandler(prefixed{}, nil))
		clustertest.Must(cluster.SetupMaster(cluster.Options{Workers: 2, Scheduling: cluster.ByClient, Logger: logger}))
		var listening atomic.Int32
		cluster.OnListening(func(*cluster.Process, net.Addr) {
			if listening.Add(1) == 2 {
				l := cluster.Stats().Listeners[0]
				fmt.Printf("fallback %s: %s\n", l.Scheduling, l.Fallback)
			}
		})
		clustertest.Must(cluster.Run(context.Background()))
		return
	}
	if os.Getenv("NETWORK") == "unixgram" {
		_, err := cluster.ListenPacket(os.Getenv("NETWORK"), os.Getenv("ADDR"))
		clustertest.Must(err)
	} else {
		_, err := cluster.Listen(os.Getenv("NETWORK"), os.Getenv("ADDR"))
		clustertest.Must(err)
	}
	<-cluster.Context().Done()
	select {}
})

// prefixed prints what is written to it as one line of a program's.
type prefixed struct{}

func (prefixed) Write(p []byte) (int, error) {
	fmt.Print("log ", string(p))
	return len(p), nil
}

// refuseProgram lets the system refuse the program that chooses by client, as a container's
// profile may: in all threads of this process, and in what it starts.
func refuseProgram() error {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	op := func(code uint16, k uint32, jt, jf uint8) unix.SockFilter {
		return unix.SockFilter{Code: code, K: k, Jt: jt, Jf: jf}
	}
	load := func(at uint32) unix.SockFilter { return op(unix.BPF_LD|unix.BPF_W|unix.BPF_ABS, at, 0, 0) }
	is := func(v uint32, no uint8) unix.SockFilter { return op(unix.BPF_JMP|unix.BPF_JEQ|unix.BPF_K, v, 0, no) }
	program := []unix.SockFilter{
		load(0), is(unix.SYS_SETSOCKOPT, 3), // the number of the call
		load(32), is(unix.SO_ATTACH_REUSEPORT_CBPF, 1), // its third argument
		op(unix.BPF_RET, unix.SECCOMP_RET_ERRNO|uint32(unix.EPERM), 0, 0),
		op(unix.BPF_RET, unix.SECCOMP_RET_ALLOW, 0, 0),
	}
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return err
	}
	filter := unix.SockFprog{Len: uint16(len(program)), Filter: &program[0]}
	_, _, errno := unix.Syscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, unix.SECCOMP_FILTER_FLAG_TSYNC, uintptr(unsafe.Pointer(&filter)))
	if errno != 0 {
		return errno
	}
	return nil
}

// Connections do not wake the master. At rest nothing wakes it, and under load only its looks do,
// ten in a second, each of which wakes one thread once. If a worker gets no CPU for a while, the
// master has more to do, so the best of several seconds counts.
func TestMasterSleeps(t *testing.T) {
	addr := begin(t, 2, cluster.Sharded, cluster.Options{Watchdog: cluster.Watchdog{Interval: time.Hour}})
	each(t, addr, 2)
	// The clients are another process, which counts as well: to do so here would wake this one.
	client := clustertest.Start(t, clients, "ADDR="+addr)
	t.Log(client.Expect("under load "))
	t.Log(client.Expect("at rest "))
	require.Zero(t, client.Exit())
}

var clients = clustertest.Program("clients", func() {
	const span = time.Second
	load := func() bool {
		n := 0
		for end := time.Now().Add(span); time.Now().Before(end); n++ {
			_, err := ask(os.Getenv("ADDR"))
			clustertest.Must(err)
		}
		return n >= 50
	}
	rest := func() bool { time.Sleep(span); return true } // the span is the measure
	for _, phase := range []struct {
		name string
		do   func() bool
		most int
	}{{"under load", load, 15}, {"at rest", rest, 0}} {
		best := math.MaxInt
		for range 40 {
			before, begun := wakeUps(os.Getppid()), time.Now()
			if phase.do() {
				best = min(best, int(float64(wakeUps(os.Getppid())-before)/time.Since(begun).Seconds()))
			}
			if best <= phase.most {
				break
			}
		}
		if best > phase.most {
			clustertest.Must(fmt.Errorf("%s: %d wake-ups in a second, at best", phase.name, best))
		}
		fmt.Println(phase.name, best, "wake-ups in a second")
	}
})

// wakeUps is how often the threads of a process have begun to wait.
func wakeUps(pid int) (n int) {
	all, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/status", pid))
	clustertest.Must(err)
	for _, path := range all {
		b, _ := os.ReadFile(path)
		_, rest, _ := strings.Cut(string(b), "\nvoluntary_ctxt_switches:")
		line, _, _ := strings.Cut(rest, "\n")
		if v, err := strconv.Atoi(strings.TrimSpace(line)); err == nil { // a thread may end
			n += v
		}
	}
	return n
}
