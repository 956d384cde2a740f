//go:build unix

package linear

import (
	"bufio"
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/anishathalye/porcupine"
	"github.com/go-cluster/cluster"
	"github.com/go-cluster/cluster/coord"
	"github.com/go-cluster/cluster/internal/clustertest"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

func TestMain(m *testing.M) { clustertest.Main(m) }

// length is how long operations are done.
var length = flag.Duration("time", 5*time.Second, "how long each of the tests with processes does operations")

// TestLinear: the operations of eight workers and the master are linear.
func TestLinear(t *testing.T) { run(t, false) }

// TestLinearDeaths: they are when workers are killed meanwhile, too.
func TestLinearDeaths(t *testing.T) { run(t, true) }

func run(t *testing.T, kill bool) {
	dir := t.TempDir()
	clustertest.WithMaster(t, worker, cluster.Options{Env: []string{dirEnv + "=" + dir}})
	t.Cleanup(func() { store.DeletePrefix(context.Background(), "") })
	died := make(chan struct{}, 100)
	t.Cleanup(cluster.OnDeath(func(*cluster.Process, cluster.Exit) { died <- struct{}{} }))
	for range 8 {
		clustertest.Fork(t)
	}
	ctx, cancel := context.WithTimeout(t.Context(), *length)
	defer cancel()
	var master sync.WaitGroup
	master.Go(func() { operate(ctx, dir) })
	for kill && ctx.Err() == nil {
		time.Sleep(time.Duration(rand.IntN(200)) * time.Millisecond)
		all := cluster.Workers()
		require.NoError(t, all[rand.IntN(len(all))].OSProcess().Kill())
		clustertest.Await(t, died, "death")
		clustertest.Fork(t)
	}
	master.Wait()
	require.NoError(t, cluster.Disconnect(clustertest.Within(t, clustertest.Patience)))
	judge(t, histories(t, dir))
}

// judge checks the history of each key.
func judge(t *testing.T, keys map[string][]operation) {
	begun := time.Now()
	var operations, pending, caught, undecided int
	for key, history := range keys {
		operations += len(history)
		for _, o := range history {
			if o.Return == never {
				pending++
			}
		}
		switch check(history, clustertest.Patience) {
		case porcupine.Illegal:
			for _, o := range history {
				t.Logf("%+v", o)
			}
			require.FailNow(t, "not linear", "key %s", key)
		case porcupine.Unknown:
			undecided++
		}
		if wrong, ok := doctored(history); ok && caught < 100 {
			require.Equal(t, porcupine.Illegal, check(wrong, clustertest.Patience), "what was doctored")
			caught++
		}
	}
	t.Logf("%d operations on %d keys, %d under way at a death, %d keys undecided; checked in %v", operations, len(keys), pending, undecided, time.Since(begun))
	require.NotZero(t, caught)
	require.Less(t, undecided, len(keys)/10)
}

// ---- who operates

// dirEnv names the directory of the histories to the workers.
const dirEnv = "LINEAR_DIR"

var worker = clustertest.Program("linear", func() {
	operate(cluster.Context(), os.Getenv(dirEnv))
	select {} // the drain ends it
})

var store = coord.Open("linear")

// operate does operations at random until ctx ends, and writes them to a file.
func operate(ctx context.Context, dir string) {
	f, err := os.CreateTemp(dir, "history")
	clustertest.Must(err)
	defer f.Close()
	out := json.NewEncoder(f)
	for ctx.Err() == nil {
		o := random()
		o.Call, o.Return = now(), never
		clustertest.Must(out.Encode(o)) // it may be the last that is heard of it
		err := o.do()
		if err == nil {
			o.Return = now()
			clustertest.Must(out.Encode(o))
		} else if ctx.Err() == nil {
			clustertest.Must(fmt.Errorf("%+v: %w", o, err))
		}
	}
}

// random is an operation on one of a few keys, which are new ones ten times a second:
// what is long is hard to check.
func random() operation {
	o := operation{
		Verb: pick("get", "get", "set", "add", "cas", "incr", "delete"),
		Key:  fmt.Sprint(now()/int64(100*time.Millisecond), "/", rand.IntN(8)),
		TTL:  pick(0, 0, coord.KeepTTL, time.Duration(rand.IntN(20))*time.Millisecond),
	}
	switch o.Verb {
	case "set", "add":
		o.Val = number()
	case "cas":
		o.Old, o.Val = number(), number()
	case "incr":
		o.N = rand.Int64N(3) - 1
	}
	return o
}

func number() string { return strconv.Itoa(rand.IntN(5)) }

func pick[T any](of ...T) T { return of[rand.IntN(len(of))] }

// do does it and notes its result.
func (o *operation) do() (err error) {
	ctx, r := context.Background(), &o.Result
	switch o.Verb {
	case "get":
		var val []byte
		val, r.OK, err = store.Get(ctx, o.Key)
		r.Val = string(val)
	case "set":
		err = store.Set(ctx, o.Key, []byte(o.Val), o.TTL)
	case "add":
		r.OK, err = store.Add(ctx, o.Key, []byte(o.Val), o.TTL)
	case "cas":
		r.OK, err = store.CompareAndSwap(ctx, o.Key, []byte(o.Old), []byte(o.Val), o.TTL)
	case "incr":
		r.N, err = store.Incr(ctx, o.Key, o.N, o.TTL)
	case "delete":
		err = store.Delete(ctx, o.Key)
	}
	return err
}

// now is the time of the clock that all processes of a machine share and nobody sets.
func now() int64 {
	var ts unix.Timespec
	clustertest.Must(unix.ClockGettime(unix.CLOCK_MONOTONIC, &ts))
	return ts.Nano()
}

// histories reads what was done, by key.
func histories(t *testing.T, dir string) map[string][]operation {
	files, err := filepath.Glob(filepath.Join(dir, "history*"))
	require.NoError(t, err)
	require.NotEmpty(t, files)
	keys := make(map[string][]operation)
	done := func(o *operation) {
		if o != nil {
			keys[o.Key] = append(keys[o.Key], *o)
		}
	}
	for _, name := range files {
		f, err := os.Open(name)
		require.NoError(t, err)
		var called *operation
		for lines := bufio.NewScanner(f); lines.Scan(); {
			var o operation
			if json.Unmarshal(lines.Bytes(), &o) != nil {
				break // half a line of one that was killed: the last, so it is not done yet
			}
			if o.Return == never {
				done(called) // an error, at the end
				called = &o
			} else {
				done(&o)
				called = nil
			}
		}
		done(called)
		f.Close()
	}
	return keys
}
