package hostile_test

import (
	"errors"
	"fmt"
	"io"
	"math"
	"net"
	"os"
	"runtime"
	"runtime/metrics"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-cluster/cluster"
	"github.com/go-cluster/cluster/internal/clustertest"
	"github.com/stretchr/testify/require"
)

// Workers that write whatever they like to their channel. They are the test
// binary without the variables that make a worker, so the package leaves the
// channel alone.

const (
	attackEnv = "CLUSTER_TEST_ATTACK"
)

// attack is what a hostile worker does, and how its master takes it.
type attack struct {
	run    func()
	report string // in an error reported about the worker
	killed bool   // by the master
	ends   bool   // by itself
}

var attacks = map[string]attack{
	"garbage":        {run: func() { rawFlood("\x00\xffgarbage\n}\n\n") }, report: "not JSON"},
	"deep nesting":   {run: func() { rawFlood(strings.Repeat("[", 1<<20) + "\n") }, report: "not JSON"},
	"endless line":   {run: func() { rawFlood(strings.Repeat("x", 64<<10)) }, report: cluster.ErrMessageTooLong.Error()},
	"oversized":      {run: func() { rawFlood(`"` + strings.Repeat("x", 2*hostileMessage) + `"` + "\n") }, report: cluster.ErrMessageTooLong.Error()},
	"largest":        {run: func() { rawFlood(`"` + strings.Repeat("x", hostileMessage-2) + `"` + "\n") }, report: "wait for a handler"},
	"unclaimed":      {run: func() { rawFlood(`{"cmd":"nobody"}` + "\n") }, report: "wait for a handler"},
	"tiny unclaimed": {run: func() { rawFlood("1\n") }, report: "wait for a handler"},
	"stuck callback": {run: func() { rawFlood(`{"cmd":"stuck"}` + "\n") }},
	"undecodable":    {run: func() { rawFlood(`{"cmd":"stuck","n":"no number"}` + "\n") }},

	"unanswered requests": {run: func() { rawFlood(rawRequest("nobody")) }, report: "wait for a handler"},
	"unread replies":      {run: func() { rawFlood(rawRequest("answered")) }, report: "does not read", killed: true},
	"stuck requests":      {run: func() { rawFlood(rawRequest("stuck")) }},
	"replies to nothing":  {run: func() { rawFlood(`{"cmd":"NODE_GO_CLUSTER","act":"reply","id":1,"msg":1}` + "\n") }},
	"receipts of nothing": {run: func() { rawFlood(`{"cmd":"NODE_GO_CLUSTER","act":"received","n":18446744073709551615}` + "\n") }},
	"asks":                {run: func() { rawFlood(`{"cmd":"NODE_GO_CLUSTER","act":"ask","n":9}` + "\n") }},

	"coord, unread answers": {run: func() { rawFlood(rawCoord(1, `{"verb":"keys","name":"x"}`)) }, report: "does not read", killed: true},
	"coord, unread notes": {run: func() {
		rawFlood(rawCoord(0, `{"verb":"stand","name":"x","ticket":1}`) + rawCoord(0, `{"verb":"returned","name":"x","ticket":1}`))
	}, report: "does not read", killed: true},
	"coord, unread topic": {run: func() {
		rawSay(rawCoord(1, `{"verb":"subscribe","name":"x"}`))
		rawFlood(rawCoord(0, `{"verb":"publish","name":"x","message":"`+strings.Repeat("x", 8<<10)+`"}`))
	}, report: "misses messages"},
	"coord, nonsense": {run: func() { rawFlood(rawCoord(0, `{"verb":"publish","name":"x"}`) + rawCoord(0, `[]`)) }},

	"unread acknowledgements": {run: func() { rawFlood(`{"cmd":"NODE_CLUSTER","act":"exitedAfterDisconnect","seq":1}` + "\n") }, report: "does not read", killed: true},
	"handles without handle":  {run: func() { rawFlood(`{"cmd":"NODE_HANDLE","msg":{"cmd":"NODE_CLUSTER"}}` + "\n") }, report: "does not read", killed: true},
	"acknowledges nothing":    {run: func() { rawFlood(`{"cmd":"NODE_HANDLE_ACK"}` + "\n" + `{"cmd":"NODE_HANDLE_NACK"}` + "\n") }},
	"answers nothing":         {run: func() { rawFlood(`{"cmd":"NODE_CLUSTER","ack":1,"accepted":true,"key":"x"}` + "\n") }},
	"failed checks": {run: func() {
		long := strings.Repeat("x", 50<<10)
		rawFlood(`{"cmd":"NODE_GO_CLUSTER","act":"pong","msg":{"error":"a` + long + `"}}` + "\n" +
			`{"cmd":"NODE_GO_CLUSTER","act":"pong","msg":{"error":"b` + long + `"}}` + "\n")
	}, report: "check failed"},
	"long numbers": {run: func() { rawFlood(`{"cmd":"NODE_GO_CLUSTER","n":` + strings.Repeat("9", hostileMessage/2) + "}\n") }, report: "bad internal message"},
	"online again": {run: func() { rawFlood(rawOnline + `{"cmd":"NODE_CLUSTER","act":"online"}` + "\n") }},
	"bad types":    {run: func() { rawFlood(`{"cmd":"NODE_CLUSTER","act":{},"ack":"x"}` + "\n") }, report: "bad internal message"},

	"listening":            {run: func() { rawFlood(rawListening("127.0.0.1")) }},
	"listening on rubbish": {run: func() { rawFlood(rawListening("rubbish")) }, report: "listening"},
	"asks for rubbish":     {run: func() { rawReadAndFlood(rawQuery("rubbish", 0, "")) }, report: "queryServer"},
	"asks, unread":         {run: func() { rawFlood(rawQuery("rubbish", 0, "")) }, report: "does not read", killed: true},
	"asks for much":        {run: func() { rawFlood(rawQuery("127.0.0.1", 0, strings.Repeat("x", hostileMessage/2))) }, report: "is ignored"},
	"asks again and again": {run: func() {
		rawFlood(rawQuery("127.0.0.1", 0, "") + `{"cmd":"NODE_CLUSTER","act":"close","key":"tcp4 127.0.0.1:0#0"}` + "\n")
	},
		report: "does not read", killed: true},
	"asks for all addresses": {run: func() {
		for i := 0; rawSay(rawQuery("127.0.0.1", i, "")) == nil; i++ {
		}
	}, report: "does not read", killed: true},

	"never speaks":  {run: func() {}},
	"dies half way": {run: func() { rawSay(`{"cmd":"half`); os.Exit(0) }, ends: true},
	// not one of a worker's, but of the child that one leaves
	"child": {run: func() { rawFlood(`{"cmd":"nobody"}` + "\n"); os.Exit(0) }},
}

