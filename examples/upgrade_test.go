//go:build unix

package examples

import (
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// deployUpgrade does what the example's comment says: it builds a version, and puts it in
// the place of the one that runs.
func deployUpgrade(t *testing.T, path, version string) {
	t.Helper()
	out, err := exec.Command("go", "build", "-ldflags", "-X main.version="+version, "-o", path+".new", "./upgrade").CombinedOutput()
	require.NoError(t, err, "%s", out)
	require.NoError(t, os.Rename(path+".new", path))
}

// visitors ask a server all the time.
type visitors struct {
	over     chan struct{}
	all      sync.WaitGroup
	answered atomic.Int64
	mu       sync.Mutex
	failed   []error
}

func beginVisits(url string) *visitors {
	v := &visitors{over: make(chan struct{})}
	for i := range 4 {
		c := &http.Client{Timeout: patience, Transport: &http.Transport{DisableKeepAlives: i%2 == 0}}
		v.all.Go(func() {
			defer c.CloseIdleConnections()
			for {
				select {
				case <-v.over:
					return
				case <-time.After(5 * time.Millisecond): // there is more to do than this
				}
				v.visit(c, url)
			}
		})
	}
	return v
}

func (v *visitors) visit(c *http.Client, url string) {
	resp, err := c.Get(url)
	if err == nil {
		_, err = io.Copy(io.Discard, resp.Body)
		resp.Body.Close()
	}
	if err == nil && resp.StatusCode != http.StatusOK {
		err = fmt.Errorf("status %s", resp.Status)
	}
	if err == nil {
		v.answered.Add(1)
		return
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	v.failed = append(v.failed, err)
}

// end returns how many requests were answered; none has failed.
func (v *visitors) end(t *testing.T) int64 {
	t.Helper()
	close(v.over)
	v.all.Wait()
	require.Empty(t, v.failed, "of %d requests", v.answered.Load())
	return v.answered.Load()
}

// logged waits until the program has printed lines like each of the patterns, in whatever order.
func (e *example) logged(patterns ...string) {
	e.t.Helper()
	for _, p := range patterns {
		re := regexp.MustCompile(`(?m)` + p)
		require.Eventually(e.t, func() bool {
			e.mu.Lock()
			defer e.mu.Unlock()
			return re.MatchString(e.log.String())
		}, patience, 5*time.Millisecond, "no line like %s", p)
	}
}

// TestUpgrade: a version takes the place of another under load, in the same process: it has
// the workers, replaces them, and counts on. Two that do not start change nothing, and
// the log says why. The service manager is the faithful fake of clustertest.
func TestUpgrade(t *testing.T) {
	const name = "upgraded/server"
	path := filepath.Join(bin, name)
	require.NoError(t, os.MkdirAll(filepath.Dir(path), 0o700))
	deployUpgrade(t, path, "1")
	e := start(t, name, "-addr", "127.0.0.1:0")
	pid := e.cmd.Process.Pid
	e.expect(fmt.Sprintf(`master, pid %d, version 1$`, pid))
	const worker = `worker (\d+), pid (\d+), listening on (\S+)$`
	one, two := e.expect(worker), e.expect(worker)
	url := "http://" + one[3]
	e.inRun()
	require.Contains(t, get(t, client, url), "version 1,")
	v := beginVisits(url)

	deployUpgrade(t, path, "2")
	for line := ""; line != "reloaded"; {
		require.NoError(t, syscall.Kill(pid, syscall.SIGUSR2))
		line = e.expect(`reloaded|not within 5s`)[0] // this machine may be too slow: then once more
	}
	e.logged(
		fmt.Sprintf(`master, pid %d, version 2$`, pid),
		`the master is version 2 after [1-9]\d* requests$`,
		fmt.Sprintf(`worker %s, pid %s, goes on$`, one[1], one[2]),
		fmt.Sprintf(`worker %s, pid %s, goes on$`, two[1], two[2]),
		`reloaded 2 workers, error <nil>$`,
	)
	require.Contains(t, get(t, client, url), "version 2,")
	require.True(t, strings.HasPrefix(e.manager.Next(), "RELOADING=1\n"))
	e.manager.InRun() // or the manager would wait for it for ever

	for version, why := range map[string]string{"3": "panic: version 3 finds no configuration", "4": "panic: version 4 cannot reach its database"} {
		deployUpgrade(t, path, version)
		require.NoError(t, syscall.Kill(pid, syscall.SIGUSR2))
		e.expect(`the upgrade failed; the program goes on as it was.*` + why)
		require.Contains(t, get(t, client, url), "version 2,")
	}

	answered := v.end(t) + 4 // those of this test itself
	require.NoError(t, syscall.Kill(pid, syscall.SIGTERM))
	e.expect(fmt.Sprintf(` %d requests in all$`, answered))
	e.end()
}
