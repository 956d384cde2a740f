//go:build unix

package examples

import (
	"io"
	"net/http"
	"strconv"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
)

// TestCron: one worker does the job, and another one when that is killed.
func TestCron(t *testing.T) {
	e := start(t, "cron", "-addr", "127.0.0.1:0", "-every", "10ms")
	first := e.expect(`^worker (\d+) \(pid (\d+)\) leads$`)
	e.expect(`^worker ` + first[1] + ` does the job: 3 `)
	pid, err := strconv.Atoi(first[2])
	require.NoError(t, err)
	require.NoError(t, syscall.Kill(pid, syscall.SIGKILL))
	next := e.expect(`^worker (\d+) \(pid \d+\) leads$`)
	require.NotEqual(t, first[1], next[1])
	e.expect(`^worker ` + next[1] + ` does the job: 3 `)
	e.ctrlC()
}

// TestRateLimit: of a client's requests as many pass as the burst says, over all
// workers, and they are counted together.
func TestRateLimit(t *testing.T) {
	e := start(t, "ratelimit", "-addr", "127.0.0.1:0", "-rate", "0.001")
	addr := e.address()
	codes, last := make(map[int]int), ""
	for range 30 {
		resp, err := client.Get("http://" + addr)
		require.NoError(t, err)
		b, err := io.ReadAll(resp.Body)
		require.NoError(t, err)
		resp.Body.Close()
		if codes[resp.StatusCode]++; resp.StatusCode == http.StatusOK {
			last = string(b)
		} else {
			require.NotEmpty(t, resp.Header.Get("Retry-After"))
		}
	}
	require.Equal(t, map[int]int{http.StatusOK: 10, http.StatusTooManyRequests: 20}, codes)
	require.Regexp(t, `^worker \d+: hit 10\n$`, last)
	e.ctrlC()
}