// hostileMessage is the MaxMessage of their master.
const hostileMessage = 2 << 20

const rawOnline = `{"cmd":"NODE_CLUSTER","act":"online","seq":0,"go":{"version":1}}` + "\n"

func rawRequest(cmd string) string {
	return `{"cmd":"NODE_GO_CLUSTER","act":"request","id":1,"msg":{"cmd":"` + cmd + `"}}` + "\n"
}

func rawListening(address string) string {
	return `{"cmd":"NODE_CLUSTER","act":"listening","address":"` + address + `","port":80,"addressType":4}` + "\n"
}

func rawQuery(address string, index int, data string) string {
	return fmt.Sprintf(`{"cmd":"NODE_CLUSTER","act":"queryServer","address":"%s","port":0,"addressType":4,"index":%d,"data":"%s","seq":%d}`+"\n",
		address, index, data, index)
}

// rawCoord is a question of package coord's.
func rawCoord(id int, msg string) string {
	return fmt.Sprintf(`{"cmd":"NODE_GO_CLUSTER","act":"coord","id":%d,"msg":%s}`+"\n", id, msg)
}

// hostile is a worker that attacks as its environment says.
var hostile = clustertest.Program("hostile", func() {
	name := os.Getenv(attackEnv)
	if name != "child" && name != "never speaks" {
		rawSay(rawOnline)
	}
	attacks[name].run()
	rawEnd() // without reading
})

// rawFlood says s for as long as the channel takes it.
func rawFlood(s string) {
	if len(s) < 4<<10 {
		s = strings.Repeat(s, 1+(16<<10)/len(s))
	}
	for rawSay(s) == nil {
	}
}

// honest serves an echo and answers requests.
var honest = clustertest.Program("honest", func() {
	ln, err := cluster.Listen("tcp", "127.0.0.1:0")
	clustertest.Must(err)
	cluster.Respond("ping", func(_ *cluster.Process, q struct{ N int }) (int, error) { return q.N + 1, nil })
	for {
		c, err := ln.Accept()
		clustertest.Must(err)
		go func() {
			defer c.Close()
			io.Copy(c, c)
		}()
	}
})

// TestHostileWorker: whatever a worker does to its channel is reported as that
// worker's fault. The master lives on, does not block and does not grow by more
// than MaxMessage and a few MiB, and another worker is served promptly meanwhile.
func TestHostileWorker(t *testing.T) {
	if clustertest.Apart(t) {
		return
	}
	for name, a := range attacks {
		if name == "child" {
			continue
		}
		t.Run(name, func(t *testing.T) { hostileTest(t, name, a) })
	}
}

