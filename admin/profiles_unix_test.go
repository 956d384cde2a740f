//go:build unix

package admin_test

import (
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-cluster/cluster/internal/clustertest"
	"github.com/google/pprof/profile"
	"github.com/stretchr/testify/require"
)

// What the service has in its profiles: what was there from the start, and what goes on.

var allocated [2][]byte

//go:noinline
func allocateAtTheStart() { allocated[0] = make([]byte, 32<<20) }

//go:noinline
func allocateAllTheTime() {
	for {
		allocated[1] = make([]byte, 1<<20)
		time.Sleep(20 * time.Millisecond)
		runtime.GC()
	}
}

// startToAllocate does so where a test wants it. The collections have the profiles told.
func startToAllocate() {
	if os.Getenv("ALLOCATE") == "" {
		return
	}
	allocateAtTheStart()
	runtime.GC()
	runtime.GC()
	go allocateAllTheTime()
}

// debugHandlers are the two that are tried, as the environment of the service.
var debugHandlers = map[string]string{"default": "A=B", "DefaultServeMux": "DEBUG=1"}

// TestDeltaProfiles: with seconds= a profile is what has come in that time, of a worker and of
// the master, with the default handler and with that of package net/http/pprof.
func TestDeltaProfiles(t *testing.T) {
	for name, env := range debugHandlers {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := run(t, env, "ALLOCATE=1")
			var all sync.WaitGroup
			for _, who := range []string{"1", "master"} {
				for _, kind := range []string{"heap", "allocs", "mutex", "block", "goroutine", "threadcreate"} {
					all.Go(func() {
						functions := s.delta(who, kind)
						if kind != "allocs" {
							return
						}
						for range 30 { // a profile shows what was allocated before the last collection
							if functions["allocateAllTheTime"] {
								return
							}
							functions = s.delta(who, kind)
						}
						require.Fail(t, "allocs of "+who, "%v", functions)
					})
				}
			}
			all.Wait()
			for path, want := range map[string]string{
				"heap?seconds=x": "400", "heap?seconds=-1": "400", "heap?seconds=0": "400", "heap?seconds=1&debug=1": "400",
				"heap?debug=1": "200", "goroutine?debug=2": "200", "bogus?seconds=1": "404", "cmdline": "200", "trace?seconds=0.1": "200",
			} {
				require.Equal(t, want, s.status("GET", "/workers/1/debug/pprof/"+path)[:3], path)
			}
		})
	}
}

// delta checks a profile of a second, and returns the functions that it has.
func (s *running) delta(who, kind string) (functions map[string]bool) {
	r, err := http.NewRequest("GET", "http://cluster/workers/"+who+"/debug/pprof/"+kind+"?seconds=1", nil)
	require.NoError(s.t, err)
	a, err := s.client.Do(r)
	require.NoError(s.t, err)
	defer a.Body.Close()
	require.Equal(s.t, http.StatusOK, a.StatusCode, "%s of %s", kind, who)
	require.Contains(s.t, a.Header.Get("Content-Disposition"), kind+"-delta")
	p, err := profile.Parse(a.Body)
	require.NoError(s.t, err)
	require.GreaterOrEqual(s.t, p.DurationNanos, int64(time.Second))
	require.NoError(s.t, p.CheckValid())
	functions = make(map[string]bool)
	for _, f := range p.Function {
		functions[f.Name[strings.LastIndexByte(f.Name, '.')+1:]] = true
	}
	if kind == "allocs" || kind == "heap" {
		require.False(s.t, functions["allocateAtTheStart"], "%s of %s", kind, who)
	}
	return functions
}

// status asks, and returns status and answer.
func (s *running) status(method, path string) string {
	r, err := http.NewRequest(method, "http://cluster"+path, nil)
	require.NoError(s.t, err)
	answer, err := do(s.client, r)
	require.NoError(s.t, err)
	return answer
}

