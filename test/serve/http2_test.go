package serve_test

import (
	"crypto/tls"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/go-cluster/cluster"
	"github.com/go-cluster/cluster/internal/clustertest"
	"github.com/stretchr/testify/require"
)

// By HTTP/2 a client that can send a request again loses none in reload after reload.
// net/http's server sends one GOAWAY, with the last stream that it has seen: of requests
// that cannot be sent again those may be lost that cross it. They are counted.
func TestHTTP2LosesNothing(t *testing.T) {
	if clustertest.Apart(t) {
		return
	}
	dir := clustertest.TempDir(t)
	writeCert(t, dir, "test")
	addr := startTLS(t, 2, "listenAndServe", dir)
	var stop atomic.Bool
	var clients sync.WaitGroup
	var mu sync.Mutex
	lost := make(map[bool][]string)
	var requests [2]atomic.Int64
	for _, again := range []bool{true, false} {
		tr := &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, ForceAttemptHTTP2: true}
		defer tr.CloseIdleConnections()
		c := &http.Client{Transport: tr, Timeout: clustertest.Patience}
		for range 8 {
			clients.Go(func() {
				for !stop.Load() {
					if err := post(c, addr, again); err != nil {
						mu.Lock()
						lost[again] = append(lost[again], err.Error())
						mu.Unlock()
					}
					requests[index(again)].Add(1)
				}
			})
		}
	}
	reloads := 5
	if clustertest.Long() {
		reloads = 20
	}
	for range reloads {
		before := requests[1].Load()
		require.NoError(t, cluster.Reload(clustertest.Within(t, 2*clustertest.Patience)))
		clustertest.Eventually(t, func() bool { return requests[1].Load() > before+100 }, "requests between reloads")
	}
	stop.Store(true)
	clients.Wait()
	require.Empty(t, lost[true], "of %d requests", requests[1].Load())
	t.Logf("%d reloads of 2 workers: %d requests that can be sent again, none lost; of %d that cannot %d lost: %q",
		reloads, requests[1].Load(), requests[0].Load(), len(lost[false]), lost[false])
}

func index(again bool) int {
	if again {
		return 1
	}
	return 0
}

// post sends a request. again says whether the client can get its body again.
func post(c *http.Client, addr string, again bool) error {
	body := io.Reader(strings.NewReader("hello"))
	if !again {
		body = io.LimitReader(body, 5) // of which package http knows nothing
	}
	req, err := http.NewRequest(http.MethodPost, "https://"+addr, body)
	if err != nil {
		return err
	}
	req.ContentLength = 5
	began := time.Now()
	resp, err := c.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err == nil && (string(b) != "hello" || resp.ProtoMajor != 2) {
		err = fmt.Errorf("%s %s after %v: %q", resp.Proto, resp.Status, time.Since(began), b)
	}
	return err
}