func hostileTest(t *testing.T, name string, a attack) {
	const maxQueue = 256 << 10
	options := cluster.Options{MaxMessage: hostileMessage, MaxQueue: maxQueue}
	clustertest.WithMaster(t, honest, options)

	gate := make(chan struct{})
	var open sync.Once
	t.Cleanup(func() { open.Do(func() { close(gate) }) })
	t.Cleanup(cluster.Handle("stuck", func(*cluster.Process, struct{ N int }) { <-gate }))
	t.Cleanup(cluster.Respond("stuck", func(*cluster.Process, any) (int, error) { <-gate; return 0, nil }))
	t.Cleanup(cluster.Respond("answered", func(*cluster.Process, any) (string, error) { return "answer", nil }))
	addrs := make(chan net.Addr, 1)
	t.Cleanup(cluster.OnListening(func(w *cluster.Process, addr net.Addr) {
		select {
		case addrs <- addr: // of the honest one, who is first
		default:
			<-gate
		}
	}))
	var villain *cluster.Process
	online, reported, dead := make(chan struct{}, 1), make(chan struct{}), make(chan cluster.Exit, 1)
	var once sync.Once

	friend, err := clustertest.TryFork()
	require.NoError(t, err)
	echo, err := net.Dial("tcp", clustertest.Await(t, addrs, "listener of the honest worker").String())
	require.NoError(t, err)
	defer echo.Close()
	before := memoryInUse()

	options.Env = []string{"CLUSTER_TEST_RAW=1", clustertest.ProgramEnv + "=" + hostile, attackEnv + "=" + name}
	require.NoError(t, cluster.SetupMaster(options))
	t.Cleanup(cluster.OnFork(func(w *cluster.Process) {
		w.OnOnline(func(*cluster.Process) { online <- struct{}{} })
		w.OnError(func(_ *cluster.Process, err error) {
			if strings.Contains(err.Error(), a.report) {
				once.Do(func() { close(reported) })
				<-gate // the application does not take the rest
			}
		})
		w.OnExit(func(_ *cluster.Process, e cluster.Exit) { dead <- e })
	}))
	villain, err = clustertest.TryFork()
	require.NoError(t, err)
	if name != "never speaks" {
		clustertest.Await(t, online, "hostile worker")
	}

	most, slowest := before, time.Duration(0)
	seen := a.report == ""
	for n := 0; n < 40 || !seen; n++ {
		begun := time.Now()
		var reply int
		require.NoError(t, friend.Request(t.Context(), map[string]any{"cmd": "ping", "n": n}, &reply))
		require.Equal(t, n+1, reply)
		requireEcho(t, echo)
		if err := villain.Send(strings.Repeat("x", 10<<10)); err != nil {
			require.True(t, errors.Is(err, cluster.ErrBacklog) || errors.Is(err, cluster.ErrClosed), "%v", err)
		}
		slowest = max(slowest, time.Since(begun))
		if n%10 == 0 {
			most = max(most, memoryInUse())
		}
		select {
		case <-reported:
			seen = true
		default:
		}
		require.Less(t, slowest, clustertest.Patience, "no report of %q", a.report)
	}
	require.Less(t, slowest, clustertest.Patience/2, "the honest worker waits")
	require.Less(t, most-before, int64(hostileMessage+8<<20)*clustertest.RaceFactor, "the master grows")
	if !a.killed && !a.ends {
		require.False(t, villain.IsDead())
		require.NoError(t, villain.Kill())
	}
	clustertest.Eventually(t, villain.IsDead, "the end of the hostile worker")
	open.Do(func() { close(gate) })
	e := clustertest.Await(t, dead, "report of its end")
	if a.ends {
		require.Zero(t, e.Code)
	} else {
		clustertest.RequireKilled(t, e)
	}
	require.False(t, friend.IsDead())
}

// memoryInUse is what a collection found alive, in bytes: the least that three
// found, since each counts as alive what was made while it went on.
func memoryInUse() int64 {
	least := int64(math.MaxInt64)
	for range 3 {
		runtime.GC()
		live := []metrics.Sample{{Name: "/gc/heap/live:bytes"}, {Name: "/memory/classes/heap/stacks:bytes"}}
		metrics.Read(live)
		least = min(least, int64(live[0].Value.Uint64()+live[1].Value.Uint64()))
	}
	return least
}

func requireEcho(t *testing.T, c net.Conn) {
	t.Helper()
	c.SetDeadline(time.Now().Add(clustertest.Patience))
	_, err := c.Write([]byte("hello"))
	require.NoError(t, err)
	b := make([]byte, 5)
	_, err = io.ReadFull(c, b)
	require.NoError(t, err)
}