// TestSymbol: the names of program counters are told, of a worker and of the master, to who
// may have profiles.
func TestSymbol(t *testing.T) {
	for name, env := range debugHandlers {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			address := fmt.Sprintf("127.0.0.1:%d", clustertest.FreePort(t))
			s := run(t, env, "ADMIN="+address, "TOKEN=secret")
			for _, who := range []string{"0", "master"} {
				at := "/workers/" + who + "/debug/pprof/"
				pc := counter(t, s.get(at+"goroutine?debug=1"))
				require.Contains(t, s.status("GET", at+"symbol"), "num_symbols: ")
				require.Contains(t, s.status("GET", at+"symbol?"+pc), pc+" ")
				ask := func(password string) string {
					r, err := http.NewRequest("POST", "http://"+address+at+"symbol", strings.NewReader("0x1+"+pc))
					require.NoError(t, err)
					r.SetBasicAuth("x", password)
					answer, err := do(http.DefaultClient, r)
					require.NoError(t, err)
					return answer
				}
				require.Regexp(t, `^200 num_symbols: \d+\n`+pc+` \S+$`, ask("secret"))
				require.Equal(t, "401", ask("wrong")[:3])
			}
			require.Equal(t, "405", s.status("POST", "/workers/0/debug/pprof/heap")[:3])
			require.Equal(t, "404", s.status("POST", "/workers/9/debug/pprof/symbol")[:3])
			require.Contains(t, s.status("GET", "/workers/0/debug/pprof"), "heap", "the way to the list")
			require.Contains(t, s.status("GET", "/workers/0/debug/stacks"), "goroutine 1 [", "whatever the handler")
			require.Equal(t, 3, strings.Count(s.get("/workers/all/debug/stacks"), "goroutine 1 ["))
		})
	}
}

// counter is a program counter of the stacks.
func counter(t *testing.T, stacks string) string {
	t.Helper()
	_, after, ok := strings.Cut(stacks, " @ 0x")
	require.True(t, ok, stacks)
	return "0x" + strings.Fields(after)[0]
}

// TestPprofSeconds: go tool pprof -seconds has a profile of a time, and asks for symbols.
func TestPprofSeconds(t *testing.T) {
	t.Parallel()
	address := fmt.Sprintf("127.0.0.1:%d", clustertest.FreePort(t))
	s := run(t, "ADMIN="+address, "TOKEN=secret", "ALLOCATE=1")
	for _, who := range []string{"0", "master"} {
		url := "http://x:secret@" + address + "/workers/" + who + "/debug/pprof/"
		for _, args := range [][]string{
			{"-seconds", "1", "-sample_index=alloc_space", url + "allocs"},
			{"-seconds", "1", "-symbolize=force:remote", url + "heap"},
		} {
			c := exec.Command("go", append([]string{"tool", "pprof", "-top", "-timeout", "60"}, args...)...)
			c.Env = append(os.Environ(), "PPROF_TMPDIR="+clustertest.TempDir(t))
			out, err := c.CombinedOutput()
			require.NoError(t, err, "%s", out)
			require.Contains(t, string(out), "Duration: ")
			if args[2] == "-sample_index=alloc_space" {
				require.NotContains(t, string(out), "allocateAtTheStart")
			}
		}
	}
	s.post("/stop", "200")
}

// TestProfileOfWhoHasGone: a profile ends with who has asked for it, so that the next one can
// be had.
func TestProfileOfWhoHasGone(t *testing.T) {
	t.Parallel()
	s := run(t)
	for _, who := range []string{"1", "master"} {
		at := "/workers/" + who + "/debug/pprof/profile?seconds="
		r, err := http.NewRequest("GET", "http://cluster"+at+"3600", nil)
		require.NoError(t, err)
		asked := make(chan error, 1)
		c := client(s.socket)
		c.Timeout = 2 * time.Second // of the one that goes
		go func() {
			a, err := c.Do(r)
			if err == nil {
				_, err = io.Copy(io.Discard, a.Body)
				a.Body.Close()
			}
			asked <- err
		}()
		require.Error(t, clustertest.Await(t, asked, "end"))
		clustertest.Eventually(t, func() bool { return strings.HasPrefix(s.status("GET", at+"1"), "200") }, "the next profile")
	}
}

// TestNothingIsRegistered: a program that serves http.DefaultServeMux does not
// publish profiles because of this package. (The tests import what does so.)
func TestNothingIsRegistered(t *testing.T) {
	out, err := exec.Command("go", "list", "-deps", ".").CombinedOutput()
	require.NoError(t, err, "%s", out)
	all := strings.Fields(string(out))
	require.Contains(t, all, "net/http")
	require.NotContains(t, all, "net/http/pprof")
	require.NotContains(t, all, "expvar")
}
